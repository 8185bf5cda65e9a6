"""The small CIFAR-10 network of the Keras and TensorFlow tutorials: 122,570 parameters at 32x32x3."""

import flax.linen as nn
import jax

from cnnjax import functional as F
from cnnjax.functional.padding import Padding
from cnnjax.initializers import Choice
from cnnjax.models.base import Model, Variant, check_padding, flatten


class KerasCifarCNN(Model, kw_only=True):
    """conv 32 - pool - conv 64 - pool - conv 64 - dense 64 - logits, 3x3 kernels and 2x2 max pooling.

    Attributes:
      padding: of the convolutions; the tutorial's is "VALID", which 8x8 images are too small for.
    """

    initializer: Choice = "xavier_uniform"
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
        x = F.max_pool(self._conv_layer(32, 3, padding=self.padding, name="conv1")(x, train=train), 2)
        x = F.max_pool(self._conv_layer(64, 3, padding=self.padding, name="conv2")(x, train=train), 2)
        x = self._conv_layer(64, 3, padding=self.padding, name="conv3")(x, train=train)
        x = self._dense_layer(64, name="dense")(flatten(x), train=train)
        return self._head(x)


VARIANTS = {
    "keras_cifar_cnn": Variant(KerasCifarCNN, {}, image=(32, 32, 3), paper="TensorFlow tutorials, images/cnn")
}
