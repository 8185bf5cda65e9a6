"""DeepSEA (Zhou & Troyanskaya 2015): chromatin features of a DNA sequence. 52,843,119 parameters for 1,000 bases."""

import flax.linen as nn
import jax

from cnnjax.models.base import Model, Variant, check_rate, flatten
from cnnjax.nn import Dropout, Pool


class DeepSEA(Model, kw_only=True):
    """Three convolutions of window 8 with poolings by 4 between them, and two dense layers (supplementary note).

    Maps one-hot bases `(batch, length, 4)` to a logit for each feature, of which each has a probability of its own:
    train it with `functional.binary_cross_entropy`. The paper gives no initial kernels: he_normal.

    Attributes:
      widths: channels of the three convolutions.
      window: bases under a kernel.
      hidden: units of the first dense layer.
      dropout: rate behind the third convolution.
      early_dropout: rate behind the first two.
    """

    num_classes: int = 919
    widths: tuple[int, ...] = (320, 480, 960)
    window: int = 8
    hidden: int = 925
    dropout: float = 0.5
    early_dropout: float = 0.2

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        super().check()
        check_rate("dropout", self.dropout)
        check_rate("early_dropout", self.early_dropout)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, length, channels)` -> logits `(batch, num_classes)`."""
        self.check()
        *early, last = self.widths
        for number, width in enumerate(early, start=1):
            x = self._conv_layer(width, self.window, padding="VALID", name=f"conv{number}")(x, train=train)
            x = Pool(4, name=f"pool{number}")(x)
            x = Dropout(self.early_dropout)(x, train=train)
        name = f"conv{len(self.widths)}"
        x = self._conv_layer(last, self.window, padding="VALID", name=name)(x, train=train)
        x = flatten(Dropout(self.dropout)(x, train=train))
        return self._head(self._dense_layer(self.hidden, name="hidden")(x, train=train))


_PAPER = "Zhou & Troyanskaya 2015, doi:10.1038/nmeth.3547"
VARIANTS = {"deepsea": Variant(DeepSEA, {}, image=(1000, 4), paper=_PAPER)}
