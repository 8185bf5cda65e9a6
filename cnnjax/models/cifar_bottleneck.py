"""The pre-activation bottleneck networks for CIFAR: ResNet-164 and ResNet-1001 (He et al. 2016b, table 4)."""

import functools

import flax.linen as nn
import jax

from cnnjax.models.base import Variant, is_integer
from cnnjax.models.preactivation import PreActivationNet
from cnnjax.nn import PreActivationBottleneckBlock


class CifarPreActBottleneck(PreActivationNet, kw_only=True):
    """Stages of n blocks 1x1 - 3x3 - 1x1, of 1, 2 and 4 times `width` channels inside and four times that at the end.

    As in the authors' code, the first 1x1 convolution of a block has its stride.

    Attributes:
      depth: layers with weights, 9 n + 2; the three projections are not counted.
    """

    depth: int = 164

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        if not is_integer(self.depth) or self.depth < 11 or self.depth % 9 != 2:
            raise ValueError(
                "a CIFAR ResNet of bottlenecks has depth 9n + 2 with n >= 1 (11, 20, 29, 164, 1001, ...); "
                f"got {self.depth!r}"
            )
        super().check()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> logits `(batch, num_classes)`."""
        self.check()
        block = functools.partial(PreActivationBottleneckBlock, expansion=4, stride_first=True)
        blocks = (self.depth - 2) // 9
        return self._logits(x, block, blocks=blocks, layers=3, features=self.width, expansion=4, train=train)


VARIANTS = {
    f"cifar_preact_resnet{depth}": Variant(
        CifarPreActBottleneck,
        {"depth": depth},
        image=(32, 32, 3),
        paper="He et al. 2016, arXiv:1603.05027",
    )
    for depth in (164, 1001)
}
