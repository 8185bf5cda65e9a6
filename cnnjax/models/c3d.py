"""C3D (Tran et al. 2015): 3x3x3 convolutions throughout, for videos."""

import flax.linen as nn
import jax

from cnnjax.models.base import Model, Variant, check_rate, flatten
from cnnjax.nn import Dropout, Pool

# (stage, convolutions, channels over those of the first)
_STAGES = ((1, "a", 1), (2, "a", 2), (3, "ab", 4), (4, "ab", 8), (5, "ab", 8))


class C3D(Model, kw_only=True):
    """Eight convolutions with bias and without norm, five max poolings, of which the first leaves time alone, and three
    dense layers.

    The paper does not say how weights start: they are He's here. (The authors' code draws them with a deviation of 0.01,
    0.005 in dense layers, and starts biases at 1.)

    Attributes:
      width: channels of the first convolution.
      hidden: units of each dense layer before the logits.
      dropout: of their outputs.
    """

    num_classes: int = 487
    width: int = 64
    hidden: int = 4096
    dropout: float = 0.5

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        super().check()
        check_rate("dropout", self.dropout)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, frames, height, width, channels)` -> logits `(batch, num_classes)`."""
        self.check()
        for stage, letters, factor in _STAGES:
            for letter in letters:
                layer = self._conv_layer(self.width * factor, 3, padding=1, name=f"conv{stage}{letter}")
                x = layer(x, train=train)
            # Caffe's: maps of 7x7 become 4x4.
            x = Pool((1, 2, 2) if stage == 1 else 2, ceil=True, name=f"pool{stage}")(x)
        x = flatten(x)
        for name in ("fc6", "fc7"):
            x = self._dense_layer(self.hidden, name=name)(x, train=train)
            x = Dropout(self.dropout, name=f"{name}_dropout")(x, train=train)
        return self._head(x)


VARIANTS = {
    "c3d": Variant(C3D, {}, image=(16, 112, 112, 3), paper="Tran et al. 2015, arXiv:1412.0767"),
}
