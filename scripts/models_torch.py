"""The process of torchvision's side of bench_models.py; it needs torch and torchvision, and nothing of cnnjax."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch
from benchmarking import Run, serve

# A CPU build of torch cannot load torchvision's compiled operators, which its model definitions only want declared.
_OPERATORS = torch.library.Library("torchvision", "DEF")
for _signature in (
    "nms(Tensor a, Tensor b, float c) -> Tensor",
    "qnms(Tensor a, Tensor b, float c) -> Tensor",
):
    try:
        _OPERATORS.define(_signature)
    except RuntimeError:
        break

import torchvision  # noqa: E402

OPTIONS = {
    "mobilenet_v2": {"dropout": 0.0},
    "efficientnet_b0": {"dropout": 0.0, "stochastic_depth_prob": 0.0},
}


def training_step(name: str, size: int, batch: int) -> Run:
    """Forward, backward and SGD with momentum, eager."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, **OPTIONS.get(name, {}))
    step = _step(model, torch.randn(batch, 3, size, size), torch.arange(batch) % 1000)
    return lambda: float(step().item())


def accelerated_step(name: str, size: int, batch: int, steps: int) -> Run:
    """The same on a GPU as one makes it fast: compiled, channels last, bfloat16 autocast; several steps a run."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name).cuda().to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, size, size, device="cuda").to(memory_format=torch.channels_last)
    step = _step(torch.compile(model), images, torch.arange(batch, device="cuda") % 1000, autocast=True)

    def run() -> None:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()

    return run


def _step(
    model: Callable[..., Any], images: torch.Tensor, labels: torch.Tensor, *, autocast: bool = False
) -> Callable[[], torch.Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    loss_of = torch.nn.CrossEntropyLoss()
    model.train()

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=autocast):
            loss = loss_of(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def device() -> str:
    """What it runs on, and with how many threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"torchvision {torchvision.__version__}, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    size, batch, gpu_size, gpu_batch, gpu_steps = map(int, sys.argv[1:6])
    names = ("resnet18", "mobilenet_v2", "efficientnet_b0")
    workloads = {name: functools.partial(training_step, name, size, batch) for name in names}
    workloads["resnet50 on GPU"] = functools.partial(
        accelerated_step, "resnet50", gpu_size, gpu_batch, gpu_steps
    )
    serve(workloads, device)
