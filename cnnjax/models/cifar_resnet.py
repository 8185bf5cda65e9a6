"""The residual networks for CIFAR: He et al. 2016 (section 4.2), and pre-activation, He et al. 2016b."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax

from cnnjax import functional as F
from cnnjax.models.base import Model, Variant, is_integer
from cnnjax.models.residual import branch, check_branch_scale
from cnnjax.nn import Activation, BasicBlock, Layer, PreActivationBlock, Stack


class _Stages(Model, kw_only=True):
    """Three stages of n blocks with two 3x3 convolutions each, of width, 2 width and 4 width channels, halving the image.

    Shortcuts are option A, without parameters, so that `skip=False` is the plain twin with exactly the same ones.

    Attributes:
      depth: layers with weights, 6n + 2: 20, 32, 44, 56, 110, 1202 in the paper.
      width: channels of the first stage.
      skip: whether the shortcuts are there.
      branch_scale: how the residual branches start, a name in `initializers.RESIDUAL_SCALES`: each is then multiplied by a
        learned number. None for neither. Meant for `norm=None`.
      scan: False writes the blocks out instead of scanning over the identical ones of each stage.
      remat: recompute activations in the backward pass (see `nn.Stack`).
    """

    norm: str | Callable[..., nn.Module] | None = "batch"
    depth: int = 20
    width: int = 16
    skip: bool = True
    branch_scale: str | None = None
    scan: bool = True
    remat: bool = False

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        if not is_integer(self.depth) or self.depth < 8 or self.depth % 6 != 2:
            raise ValueError(
                f"a CIFAR ResNet has depth 6n + 2 with n >= 1 (8, 14, 20, 26, 32, ...); got {self.depth!r}"
            )
        super().check()
        check_branch_scale(self.branch_scale, skip=self.skip)

    def _stages(self, make_block: type[nn.Module], x: jax.Array, train: bool) -> jax.Array:
        blocks = (self.depth - 2) // 6
        scaled = branch(self._conv, self.branch_scale, num_blocks=3 * blocks, layers_per_block=2)
        parts = dict(skip=self.skip, norm=self._norm(), act=self._act, **scaled)
        for stage in range(3):
            block = functools.partial(make_block, self.width * 2**stage, **parts)
            stacked = blocks
            if stage > 0:
                x = block(stride=2, name=f"stage{stage + 1}_down")(x, train=train)
                stacked = blocks - 1
            stack = Stack(block, stacked, scan=self.scan, remat=self.remat, name=f"stage{stage + 1}")
            x = stack(x, train=train)
        return x


class CifarResNet(_Stages, kw_only=True):
    """conv - norm - act, the addition before the last activation of a block (He et al. 2016, section 4.2)."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, height, width, channels)` -> logits `(batch, num_classes)`."""
        self.check()
        x = self._conv_layer(self.width, 3, name="stem")(x, train=train)
        return self._head(F.global_avg_pool(self._stages(BasicBlock, x, train)))


class CifarPreActResNet(_Stages, kw_only=True):
    """norm - act - conv, with the identity untouched from the stem to the last norm (He et al. 2016b, figure 1b)."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, height, width, channels)` -> logits `(batch, num_classes)`."""
        self.check()
        linear = functools.partial(self._conv, self.width, 3)
        identity = functools.partial(Activation, "identity")
        x = Layer(linear, None, identity, use_bias=self.norm is None, name="stem")(x)
        x = self._stages(PreActivationBlock, x, train)
        norm = self._norm()
        if norm is not None:
            x = norm(name="final_norm")(x, train=train)
        return self._head(F.global_avg_pool(self._act(name="final_act")(x)))


_RESNET = "He et al. 2016, arXiv:1512.03385"
_PREACT = "He et al. 2016, arXiv:1603.05027"
VARIANTS = {
    "cifar_resnet": Variant(CifarResNet, {}, image=(32, 32, 3), paper=_RESNET),
    "cifar_preact_resnet": Variant(CifarPreActResNet, {}, image=(32, 32, 3), paper=_PREACT),
    **{
        f"cifar_resnet{depth}": Variant(CifarResNet, {"depth": depth}, image=(32, 32, 3), paper=_RESNET)
        for depth in (20, 32, 44, 56, 110, 1202)
    },
    "cifar_preact_resnet110": Variant(CifarPreActResNet, {"depth": 110}, image=(32, 32, 3), paper=_PREACT),
}
