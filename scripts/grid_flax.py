"""A side of `bench_grid.py`: the grid in Flax as one usually writes it.

Layers written out, one jit for each configuration, gradients of activations by `perturb`, statistics by `sow`, a Python loop
over runs and steps. The statistics are computed by the functions that cnnjax uses, so that both sides do the same work.
"""

import functools
from typing import Any

import flax.linen as nn
import grid
import jax
import jax.numpy as jnp
import optax
from benchmarking import Run, jax_device, serve

from cnnjax import functional as F
from cnnjax.functional import statistics

INITIALIZERS = {
    "xavier_normal": nn.initializers.variance_scaling(1.0, "fan_avg", "normal"),
    "he_normal": nn.initializers.variance_scaling(2.0, "fan_in", "normal"),
}


class Plain(nn.Module):
    """The plain network, every layer with its own name."""

    activation: str
    initializer: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel_init = INITIALIZERS[self.initializer]
        for i in range(grid.DEPTH - 1):
            z = nn.Conv(grid.WIDTH, (3, 3), kernel_init=kernel_init, name=f"layer_{i}")(x)
            x = self.observed(f"layer_{i}", z, self.activation)
        z = nn.Dense(grid.CLASSES, kernel_init=kernel_init, name="head")(x.reshape(x.shape[0], -1))
        return self.observed("head", z, "identity")

    def observed(self, name: str, z: jax.Array, activation: str) -> jax.Array:
        """The activation of z, with everything about both recorded."""
        row = F.get_activation(activation)
        z = self.perturb(f"{name}_gradient", z)
        y = row.function(z)
        slopes = statistics.slope_fractions(z, F.derivative(row), max_slope=row.max_slope)
        forward = statistics.moments(z), statistics.moments(y), slopes, statistics.pair_correlation(z)
        self.sow("intermediates", f"{name}_forward", jax.lax.stop_gradient(forward))
        return self.perturb(f"{name}_output_gradient", y)


class Configuration:
    """A configuration with its compiled step."""

    def __init__(self, activation: str, initializer: str) -> None:
        self.model = Plain(activation, initializer)
        self.optimizer = optax.sgd(grid.RATE, momentum=grid.MOMENTUM)
        self.step = jax.jit(self._step)

    def start(self, seed: int) -> tuple:
        """Parameters, optimizer state and perturbations of a run."""
        images = jnp.zeros((grid.BATCH, grid.SIZE, grid.SIZE, 1))
        variables = jax.jit(self.model.init)(jax.random.key(seed), images)
        return variables["params"], self.optimizer.init(variables["params"]), variables["perturbations"]

    def _step(self, params: Any, memory: Any, perturbations: Any, images: Any, labels: Any) -> tuple:
        images = (images.astype(jnp.float32) / 255 - 0.5) / 0.3

        def loss(params, perturbations):
            variables = {"params": params, "perturbations": perturbations}
            logits, state = self.model.apply(variables, images, mutable=["intermediates"])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return jnp.mean(losses), state["intermediates"]

        differentiate = jax.grad(loss, argnums=(0, 1), has_aux=True)
        (gradients, cotangents), forward = differentiate(params, perturbations)
        updates, memory = self.optimizer.update(gradients, memory, params)
        backward = jax.tree.map(statistics.moments, cotangents)
        norms = jax.tree.map(statistics.log10_norm, [_kernels(t) for t in (params, gradients, updates)])
        return optax.apply_updates(params, updates), memory, (forward, backward, norms)


def _kernels(tree: Any) -> dict[str, jax.Array]:
    return {name: layer["kernel"] for name, layer in tree.items()}


def train(configuration: Configuration, start: tuple, seed: int, steps: int) -> list:
    """One run; returns its records."""
    images, labels = grid.data()
    params, memory, perturbations = start
    records = []
    for row in grid.batches(seed, steps):
        params, memory, record = configuration.step(params, memory, perturbations, images[row], labels[row])
        records.append(record)
    return jax.device_get(records)


def steady() -> Run:
    """A segment of every run; the first call compiles."""
    grids = [(c, [c.start(seed) for seed in range(grid.SEEDS)]) for c in configurations()]
    return functools.partial(_train_all, grids, grid.SEGMENT)


def from_nothing() -> Run:
    """The whole grid, with nothing compiled."""

    def run() -> None:
        jax.clear_caches()
        grids = [(c, [c.start(seed) for seed in range(grid.SEEDS)]) for c in configurations()]
        _train_all(grids, grid.WHOLE)

    return run


def configurations() -> list[Configuration]:
    """All configurations of the grid."""
    return [Configuration(a, i) for a in grid.ACTIVATIONS for i in grid.INITIALIZERS]


def _train_all(grids: list[tuple[Configuration, list]], steps: int) -> None:
    for configuration, starts in grids:
        for seed, start in enumerate(starts):
            train(configuration, start, seed, steps)


if __name__ == "__main__":
    serve({grid.STEADY: steady, grid.FROM_NOTHING: from_nothing}, jax_device)
