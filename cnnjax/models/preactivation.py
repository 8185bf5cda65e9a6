"""What the pre-activation networks for CIFAR that project their shortcuts have in common: three stages of blocks."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax

from cnnjax import functional as F
from cnnjax.models.base import Model
from cnnjax.models.residual import branch, check_branch_scale
from cnnjax.nn import Activation, Layer, ModuleDef, Stack


class PreActivationNet(Model, kw_only=True):
    """A bare convolution, three stages of blocks, norm - act - pool, and the head; the second and third stage halve images.

    The first block of a stage, `stage2_down`, projects its shortcut from its first activation, by a 1x1 convolution
    without a norm; the stack `stage2` holds the others. Kernels start as in He et al. 2015.

    Attributes:
      width: channels of the stem.
      skip: whether the shortcuts are there; without, the projections are not.
      branch_scale: how the residual branches start, a name in `initializers.RESIDUAL_SCALES`: each is then multiplied by a
        learned number. None for neither. Meant for `norm=None`.
      scan: False writes the blocks out instead of scanning over the identical ones of each stage.
      remat: recompute activations in the backward pass (see `nn.Stack`).
    """

    norm: str | Callable[..., nn.Module] | None = "batch"
    width: int = 16
    skip: bool = True
    branch_scale: str | None = None
    scan: bool = True
    remat: bool = False

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        super().check()
        check_branch_scale(self.branch_scale, skip=self.skip)

    def _logits(
        self,
        x: jax.Array,
        make: ModuleDef,
        *,
        blocks: int,
        layers: int,
        features: int,
        expansion: int = 1,
        train: bool,
    ) -> jax.Array:
        """The network of `blocks` blocks a stage, with `layers` convolutions each.

        `make` makes a block that takes `features`, doubled from stage to stage, and puts out `expansion` times as many.
        """
        conv = self._symmetric_conv
        scaled = branch(conv, self.branch_scale, num_blocks=3 * blocks, layers_per_block=layers)
        parts = dict(skip=self.skip, projection=conv, norm=self._norm(), act=self._act, **scaled)
        identity = functools.partial(Activation, "identity")
        linear = functools.partial(conv, self.width, 3)
        x = Layer(linear, None, identity, use_bias=self.norm is None, name="stem")(x)
        for stage in range(3):
            block = functools.partial(make, features * 2**stage, **parts)
            name, stacked = f"stage{stage + 1}", blocks
            if stage > 0 or x.shape[-1] != features * expansion:
                x = block(stride=min(stage + 1, 2), name=f"{name}_down")(x, train=train)
                stacked = blocks - 1
            x = Stack(block, stacked, scan=self.scan, remat=self.remat, name=name)(x, train=train)
        norm = self._norm()
        if norm is not None:
            x = norm(name="final_norm")(x, train=train)
        return self._head(F.global_avg_pool(self._act(name="final_act")(x)))
