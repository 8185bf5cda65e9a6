"""ResNet-20 for CIFAR-10 in eager PyTorch: a side of bench_train.py; it needs torch, and nothing of cnnjax.

python scripts/train_torch.py CASE STEPS BATCH SIZE
"""

import functools
import sys

import torch
from benchmarking import Run, serve
from torch import Tensor, nn
from torch.nn import functional as F

RATE, MOMENTUM, DECAY, PAD = 0.1, 0.9, 1e-4, 4
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)


class Block(nn.Module):
    """Two convolutions; the shortcut has no parameters (option A of He et al. 2016, section 3.3)."""

    def __init__(self, channels: int, features: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, features, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(features, features, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(features) for _ in range(2))
        self.more, self.stride = features - channels, stride

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norms[0](self.first(x)))
        y = self.norms[1](self.second(y))
        if self.stride > 1:
            before = self.more // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, before, self.more - before))
        return F.relu(x + y)


def resnet20() -> nn.Module:
    """He et al. 2016, section 4.2."""
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    blocks, channels = [], 16
    for stage in range(3):
        for block in range(3):
            features = 16 * 2**stage
            blocks.append(Block(channels, features, 2 if stage and not block else 1))
            channels = features
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def augment(images: Tensor) -> Tensor:
    """Normalized images of a uint8 batch, each cut at random from its padded self, half of them mirrored."""
    shape = (1, 3, 1, 1)
    mean, std = (torch.tensor(values, device=images.device).view(shape) for values in (MEAN, STD))
    padded = F.pad((images.float() / 255 - mean) / std, (PAD,) * 4)
    count, _, height, width = images.shape
    corners = torch.randint(2 * PAD + 1, (2, count, 1), device=images.device)
    rows = corners[0] + torch.arange(height, device=images.device)
    columns = corners[1] + torch.arange(width, device=images.device)
    mirrored = torch.rand(count, 1, device=images.device) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    # Behind advanced indices that a slice divides, the channels come last.
    examples = torch.arange(count, device=images.device)[:, None, None]
    return padded[examples, :, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2).contiguous()


def training(steps: int, batch: int, size: int) -> Run:
    """Some steps; returns the last loss."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = resnet20().to(device)
    images = torch.randint(256, (batch, 3, size, size), dtype=torch.uint8, device=device)
    labels = torch.arange(batch, device=device) % 10
    kernels, others = ([p for p in model.parameters() if (p.ndim > 1) == kernel] for kernel in (True, False))
    groups = [{"params": kernels, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, RATE, momentum=MOMENTUM)

    def run() -> float:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(model(augment(images)), labels)
            loss.backward()
            optimizer.step()
        return loss.item()

    return run


def device() -> str:
    """What it runs on, and with how many threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    steps, batch, size = map(int, sys.argv[2:5])
    serve({sys.argv[1]: functools.partial(training, steps, batch, size)}, device)
