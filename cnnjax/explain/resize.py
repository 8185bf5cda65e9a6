"""Maps brought to the size of images."""

import jax


def to_images(maps: jax.Array, images: jax.Array) -> jax.Array:
    """Maps `(batch, *spatial)` interpolated linearly to the spatial size of images `(batch, *spatial, ...)`."""
    return jax.image.resize(maps, images.shape[: maps.ndim], "linear")
