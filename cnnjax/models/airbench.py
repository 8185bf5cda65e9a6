"""The networks of airbench (Jordan 2024): CIFAR-10 to 94 %, 95 % and 96 % in seconds."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from cnnjax import functional as F
from cnnjax.initializers import Choice, Gain, Initializer, lecun_uniform
from cnnjax.models.base import Model, Variant
from cnnjax.models.scaled import check_factor
from cnnjax.nn import Activation, Conv, Dense, Layer, ModuleDef, Pool

WINDOW = 2
"""Of the whitened patches."""


def torch_uniform(*, groups: int = 1) -> Initializer:
    """Uniform of variance 1 / (3 fan_in): how PyTorch draws kernels unless told otherwise."""
    return lecun_uniform(groups=groups, gain=3**-0.5)


def partial_identity(initialize: Initializer, *, gain: Gain = 1.0) -> Initializer:
    """A convolution's first outputs are its inputs times `gain`, as many as there are; the others as `initialize` has them.

    Jordan 2024, section 3.3; PyTorch's `dirac_` on a part of the kernel.
    """

    def initialized(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
        *spatial, inputs, outputs = shape
        copied = min(inputs, outputs)
        # SAME padding has (size - 1) // 2 entries at the low end.
        center = tuple((size - 1) // 2 for size in spatial)
        identity = jnp.asarray(gain, dtype) * jnp.eye(inputs, copied, dtype=dtype)
        kernel = jnp.zeros((*spatial, inputs, copied), dtype).at[center].set(identity)
        return initialize(key, shape, dtype).at[..., :copied].set(kernel)

    return initialized


def whitening(images: jax.Array, *, epsilon: float = 5e-4) -> jax.Array:
    """The kernel of a convolution whose outputs, of patches of these images, are uncorrelated and of second moment 1.

    With E[p p^T] = V diag(l) V^T over all 2x2 patches p, the outputs are diag(l + epsilon)^(-1/2) V^T p, and once more with
    the other sign (Jordan 2024, section 3.2, after Page 2019).

    Args:
      images: `(batch, height, width, channels)`, normalized.
      epsilon: keeps directions in which patches hardly differ from being blown up.

    Returns:
      `(2, 2, channels, 8 * channels)`.

    Raises:
      TypeError, ValueError: no batch of floating-point images of at least 2x2 pixels.
    """
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"whitening takes normalized images, got {images.dtype}: use cnnjax.data.normalize")
    if images.ndim != 4 or min(images.shape[1:3]) < WINDOW:
        raise ValueError(
            f"whitening takes images (batch, height, width, channels) of 2x2 pixels or more, got shape {images.shape}"
        )
    channels = images.shape[-1]
    high, wide = (size - WINDOW + 1 for size in images.shape[1:3])
    shifted = [images[:, i : i + high, j : j + wide] for i in range(WINDOW) for j in range(WINDOW)]
    patches = jnp.stack(shifted, axis=-2).reshape(-1, WINDOW**2 * channels)
    moments = jnp.matmul(patches.T, patches, precision="highest") / len(patches)
    values, vectors = jnp.linalg.eigh(moments)
    half = (vectors / jnp.sqrt(values + epsilon)[None]).reshape(WINDOW, WINDOW, channels, -1)
    return jnp.concatenate([half, -half], axis=-1)


class PooledLayer(Layer):
    """linear - 2x2 max pooling - norm - (+ residual) - activation; the attributes are those of `Layer`."""

    @nn.compact
    def __call__(self, x: jax.Array, *, residual: jax.Array | None = None, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> `(batch, *spatial // 2, features)`, the shape of `residual`."""
        z = Pool(2, name="pool")(self.linear(use_bias=self.norm is None, name="linear")(x))
        if self.norm is not None:
            z = self.norm(name="norm")(z, train=train)
        return self.act(name="act")(z if residual is None else z + residual)


class ConvGroup(nn.Module):
    """3x3 layers at one width, the first of which halves the image.

    Attributes:
      features: number of channels.
      depth: of the layers.
      skip: whether the first layer's output is added in front of the last activation.
      conv, norm, act: make the parts.
    """

    features: int
    depth: int = 2
    skip: bool = False
    conv: ModuleDef = Conv
    norm: ModuleDef | None = None
    act: ModuleDef = Activation

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> `(batch, *spatial // 2, features)`."""
        linear = functools.partial(self.conv, self.features, 3)
        first = x = PooledLayer(linear, self.norm, self.act, name="layer1")(x, train=train)
        for i in range(2, self.depth + 1):
            layer = Layer(linear, self.norm, self.act, name=f"layer{i}")
            x = layer(x, residual=first if self.skip and i == self.depth else None, train=train)
        return x


class Airbench(Model, kw_only=True):
    """A 2x2 convolution that whitens patches, three groups of 3x3 layers, and the largest entry of each last map.

    The first convolution has no norm. It is drawn as the others, and `calibrated` makes it whiten: the papers' recipe then
    keeps its kernel fixed, and trains its bias for three epochs. There, too, the scales of the norms stay at 1: that is a
    matter of the optimizer (`rates` of `training.Optimizer`). Running statistics follow the batch fast, and the variance has
    nearly nothing added. An image of 32x32 has 31, 15, 7 and 3 pixels a side behind each part.

    Attributes:
      widths: channels of each group.
      depth: layers of each group.
      skip: whether the layers of a group behind its first are a residual branch.
      identity: whether 3x3 convolutions start as the identity as far as there are outputs for the inputs; the rest is drawn
        (see `partial_identity`).
      head_scale: factor on the logits, which are linear in the last features, without a bias.
    """

    activation: str | F.Activation = "gelu"
    initializer: Choice = torch_uniform
    norm: str | Callable[..., nn.Module] | None = "batch"
    norm_epsilon: float = 1e-12
    norm_momentum: float = 0.6
    widths: tuple[int, ...] = (64, 256, 256)
    depth: int = 2
    skip: bool = False
    identity: bool = True
    head_scale: float = 1 / 9

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        super().check()
        check_factor("head_scale", self.head_scale)

    @nn.nowrap
    def calibrated(self, variables: Mapping[str, Any], images: jax.Array) -> Mapping[str, Any]:
        """The variables with a first kernel that whitens these images (5,000 in the paper; see `whitening`)."""
        params = dict(variables["params"])
        linear = {**params["whiten"]["linear"], "kernel": whitening(images)}
        return {**variables, "params": {**params, "whiten": {**params["whiten"], "linear": linear}}}

    @nn.nowrap
    def _group_conv(self, *sizes: Any, **options: Any) -> Conv:
        drawn = self._kernel_init()
        start = partial_identity(drawn(), gain=self.gain) if self.identity else drawn
        return Conv(*sizes, kernel_init=start, **self._shared(), **options)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, height, width, channels)` -> logits `(batch, num_classes)`."""
        self.check()
        whiten = functools.partial(self._conv, 2 * WINDOW**2 * x.shape[-1], WINDOW, padding="VALID")
        x = Layer(whiten, None, self._act, name="whiten")(x)
        for i, width in enumerate(self.widths, start=1):
            parts: dict[str, Any] = dict(conv=self._group_conv, norm=self._norm(), act=self._act)
            x = ConvGroup(width, self.depth, self.skip, **parts, name=f"group{i}")(x, train=train)
        return self._classified(F.global_max_pool(x))

    def _classified(self, features: jax.Array) -> jax.Array:
        kernel_init = self._kernel_init("identity")
        linear = functools.partial(Dense, self.num_classes, kernel_init=kernel_init, **self._shared())
        head = Layer(linear, None, functools.partial(Activation, "identity"), use_bias=False, name="head")
        return head(self.head_scale * features).astype(jnp.float32)


_SIZES = {
    "airbench94": {},
    "airbench95": {"widths": (128, 384, 384)},
    "airbench96": {"widths": (128, 512, 512), "depth": 3, "skip": True, "norm_momentum": 0.9},
}
VARIANTS = {
    name: Variant(Airbench, options, image=(32, 32, 3), paper="Jordan 2024, arXiv:2404.00498")
    for name, options in _SIZES.items()
}
