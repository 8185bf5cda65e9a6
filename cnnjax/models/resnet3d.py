"""The residual network of 3-D convolutions for videos (Tran et al. 2018)."""

import flax.linen as nn
import jax

from cnnjax import functional as F
from cnnjax.models.base import Variant
from cnnjax.models.resnet import BASIC, ResidualStages
from cnnjax.nn import BasicBlock, BottleneckBlock


class ResNet3D(ResidualStages, kw_only=True):
    """A ResNet of 3x3x3 convolutions that halves time with space; its stem halves space only, and nothing is pooled."""

    num_classes: int = 400

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, frames, height, width, channels)` -> logits `(batch, num_classes)`."""
        self.check()
        padding = ((1, 1), (3, 3), (3, 3))
        stem = self._conv_layer(self.width, (3, 7, 7), (1, 2, 2), padding=padding, name="stem")
        x = stem(x, train=train)
        x = self._stages({"basic": BasicBlock, "bottleneck": BottleneckBlock}, x, train)
        return self._head(F.global_avg_pool(x))


VARIANTS = {
    "r3d_18": Variant(
        ResNet3D,
        {"depths": BASIC[18]},
        image=(16, 112, 112, 3),
        paper="Tran et al. 2018, arXiv:1711.11248",
    )
}
