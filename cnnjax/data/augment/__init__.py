"""Augmentation inside the compiled step: pure functions of a batch `(batch, height, width, channels)` and a key.

What moves pixels (`crop`, `flip`, `mirror`, `rotate`, `cutout`) and what mixes examples (`mixup`, `cutmix`) takes images on
any scale, normalized or not; what changes colors (`jitter`, `rand_augment`) takes images from 0 to 1. A batch depends on its
key alone: `jax.random.fold_in(key, step)` makes training resumable at any step. `alternating` says what `mirror` mirrors.
"""

from cnnjax.data.augment.color import jitter
from cnnjax.data.augment.geometry import alternating, crop, flip, mirror, rotate
from cnnjax.data.augment.mixing import cutmix, cutout, mixup
from cnnjax.data.augment.rand_augment import rand_augment
from cnnjax.data.augment.views import crops, flips

__all__ = [
    "alternating",
    "crop",
    "crops",
    "cutmix",
    "cutout",
    "flip",
    "flips",
    "jitter",
    "mirror",
    "mixup",
    "rand_augment",
    "rotate",
]
