"""Wide residual networks for CIFAR (Zagoruyko & Komodakis 2016): few blocks, many channels."""

import functools

import flax.linen as nn
import jax

from cnnjax.models.base import Variant, check_rate, is_integer
from cnnjax.models.preactivation import PreActivationNet
from cnnjax.nn import PreActivationBlock


class WideResNet(PreActivationNet, kw_only=True):
    """Stages of n pre-activation blocks with two 3x3 convolutions, of k, 2 k and 4 k times `width` channels.

    torchvision's `wide_resnet50_2` is the paper's bottleneck form for ImageNet (`models.resnet`).

    Attributes:
      depth: convolutions, 6 n + 4: those of the branches, the stem and three projections; the head is not counted.
      width_factor: the k of WRN-depth-k.
      dropout: rate of zeros between the two convolutions of a block; 0.3 in the paper's runs on CIFAR that have it.
    """

    depth: int = 28
    width_factor: int = 10
    dropout: float = 0.0

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        if not is_integer(self.depth) or self.depth < 10 or self.depth % 6 != 4:
            raise ValueError(
                f"a wide ResNet has depth 6n + 4 with n >= 1 (10, 16, 22, 28, 40, ...); got {self.depth!r}"
            )
        super().check()
        check_rate("dropout", self.dropout)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> logits `(batch, num_classes)`."""
        self.check()
        block = functools.partial(PreActivationBlock, dropout=self.dropout)
        features, blocks = self.width * self.width_factor, (self.depth - 4) // 6
        return self._logits(x, block, blocks=blocks, layers=2, features=features, train=train)


# Tables 4 to 6 of the paper; 28-2 is the one of semi-supervised learning (Oliver et al. 2018).
_SIZES = {16: (4, 8, 10), 22: (8, 10), 28: (2, 10, 12), 40: (1, 2, 4, 8)}
VARIANTS = {
    f"wide_resnet{depth}_{factor}": Variant(
        WideResNet,
        {"depth": depth, "width_factor": factor},
        image=(32, 32, 3),
        paper="Zagoruyko & Komodakis 2016, arXiv:1605.07146",
    )
    for depth, factors in _SIZES.items()
    for factor in factors
}
