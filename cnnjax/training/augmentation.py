"""What happens to a batch of training images, as a typed choice of `cnnjax.data.augment`."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from cnnjax.data import augment, normalize


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Which augmentations there are, in the order of the attributes; what is 0 or False is left out.

    Each draws from a stream of its own: turning one on leaves the others as they were.

    Attributes:
      rand_augment: operations of RandAugment.
      magnitude: of RandAugment, from 0 to 30.
      brightness, contrast, saturation, hue: of the color jitter.
      crop: pixels that each side is padded by before the old size is cut out.
      crop_mode: of that padding: "constant" (the mean color) or "reflect".
      flip: whether half of the images are mirrored: by chance, or, "alternating", each in every second epoch (see
        `augment.alternating`).
      rotate: the largest angle, in degrees.
      cutout: side of the blank square, in pixels.
      mixup, cutmix: alpha of each; with both, a fair coin decides for each batch.
    """

    rand_augment: int = 0
    magnitude: float = 9.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    crop: int = 0
    crop_mode: Literal["constant", "reflect"] = "constant"
    flip: bool | Literal["alternating"] = False
    rotate: float = 0.0
    cutout: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self):
        if self.flip not in (False, True, "alternating"):
            raise ValueError(f"flip must be False, True or 'alternating', got {self.flip!r}")

    def __call__(
        self,
        images: jax.Array,
        labels: jax.Array,
        key: jax.Array,
        *,
        mean: jax.Array,
        std: jax.Array,
        mirrored: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """A batch for a training step.

        Args:
          images: `(batch, height, width, channels)`, uint8.
          labels: `(batch, classes)`, probabilities.
          key: of this step.
          mean, std: `(channels,)`, of the normalization, on the scale 0..1.
          mirrored: `(batch,)`, bool: the images that an alternating flip mirrors, from `augment.alternating`.

        Returns:
          Normalized float32 images, and the labels, mixed where the images are.

        Raises:
          TypeError, ValueError: as those augmentations do; an alternating flip without `mirrored`, or that without it.
        """
        if (mirrored is None) == (self.flip == "alternating"):
            raise ValueError(
                f"mirrored says which images an alternating flip mirrors, and goes with flip='alternating'; got "
                f"mirrored={'None' if mirrored is None else 'an array'} with flip={self.flip!r}"
            )
        colors, places, mix = jax.random.split(key, 3)
        images = self._moved(normalize(self._colored(images, colors), mean, std), places, mirrored)
        return self._mixed(images, labels, mix)

    def _colored(self, images: jax.Array, key: jax.Array) -> jax.Array:
        jitter = {name: getattr(self, name) for name in ("brightness", "contrast", "saturation", "hue")}
        if not self.rand_augment and not any(jitter.values()):
            return images
        first, second = jax.random.split(key)
        x = images.astype(jnp.float32) / 255
        if self.rand_augment:
            x = augment.rand_augment(x, first, count=self.rand_augment, magnitude=self.magnitude)
        return jnp.round(255 * augment.jitter(x, second, **jitter)).astype(jnp.uint8)

    def _moved(self, images: jax.Array, key: jax.Array, mirrored: jax.Array | None) -> jax.Array:
        keys = jax.random.split(key, 4)
        if self.crop:
            images = augment.crop(images, keys[0], padding=self.crop, mode=self.crop_mode)
        if mirrored is not None:
            images = augment.mirror(images, mirrored)
        elif self.flip:
            images = augment.flip(images, keys[1])
        if self.rotate:
            images = augment.rotate(images, keys[2], degrees=self.rotate)
        if self.cutout:
            images = augment.cutout(images, keys[3], size=self.cutout)
        return images

    def _mixed(self, images: jax.Array, labels: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        coin, first, second = jax.random.split(key, 3)
        if self.mixup and self.cutmix:
            return jax.lax.cond(
                jax.random.bernoulli(coin),
                lambda: augment.mixup(images, labels, first, alpha=self.mixup),
                lambda: augment.cutmix(images, labels, second, alpha=self.cutmix),
            )
        if self.mixup:
            return augment.mixup(images, labels, first, alpha=self.mixup)
        if self.cutmix:
            return augment.cutmix(images, labels, second, alpha=self.cutmix)
        return images, labels
