"""SqueezeNet (Iandola et al. 2016): AlexNet's accuracy with a fiftieth of its parameters."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax import functional as F
from cnnjax.initializers import Choice
from cnnjax.models.base import Model, Variant, check_choice, check_rate
from cnnjax.nn import Dropout, Layer, Pool


class Fire(nn.Module):
    """A 1x1 layer to `squeeze` channels, then 1x1 and 3x3 layers side by side to 4 times as many each (figure 1).

    Attributes:
      squeeze: channels in between.
      layer: makes a layer, called as `layer(features, window, name=...)`.
    """

    squeeze: int
    layer: Callable[..., Layer]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> `(batch, *spatial, 8 squeeze)`."""
        x = self.layer(self.squeeze, 1, name="squeeze")(x, train=train)
        sides = [
            self.layer(4 * self.squeeze, window, name=f"expand{window}x{window}")(x, train=train)
            for window in (1, 3)
        ]
        return jnp.concatenate(sides, axis=-1)


class SqueezeNet(Model, kw_only=True):
    """A convolution, fire modules with max pooling in between, and a 1x1 convolution to the classes, averaged.

    That last layer has no norm, but the activation: with ReLU the logits are not negative. Kernels are uniform of variance
    1 / fan_in, as in the authors' files (Caffe's "xavier").

    Attributes:
      stem: "imagenet": the first layer's stride is 2, and 3x3 pooling follows; "cifar": a 3x3 window without a stride, and
        no first pooling.
      width, window: channels of the first layer, and its window in the stem "imagenet".
      squeezes: channels in the middle of each fire module, the first of which is called fire2.
      pooled: numbers of the fire modules that pooling follows.
      dropout: before the last layer.
    """

    num_classes: int = 1000
    initializer: Choice = "lecun_uniform"
    stem: str = "imagenet"
    width: int = 96
    window: int = 7
    squeezes: tuple[int, ...] = (16, 16, 32, 32, 48, 48, 64, 64)
    pooled: tuple[int, ...] = (4, 8)
    dropout: float = 0.5

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        super().check()
        check_choice("stem", self.stem, ("imagenet", "cifar"))
        check_rate("dropout", self.dropout)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> logits `(batch, num_classes)`."""
        self.check()
        if self.stem == "imagenet":
            x = self._conv_layer(self.width, self.window, 2, padding="VALID", name="conv1")(x, train=train)
            x = Pool(3, 2, ceil=True, name="pool1")(x)
        else:
            x = self._conv_layer(self.width, 3, name="conv1")(x, train=train)
        for number, squeeze in enumerate(self.squeezes, 2):
            x = Fire(squeeze, self._conv_layer, name=f"fire{number}")(x, train=train)
            if number in self.pooled:
                x = Pool(3, 2, ceil=True, name=f"pool{number}")(x)
        x = Dropout(self.dropout, name="dropout")(x, train=train)
        head = Layer(functools.partial(self._conv, self.num_classes, 1), None, self._act, name="head")
        return F.global_avg_pool(head(x)).astype(jnp.float32)


_NET_1_1 = {"width": 64, "window": 3, "pooled": (3, 5)}
VARIANTS = {
    name: Variant(SqueezeNet, options, image=(224, 224, 3), paper="Iandola et al. 2016, arXiv:1602.07360")
    for name, options in (("squeezenet1_0", {}), ("squeezenet1_1", _NET_1_1))
}
