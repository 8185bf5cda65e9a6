"""GoogLeNet (Szegedy et al. 2015) with batch norm, as it is trained today: 6,624,904 parameters at 224x224x3."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax

from cnnjax import functional as F
from cnnjax.models.base import Model, Variant, check_choice, check_rate, flatten
from cnnjax.nn import Branches, Dropout, Layer, Pool

# Table 1, stages 3 to 5: 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; behind the pooling.
_MODULES = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
_AUXILIARY = ("4a", "4d")


class AuxiliaryHead(nn.Module):
    """Maps averaged to 4x4, a 1x1 layer, a dense layer, dropout and logits (section 5).

    Attributes:
      conv, hidden, head: make the three layers, called with a name.
      dropout: of the inputs of the last.
    """

    conv: Callable[..., Layer]
    hidden: Callable[..., Layer]
    head: Callable[..., Layer]
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> logits `(batch, num_classes)`."""
        x = self.conv(name="conv")(F.adaptive_avg_pool(x, 4), train=train)
        x = self.hidden(name="fc1")(flatten(x))
        x = Dropout(self.dropout, name="dropout")(x, train=train)
        return self.head(name="head")(x).astype("float32")


class GoogLeNet(Model, kw_only=True):
    """A stem, nine inception modules in three stages, and a linear layer on the averages of the last maps.

    Called, the model gives its logits alone. With `aux=True` it has two more heads, on modules 4a and 4d, for training:

        (logits, auxiliary), state = model.apply(
            variables, images, train=True, method="with_auxiliary", mutable=["batch_stats"], rngs={"dropout": key}
        )

    and the paper adds 0.3 times the loss of each of the `auxiliary` logits to that of `logits`.

    The paper has no batch norm (`norm=None`; its local response normalization is left out) and does not say how kernels
    start: He et al. 2015. `norm` does not reach the dense layers.

    Attributes:
      stem: "imagenet": a 7x7 window with a stride of 2, and two poolings; "cifar": a 3x3 window without a stride, and no
        pooling before stage 3.
      width: channels of the first layer; all others are in proportion.
      depths: modules of stages 3, 4 and 5; with fewer than (2, 5, 2) the last ones of a stage are left out.
      window: of the third branch. The paper says 5; the weights of torchvision, and its count, go with 3.
      aux: whether there are auxiliary heads: 13,004,888 parameters.
      dropout: before the head (torchvision: 0.2).
      aux_dropout: in the auxiliary heads.
    """

    num_classes: int = 1000
    norm: str | Callable[..., nn.Module] | None = "batch"
    norm_epsilon: float = 1e-3
    stem: str = "imagenet"
    width: int = 64
    depths: tuple[int, ...] = (2, 5, 2)
    window: int = 3
    aux: bool = False
    dropout: float = 0.4
    aux_dropout: float = 0.7

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        super().check()
        check_choice("stem", self.stem, ("imagenet", "cifar"))
        check_rate("dropout", self.dropout)
        check_rate("aux_dropout", self.aux_dropout)
        most = [len(stage) for stage in _MODULES]
        if len(self.depths) != 3 or any(d > m for d, m in zip(self.depths, most, strict=True)):
            raise ValueError(
                f"depths are the modules of stages 3, 4 and 5, at most 2, 5 and 2; got {self.depths!r}"
            )
        if self.aux and self.depths[1] < 4:
            raise ValueError(
                f"the auxiliary heads lie on modules 4a and 4d: use aux=False or depths[1] >= 4; got {self.depths!r}"
            )

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> logits `(batch, num_classes)`."""
        return self._logits(x, train, self.aux and self.is_initializing())[0]

    def with_auxiliary(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """The logits, and those of the auxiliary heads on modules 4a and 4d; each `(batch, num_classes)`.

        Raises ValueError unless the model has these heads.
        """
        if not self.aux:
            raise ValueError("this model has no auxiliary heads: make it with aux=True")
        return self._logits(x, train, True)

    @nn.compact
    def _logits(self, x: jax.Array, train: bool, auxiliary: bool) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        self.check()
        x, found = self._stem(x, train), []
        for stage, (depth, modules) in enumerate(zip(self.depths, _MODULES, strict=True), 3):
            for letter, widths in zip("abcde"[:depth], modules, strict=False):
                branches, name = self._branches(*widths), f"inception{stage}{letter}"
                x = Branches(branches, self._scaled_layer, name=name)(x, train=train)
                if auxiliary and f"{stage}{letter}" in _AUXILIARY:
                    found.append(self._auxiliary_head(len(found) + 1)(x, train=train))
            if stage < 5:
                x = Pool(3 if stage == 3 else 2, 2, ceil=True, name=f"pool{stage}")(x)
        x = Dropout(self.dropout, name="dropout")(F.global_avg_pool(x), train=train)
        return self._head(x), tuple(found)

    def _stem(self, x: jax.Array, train: bool) -> jax.Array:
        large = self.stem == "imagenet"
        first = (64, 7, 2) if large else (64, 3)
        x = self._scaled_layer(*first, name="conv1")(x, train=train)
        x = Pool(3, 2, ceil=True, name="pool1")(x) if large else x
        x = self._scaled_layer(64, 1, name="conv2")(x, train=train)
        x = self._scaled_layer(192, 3, name="conv3")(x, train=train)
        return Pool(3, 2, ceil=True, name="pool2")(x) if large else x

    @nn.nowrap
    def _branches(self, one: int, reduce3: int, three: int, reduce5: int, five: int, pooled: int) -> dict:
        return {
            "branch1": ((one, 1),),
            "branch2": ((reduce3, 1), (three, 3)),
            "branch3": ((reduce5, 1), (five, self.window)),
            "branch4": (functools.partial(Pool, 3, 1, 1), (pooled, 1)),
        }

    @nn.nowrap
    def _scaled(self, features: int) -> int:
        return max(1, features * self.width // 64)

    @nn.nowrap
    def _scaled_layer(self, features: int, window: int, stride: int = 1, *, name: str) -> Layer:
        padding = "SAME" if stride == 1 else (window - 1) // 2
        return self._conv_layer(self._scaled(features), window, stride, padding=padding, name=name)

    @nn.nowrap
    def _auxiliary_head(self, number: int) -> AuxiliaryHead:
        dense = functools.partial(self._dense, self._scaled(1024))
        return AuxiliaryHead(
            functools.partial(self._scaled_layer, 128, 1),
            functools.partial(Layer, dense, None, self._act),
            self._head_layer,
            self.aux_dropout,
            name=f"aux{number}",
        )


VARIANTS = {
    "googlenet": Variant(GoogLeNet, {}, image=(224, 224, 3), paper="Szegedy et al. 2015, arXiv:1409.4842")
}
