"""The order of the channels."""

import jax


def channel_shuffle(x: jax.Array, groups: int) -> jax.Array:
    """Interleave the channels of groups (Zhang et al. 2018, figure 1).

    Of n channels a group, number g n + i goes to i groups + g: a grouped convolution then sees channels of every group of
    the one before. The inverse is the shuffle of n groups.

    Args:
      x: `(..., channels)`.
      groups: number of groups.

    Returns:
      The shape and type of `x`.

    Raises:
      ValueError: the channels do not divide into groups.
    """
    channels = x.shape[-1]
    if groups < 1 or channels % groups:
        raise ValueError(f"{channels} channels do not divide into {groups} groups")
    split = x.reshape(*x.shape[:-1], groups, channels // groups)
    return split.swapaxes(-1, -2).reshape(x.shape)
