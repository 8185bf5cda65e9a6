"""A side of `bench_grid.py`: the grid as an eager PyTorch loop, with hooks that record every layer at every step.

The statistics are those of `cnnjax.probes.Flow`, formula by formula. Runs under an interpreter that has torch and NumPy.
"""

import functools
import math
from collections.abc import Callable

import grid
import numpy as np
import torch
from benchmarking import Run, serve
from torch import Tensor, nn

# Activation and its derivative at z.
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "relu": (torch.relu, lambda z: (z > 0).float()),
    "tanh": (torch.tanh, lambda z: 1 - torch.tanh(z) ** 2),
    "softsign": (nn.functional.softsign, lambda z: (1 + z.abs()) ** -2),
    "identity": (lambda z: z, torch.ones_like),
}
# Deviation of a kernel from its fans.
INITIALIZERS: dict[str, Callable[[int, int], float]] = {
    "xavier_normal": lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out)),
    "he_normal": lambda fan_in, fan_out: math.sqrt(2 / fan_in),
}


class Layer(nn.Module):
    """A convolution or dense layer and its activation, which records what passes it in both directions."""

    def __init__(self, linear: nn.Conv2d | nn.Linear, activation: str) -> None:
        super().__init__()
        self.linear = linear
        self.function, self.derivative = ACTIVATIONS[activation]
        self.row: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        z = self.linear(x)
        y = self.function(z)
        with torch.no_grad():
            self.row = {f"z_{k}": v for k, v in moments(z).items()}
            self.row |= {f"y_{k}": v for k, v in moments(y).items()}
            slope = self.derivative(z).abs()
            self.row["dead"] = (slope == 0).float().mean()
            self.row["saturated"] = (slope < 0.1).float().mean()
            self.row["correlation"] = pair_correlation(z)
        z.register_hook(functools.partial(self.look, "gradient"))
        y.register_hook(functools.partial(self.look, "output_gradient"))
        return y

    def look(self, name: str, gradient: Tensor) -> None:
        """The hook: the moments of a gradient."""
        self.row |= {f"{name}_{k}": v for k, v in moments(gradient).items()}


def moments(x: Tensor) -> dict[str, Tensor]:
    """Mean, and log10 of second moment and maximum, scaled by the maximum."""
    largest, scaled = scaled_by_maximum(x)
    logarithm = largest.log10()
    second = 2 * logarithm + (scaled * scaled).mean().log10()
    return {"mean": x.mean(), "log10_second_moment": second, "log10_max": logarithm}


def log10_norm(x: Tensor) -> Tensor:
    """log10 of the Euclidean norm."""
    largest, scaled = scaled_by_maximum(x)
    return largest.log10() + (scaled * scaled).sum().log10() / 2


def scaled_by_maximum(x: Tensor) -> tuple[Tensor, Tensor]:
    """The largest magnitude, and x divided by it."""
    largest = x.abs().amax()
    return largest, x / torch.where(largest == 0, 1.0, largest)


def pair_correlation(x: Tensor) -> Tensor:
    """Mean cosine between neighboring examples."""
    rows = x.flatten(1)
    rows = rows / rows.abs().amax(1, keepdim=True)
    inner = (rows * rows.roll(-1, 0)).sum(1)
    norms = (rows * rows).sum(1).sqrt()
    return (inner / (norms * norms.roll(-1))).mean()


def network(activation: str, initializer: str, seed: int) -> tuple[nn.Sequential, list[Layer]]:
    """The plain network and its layers."""
    torch.manual_seed(seed)
    channels = [1, *[grid.WIDTH] * (grid.DEPTH - 1)]
    layers = [
        Layer(nn.Conv2d(fan, features, 3, padding=1), activation)
        for fan, features in zip(channels, channels[1:], strict=False)
    ]
    head = Layer(nn.Linear(grid.WIDTH * grid.SIZE**2, grid.CLASSES), "identity")
    for layer in [*layers, head]:
        kernel = layer.linear.weight
        window = kernel[0, 0].numel()
        std = INITIALIZERS[initializer](kernel.shape[1] * window, kernel.shape[0] * window)
        nn.init.normal_(kernel, std=std)
        nn.init.zeros_(layer.linear.bias)
    return nn.Sequential(*layers, nn.Flatten(), head), [*layers, head]


class Training:
    """One run of the grid."""

    def __init__(self, activation: str, initializer: str, seed: int) -> None:
        images, labels = grid.data()
        self.images = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        self.labels = torch.from_numpy(labels).long()
        self.model, self.layers = network(activation, initializer, seed)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=grid.RATE, momentum=grid.MOMENTUM)
        self.rows = torch.from_numpy(grid.batches(seed, grid.WHOLE))

    def run(self, steps: int) -> np.ndarray:
        """Trains; returns the records, `(steps, layers, statistics)`."""
        return torch.stack([self.step(self.rows[i]) for i in range(steps)]).numpy()

    def step(self, row: Tensor) -> Tensor:
        """One step and its record, `(layers, statistics)`."""
        images = (self.images[row].float() / 255 - 0.5) / 0.3
        self.optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(self.model(images), self.labels[row]).backward()
        self.optimizer.step()
        with torch.no_grad():
            return torch.stack([torch.stack(self.record(layer)) for layer in self.layers])

    def record(self, layer: Layer) -> list[Tensor]:
        """The row of one layer, with the norms of its kernel, of its gradient and of its update."""
        kernel = layer.linear.weight
        norms = [log10_norm(kernel), log10_norm(kernel.grad)]
        norms.append(log10_norm(self.optimizer.state[kernel]["momentum_buffer"]) + math.log10(grid.RATE))
        return [*layer.row.values(), *norms, norms[1] - norms[0], norms[2] - norms[0]]


def trainings() -> list[Training]:
    """All runs of the grid."""
    return [
        Training(activation, initializer, seed)
        for activation in grid.ACTIVATIONS
        for initializer in grid.INITIALIZERS
        for seed in range(grid.SEEDS)
    ]


def steady() -> Run:
    """A segment of every run."""
    runs = trainings()
    return lambda: [run.run(grid.SEGMENT) for run in runs]


def from_nothing() -> Run:
    """The whole grid."""
    return lambda: [run.run(grid.WHOLE) for run in trainings()]


if __name__ == "__main__":
    workloads = {grid.STEADY: steady, grid.FROM_NOTHING: from_nothing}
    serve(workloads, lambda: f"PyTorch {torch.__version__} with {torch.get_num_threads()} CPU threads")
