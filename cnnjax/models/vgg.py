"""VGG (Simonyan & Zisserman 2015): 3x3 convolutions in five stages and three dense layers."""

import functools

import flax.linen as nn
import jax

from cnnjax import functional as F
from cnnjax.initializers import Choice
from cnnjax.models.base import Model, Variant, check_choice, check_rate, flatten
from cnnjax.nn import Dropout, Layer, Pool


class VGG(Model, kw_only=True):
    """Stages of 3x3 convolutions at one width, each stage ended by 2x2 max pooling, and dense layers.

    Kernels start as Glorot & Bengio's uniform ones, with which the authors found that no pre-training is needed (section
    3.1). `norm` reaches the convolutions; the dense layers have none, and the convolutions keep the bias that the norm makes
    redundant: so it is in the weights that are published with batch norm.

    Attributes:
      depths: convolutions of each stage.
      width: channels of the first stage; the next have twice as many each, 8 times as many at most.
      head: "imagenet": the last maps, averaged to 7x7, go through two dense layers of `hidden` units. "cifar": the logits
        are linear in the last maps, 1x1 for images of 32x32.
      hidden: units of each dense layer before the logits, where the head has them.
      dropout: of the outputs of those layers.
    """

    num_classes: int = 1000
    initializer: Choice = "xavier_uniform"
    depths: tuple[int, ...] = (2, 2, 3, 3, 3)
    width: int = 64
    head: str = "imagenet"
    hidden: int = 4096
    dropout: float = 0.5

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        super().check()
        check_choice("head", self.head, ("imagenet", "cifar"))
        check_rate("dropout", self.dropout)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> logits `(batch, num_classes)`."""
        self.check()
        for stage, depth in enumerate(self.depths, 1):
            width = self.width * min(2 ** (stage - 1), 8)
            for i in range(1, depth + 1):
                linear = functools.partial(self._conv, width, 3)
                layer = Layer(linear, self._norm(), self._act, use_bias=True, name=f"conv{stage}_{i}")
                x = layer(x, train=train)
            x = Pool(2, name=f"pool{stage}")(x)
        return self._head(flatten(x) if self.head == "cifar" else self._hidden(x, train))

    def _hidden(self, x: jax.Array, train: bool) -> jax.Array:
        x = flatten(F.adaptive_avg_pool(x, 7))
        for name in ("fc6", "fc7"):
            x = Layer(functools.partial(self._dense, self.hidden), None, self._act, name=name)(x)
            x = Dropout(self.dropout, name=f"{name}_dropout")(x, train=train)
        return x


_DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
VARIANTS = {
    f"vgg{depth}{suffix}": Variant(
        VGG,
        {"depths": depths, "norm": norm},
        image=(224, 224, 3),
        paper="Simonyan & Zisserman 2015, arXiv:1409.1556",
    )
    for depth, depths in _DEPTHS.items()
    for suffix, norm in (("", None), ("_bn", "batch"))
}
