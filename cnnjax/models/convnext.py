"""ConvNeXt (Liu et al. 2022): a residual network with the proportions and habits of a vision transformer."""

import functools
from collections.abc import Callable
from numbers import Real
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax import functional as F
from cnnjax.initializers import Choice
from cnnjax.models.base import Model, Variant, check_choice, check_rate
from cnnjax.nn import Activation, Conv, Dense, DepthwiseConv, Layer, Stack
from cnnjax.nn.blocks import ModuleDef

_identity = functools.partial(Activation, "identity")


class LayerScale(nn.Module):
    """Each channel times a learned number of its own (Touvron et al. 2021, Going deeper with image transformers, section 2).

    Attributes:
      start: where the numbers start.
    """

    start: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`x`: `(batch, ..., channels)`."""
        factor = self.param("factor", nn.initializers.constant(self.start), x.shape[-1:], jnp.float32)
        return x * factor.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, norm, dense to four times the channels, activation, dense back (figure 4).

    Attributes:
      features: number of channels.
      layer_scale: where the factors of the branch's channels start; None for no factors.
      skip: whether the input is added; without, there are no factors either.
      depthwise, dense, norm, act: make the parts.
      last_dense: makes the second dense layer, which is linear; None for `dense`.
    """

    features: int
    layer_scale: float | None = None
    skip: bool = True
    depthwise: ModuleDef = functools.partial(DepthwiseConv, 1)
    dense: ModuleDef = Dense
    norm: ModuleDef | None = None
    act: ModuleDef = Activation
    last_dense: ModuleDef | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, *, rate: float | jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """`x`: `(batch, *spatial, features)` -> the same shape.

        While training the branch is dropped with probability `rate` (None: never).
        """
        depthwise = functools.partial(self.depthwise, 7)
        h = Layer(depthwise, self.norm, _identity, use_bias=True, name="depthwise")(x, train=train)
        h = Layer(functools.partial(self.dense, 4 * self.features), None, self.act, name="expand")(h)
        dense = self.dense if self.last_dense is None else self.last_dense
        project = functools.partial(dense, self.features)
        h = Layer(project, None, _identity, name="project")(h)
        if not self.skip:
            return h
        if self.layer_scale is not None:
            h = LayerScale(self.layer_scale, name="layer_scale")(h)
        if train and rate is not None:
            h = F.drop_path(h, self.make_rng("dropout"), rate=rate)
        return x + h


class Downsample(nn.Module):
    """norm, then a 2x2 convolution of stride 2, without activation (section 2.6).

    Attributes:
      features: number of channels of the output.
      conv, norm: make the parts.
    """

    features: int
    conv: ModuleDef = Conv
    norm: ModuleDef | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> `(batch, *spatial / 2, features)`."""
        if self.norm is not None:
            x = self.norm(name="norm")(x, train=train)
        linear = functools.partial(self.conv, self.features, 2, 2, padding="VALID")
        return Layer(linear, None, _identity, name="conv")(x)


class ConvNeXt(Model, kw_only=True):
    """4x4 patches, four stages of blocks, the mean, a norm, a dense head (section 2 and table 9).

    A block has one norm and one activation; all other layers are linear by design, and every one has a bias. Kernels start
    normal with deviation 0.02, as in the authors' code, whose truncation at +-2 cuts nothing off.

    Attributes:
      depths: blocks of each stage.
      widths: channels of each stage.
      layer_scale: where the factors of the branches' channels start; None for no factors.
      drop_path: rate of the last block's stochastic depth; it grows from 0 by equal steps.
      stem: "imagenet", or "cifar": a 3x3 convolution of stride 1 in the place of the patches, for images of 32x32.
      skip: False leaves the inputs of the blocks out. Then there are neither factors (they would be all that comes
        through) nor stochastic depth.
      scan: False writes the blocks out instead of scanning over those of each stage.
      remat: recompute activations in the backward pass (see `nn.Stack`).
    """

    num_classes: int = 1000
    activation: str | F.Activation = "gelu"
    initializer: Choice = nn.initializers.normal(0.02)
    norm: str | Callable[..., nn.Module] | None = "channel"
    norm_epsilon: float = 1e-6
    depths: tuple[int, ...] = (3, 3, 9, 3)
    widths: tuple[int, ...] = (96, 192, 384, 768)
    layer_scale: float | None = 1e-6
    drop_path: float = 0.1
    stem: str = "imagenet"
    skip: bool = True
    scan: bool = True
    remat: bool = False

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        super().check()
        check_rate("drop_path", self.drop_path)
        check_choice("stem", self.stem, ("imagenet", "cifar"))
        if self.layer_scale is not None and not isinstance(self.layer_scale, Real):
            raise TypeError(f"layer_scale must be a number, or None for no factors; got {self.layer_scale!r}")
        if len(self.depths) != len(self.widths):
            raise ValueError(
                f"depths and widths have an entry a stage; got depths={self.depths} and widths={self.widths}"
            )

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> logits `(batch, num_classes)`."""
        self.check()
        x = self._stem(x, train)
        rates = self._rates()
        for stage, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True), start=1):
            if stage > 1:
                linear = functools.partial(self._conv, activation="identity")
                x = Downsample(width, linear, self._norm(), name=f"stage{stage}_down")(x, train=train)
            first = sum(self.depths[: stage - 1])
            dropped = rates[first : first + depth] if train and self.drop_path else None
            block = functools.partial(ConvNeXtBlock, width, **self._parts())
            stack = Stack(block, depth, dropped, scan=self.scan, remat=self.remat, name=f"stage{stage}")
            x = stack(x, train=train)
        x = F.global_avg_pool(x)
        norm = self._norm()
        return self._head(x if norm is None else norm(name="final_norm")(x, train=train))

    def _stem(self, x: jax.Array, train: bool) -> jax.Array:
        window, stride, padding = (3, 1, 1) if self.stem == "cifar" else (4, 4, 0)
        linear = functools.partial(
            self._conv, self.widths[0], window, stride, padding=padding, activation="identity"
        )
        return Layer(linear, self._norm(), _identity, use_bias=True, name="stem")(x, train=train)

    @nn.nowrap
    def _rates(self) -> list[float]:
        last = max(sum(self.depths) - 1, 1)
        return [self.drop_path * block / last for block in range(sum(self.depths))]

    @nn.nowrap
    def _parts(self) -> dict[str, Any]:
        return dict(
            layer_scale=self.layer_scale,
            skip=self.skip,
            depthwise=functools.partial(self._depthwise, activation="identity"),
            dense=self._dense,
            last_dense=functools.partial(self._dense, activation="identity"),
            norm=self._norm(),
            act=self._act,
        )


_SIZES = {
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768), 0.1),
    "small": ((3, 3, 27, 3), (96, 192, 384, 768), 0.4),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024), 0.5),
}
VARIANTS = {
    f"convnext_{size}": Variant(
        ConvNeXt,
        {"depths": depths, "widths": widths, "drop_path": rate},
        image=(224, 224, 3),
        paper="Liu et al. 2022, arXiv:2201.03545",
    )
    for size, (depths, widths, rate) in _SIZES.items()
}
