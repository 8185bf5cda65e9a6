"""Inception-v3 (Szegedy et al. 2016): 27,161,264 parameters at 299x299x3, its auxiliary head counted."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from cnnjax import functional as F
from cnnjax.models.base import Model, Variant, check_choice, check_rate
from cnnjax.nn import Branches, Dropout, Layer, Pool

_MEAN = functools.partial(Pool, 3, 1, 1, function=functools.partial(F.avg_pool, count_padding=True))
_LARGEST = functools.partial(Pool, 3, 2)
_ROW, _COLUMN = (1, 7), (7, 1)


def _square(pooled: int) -> dict[str, Any]:
    """Windows of 5, and of 3 twice (figure 5)."""
    return {
        "branch1x1": ((64, 1),),
        "branch5x5": ((48, 1), (64, 5)),
        "branch3x3dbl": ((64, 1), (96, 3), (96, 3)),
        "branch_pool": (_MEAN, (pooled, 1)),
    }


def _factored(c: int) -> dict[str, Any]:
    """Windows of 7 as rows and columns (figure 6)."""
    return {
        "branch1x1": ((192, 1),),
        "branch7x7": ((c, 1), (c, _ROW), (192, _COLUMN)),
        "branch7x7dbl": ((c, 1), (c, _COLUMN), (c, _ROW), (c, _COLUMN), (192, _ROW)),
        "branch_pool": (_MEAN, (192, 1)),
    }


# Rows and columns side by side (figure 7).
_WIDE = {
    "branch1x1": ((320, 1),),
    "branch3x3": ((384, 1), ((384, (1, 3)), (384, (3, 1)))),
    "branch3x3dbl": ((448, 1), (384, 3), ((384, (1, 3)), (384, (3, 1)))),
    "branch_pool": (_MEAN, (192, 1)),
}
# Strides of 2 beside pooling (figure 10).
_REDUCE6 = {
    "branch3x3": ((384, 3, 2),),
    "branch3x3dbl": ((64, 1), (96, 3), (96, 3, 2)),
    "branch_pool": (_LARGEST,),
}
_REDUCE7 = {
    "branch3x3": ((192, 1), (320, 3, 2)),
    "branch7x7x3": ((192, 1), (192, _ROW), (192, _COLUMN), (192, 3, 2)),
    "branch_pool": (_LARGEST,),
}
_STAGES = (
    {"mixed_5b": _square(32), "mixed_5c": _square(64), "mixed_5d": _square(64)},
    {
        "mixed_6a": _REDUCE6,
        "mixed_6b": _factored(128),
        "mixed_6c": _factored(160),
        "mixed_6d": _factored(160),
        "mixed_6e": _factored(192),
    },
    {"mixed_7a": _REDUCE7, "mixed_7b": _WIDE, "mixed_7c": _WIDE},
)


class AuxiliaryHead(nn.Module):
    """Averages of windows, a 1x1 layer, a 5x5 layer, and logits of the averages of its maps (section 4).

    Attributes:
      pool: of the maps.
      conv0, conv1, head: make the layers, called with a name.
    """

    pool: Callable[[jax.Array], jax.Array]
    conv0: Callable[..., Layer]
    conv1: Callable[..., Layer]
    head: Callable[..., Layer]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, height, width, channels)` -> logits `(batch, num_classes)`."""
        x = self.conv0(name="conv0")(self.pool(x), train=train)
        x = self.conv1(name="conv1")(x, train=train)
        return self.head(name="head")(F.global_avg_pool(x)).astype("float32")


class InceptionV3(Model, kw_only=True):
    """A stem, eleven inception modules in three stages, and a linear layer on the averages of the last maps.

    Called, the model gives its logits alone. With `aux=True` it has one more head, behind stage 6, for training:

        (logits, (auxiliary,)), state = model.apply(
            variables, images, train=True, method="with_auxiliary", mutable=["batch_stats"], rngs={"dropout": key}
        )

    and 0.4 times the loss of `auxiliary` is usually added to that of `logits`. The paper does not say how kernels start: He
    et al. 2015. Averages count the padding, as torchvision's do and TensorFlow's do not.

    Attributes:
      stem: "imagenet": five layers, the first with a stride of 2, and two poolings, hardly padded; "cifar": the same layers
        with padding, without stride and pooling.
      width: channels of the first layer; all others are in proportion.
      depths: modules of stages 5, 6 and 7; with fewer than (3, 5, 3) the last ones of a stage are left out.
      aux: whether there is the auxiliary head. With the stem "imagenet" it takes images of 299x299 or more, and it cannot be
        initialized on others; with the stem "cifar" it averages its input to 5x5 maps, whatever the size.
      dropout: before the head.
    """

    num_classes: int = 1000
    norm: str | Callable[..., nn.Module] | None = "batch"
    norm_epsilon: float = 1e-3
    stem: str = "imagenet"
    width: int = 32
    depths: tuple[int, ...] = (3, 5, 3)
    aux: bool = True
    dropout: float = 0.5

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        super().check()
        check_choice("stem", self.stem, ("imagenet", "cifar"))
        check_rate("dropout", self.dropout)
        if len(self.depths) != 3 or any(d > len(s) for d, s in zip(self.depths, _STAGES, strict=True)):
            raise ValueError(
                f"depths are the modules of stages 5, 6 and 7, at most 3, 5 and 3; got {self.depths!r}"
            )

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, height, width, channels)` -> logits `(batch, num_classes)`."""
        return self._logits(x, train, self.aux and self.is_initializing())[0]

    def with_auxiliary(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """The logits, and those of the auxiliary head, alone in a tuple; each `(batch, num_classes)`.

        Raises ValueError unless the model has that head.
        """
        if not self.aux:
            raise ValueError("this model has no auxiliary head: make it with aux=True")
        return self._logits(x, train, True)

    @nn.compact
    def _logits(self, x: jax.Array, train: bool, auxiliary: bool) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        self.check()
        x, found = self._stem(x, train), ()
        for stage, (depth, modules) in enumerate(zip(self.depths, _STAGES, strict=True), 5):
            for name in list(modules)[:depth]:
                x = Branches(modules[name], self._scaled_layer, name=name)(x, train=train)
            if auxiliary and stage == 6:
                found = (self._auxiliary_head()(x, train=train),)
        x = Dropout(self.dropout, name="dropout")(F.global_avg_pool(x), train=train)
        return self._head(x), found

    def _stem(self, x: jax.Array, train: bool) -> jax.Array:
        large = self.stem == "imagenet"
        padding = "VALID" if large else "SAME"
        x = self._scaled_layer(32, 3, 2 if large else 1, name="conv_1a")(x, train=train)
        x = self._scaled_layer(32, 3, name="conv_2a", padding=padding)(x, train=train)
        x = self._scaled_layer(64, 3, name="conv_2b")(x, train=train)
        x = Pool(3, 2, name="pool1")(x) if large else x
        x = self._scaled_layer(80, 1, name="conv_3b")(x, train=train)
        x = self._scaled_layer(192, 3, name="conv_4a", padding=padding)(x, train=train)
        return Pool(3, 2, name="pool2")(x) if large else x

    @nn.nowrap
    def _scaled_layer(
        self, features: int, window: Any, stride: int = 1, *, padding: str | None = None, name: str
    ) -> Layer:
        """A layer with as much padding as keeps the size at a stride of 1, and none at a stride of 2."""
        features = max(1, features * self.width // 32)
        padding = padding or ("SAME" if stride == 1 else "VALID")
        return self._conv_layer(features, window, stride, padding=padding, name=name)

    @nn.nowrap
    def _auxiliary_head(self) -> AuxiliaryHead:
        windows = functools.partial(F.avg_pool, window=5, stride=3)
        grid = functools.partial(F.adaptive_avg_pool, output_size=5)
        return AuxiliaryHead(
            windows if self.stem == "imagenet" else grid,
            functools.partial(self._scaled_layer, 128, 1),
            functools.partial(self._scaled_layer, 768, 5, padding="VALID"),
            self._head_layer,
            name="aux",
        )


VARIANTS = {
    "inception_v3": Variant(
        InceptionV3, {}, image=(299, 299, 3), paper="Szegedy et al. 2016, arXiv:1512.00567"
    )
}
