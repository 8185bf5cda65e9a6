"""Networks on raw waveforms: M3, M5, M11, M18 and M34-res of Dai et al. 2016."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax

from cnnjax import functional as F
from cnnjax.initializers import Choice
from cnnjax.models.base import Model, Variant
from cnnjax.nn import BasicBlock, Layer, Pool, Stack


class _Waveform(Model, kw_only=True):
    """A first convolution of window 80 and stride 4, stages of window 3, poolings by 4 between them, the mean, a head.

    As in table 1 of the paper positions are padded ("SAME"), so that 32,000 samples, four seconds at 8 kHz, become 8000,
    2000, 500, 125 and 32. Kernels start as the paper has it, by Glorot and Bengio: xavier_uniform.

    Attributes:
      stem_width: channels of the first convolution.
      widths: channels of each stage.
      depths: layers (or blocks) of each stage.
      pools: poolings: behind the first convolution and behind each stage as far as they go.
      scan: False writes the layers out instead of scanning over the identical ones of each stage.
      remat: recompute activations in the backward pass (see `nn.Stack`).
    """

    initializer: Choice = "xavier_uniform"
    norm: str | Callable[..., nn.Module] | None = "batch"
    stem_width: int = 128
    widths: tuple[int, ...] = (128, 256, 512)
    depths: tuple[int, ...] = (1, 1, 1)
    pools: int = 4
    scan: bool = True
    remat: bool = False

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        super().check()
        if len(self.depths) != len(self.widths):
            raise ValueError(
                f"depths and widths have an entry a stage; got depths={self.depths} and widths={self.widths}"
            )

    def _network(
        self, make: Callable[[int], Callable[..., nn.Module]], x: jax.Array, train: bool
    ) -> jax.Array:
        """The logits. `make`: of a width, makes a part of a stage."""
        self.check()
        x = self._conv_layer(self.stem_width, 80, 4, name="stem")(x, train=train)
        x = Pool(4, padding="SAME", name="pool1")(x)
        for stage, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True), start=1):
            part = make(width)
            if x.shape[-1] != width:
                x = part(name=f"stage{stage}_widen")(x, train=train)
                depth -= 1
            x = Stack(part, depth, scan=self.scan, remat=self.remat, name=f"stage{stage}")(x, train=train)
            if stage < self.pools:
                x = Pool(4, padding="SAME", name=f"pool{stage + 1}")(x)
        return self._head(F.global_avg_pool(x))


class WaveformNet(_Waveform, kw_only=True):
    """Stages of plain layers (M3 to M18)."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, samples, channels)` -> logits `(batch, num_classes)`."""
        return self._network(self._layer, x, train)

    @nn.nowrap
    def _layer(self, width: int) -> Callable[..., nn.Module]:
        return functools.partial(Layer, functools.partial(self._conv, width, 3), self._norm(), self._act)


class WaveformResNet(_Waveform, kw_only=True):
    """Stages of residual blocks with two layers each (M34-res).

    Shortcuts to more channels have no parameters here (He et al. 2016, option A).

    Attributes:
      skip: whether the shortcuts are there; without, the layers and their parameters are the same.
    """

    skip: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, samples, channels)` -> logits `(batch, num_classes)`."""
        return self._network(self._block, x, train)

    @nn.nowrap
    def _block(self, width: int) -> Callable[..., nn.Module]:
        return functools.partial(
            BasicBlock, width, skip=self.skip, conv=self._conv, norm=self._norm(), act=self._act
        )


# Channels of the first convolution, channels and depths of the stages, poolings (table 1).
_PLAIN = {
    "m3": (256, (256,), (1,), 2),
    "m5": (128, (128, 256, 512), (1, 1, 1), 4),
    "m11": (64, (64, 128, 256, 512), (2, 2, 3, 2), 4),
    "m18": (64, (64, 128, 256, 512), (4, 4, 4, 4), 4),
}
_RESIDUAL = {"m34_res": (48, (48, 96, 192, 384), (3, 4, 6, 3), 4)}
VARIANTS = {
    name: Variant(
        family,
        dict(zip(("stem_width", "widths", "depths", "pools"), row, strict=True)),
        image=(32_000, 1),
        paper="Dai et al. 2016, arXiv:1610.00087",
    )
    for family, table in ((WaveformNet, _PLAIN), (WaveformResNet, _RESIDUAL))
    for name, row in table.items()
}
