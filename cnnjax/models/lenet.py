"""LeNet-5 (LeCun et al. 1998), with C3 fully connected and plain average pooling: 61,706 parameters at 32x32x1."""

import flax.linen as nn
import jax

from cnnjax import functional as F
from cnnjax.functional.padding import Padding
from cnnjax.initializers import Choice
from cnnjax.models.base import Model, Variant, check_padding, flatten


class LeNet5(Model, kw_only=True):
    """Two 5x5 convolutions, each followed by 2x2 average pooling, and three dense layers.

    Attributes:
      padding: of the convolutions. The paper's 32x32 images need none ("VALID"); "SAME" takes the 28x28 of MNIST and
        the 8x8 digits.
    """

    activation: str | F.Activation = "tanh"
    initializer: Choice = "lecun_uniform"
    padding: Padding = "VALID"

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        super().check()
        check_padding(self.padding)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, height, width, channels)` -> logits `(batch, num_classes)`."""
        self.check()
        for name, features in (("c1", 6), ("c3", 16)):
            x = self._conv_layer(features, 5, padding=self.padding, name=name)(x, train=train)
            x = F.avg_pool(x, 2)
        x = flatten(x)
        for name, features in (("c5", 120), ("f6", 84)):
            x = self._dense_layer(features, name=name)(x, train=train)
        return self._head(x)


VARIANTS = {"lenet5": Variant(LeNet5, {}, image=(32, 32, 1), paper="LeCun et al. 1998, doi:10.1109/5.726791")}
