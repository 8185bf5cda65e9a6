"""How the residual branches of a model start."""

import functools
from collections.abc import Callable
from typing import Any

from cnnjax.initializers import RESIDUAL_SCALES
from cnnjax.models.base import check_choice
from cnnjax.nn import Conv


def check_branch_scale(branch_scale: str | None, *, skip: bool) -> None:
    """Raises ValueError or TypeError for a `branch_scale` that is unknown, or that no branch could have."""
    if branch_scale is None:
        return
    check_choice("branch_scale", branch_scale, RESIDUAL_SCALES)
    if not skip:
        raise ValueError(
            f"branch_scale={branch_scale!r} is for residual branches: use skip=True or branch_scale=None"
        )


def branch(
    conv: Callable[..., Conv], branch_scale: str | None, *, num_blocks: int, layers_per_block: int
) -> dict[str, Any]:
    """The parts of a residual block that make its branch.

    Args:
      conv: makes a convolution; takes `factor`, on its kernel.
      branch_scale: a name in `initializers.RESIDUAL_SCALES`, or None.
      num_blocks: of the whole network.
      layers_per_block: convolutions of a branch.
    """
    if branch_scale is None:
        return dict(conv=conv)
    scale = RESIDUAL_SCALES[branch_scale](num_blocks, layers_per_block)
    return dict(
        conv=functools.partial(conv, factor=scale.kernels),
        last_conv=functools.partial(conv, factor=scale.last_kernel),
        multiplier=scale.multiplier,
    )
