"""Pre-activation residual networks for ImageNet (He et al. 2016b)."""

import flax.linen as nn
import jax

from cnnjax import functional as F
from cnnjax.models.base import Variant, check_choice
from cnnjax.models.resnet import BASIC, BOTTLENECK, STEMS, ResidualStages
from cnnjax.nn import PreActivationBlock, PreActivationBottleneckBlock

_BLOCKS = {"basic": PreActivationBlock, "bottleneck": PreActivationBottleneckBlock}


class PreActResNet(ResidualStages, kw_only=True):
    """norm - act - conv, nothing behind the additions but one last norm and activation in front of the pooling.

    As the appendix has it, the stem is activated and the first block begins with its convolution (`stage1_first` where it
    keeps the shape); a block that changes the shape shares its first activation between branch and projection, which has
    no norm. The stride is in the 3x3 of a bottleneck, as in `ResNet`.

    Attributes:
      stem: "imagenet": 7x7 with stride 2 and max pooling; "cifar": 3x3 with stride 1 and no pooling, for 32x32 images.
    """

    stem: str = "imagenet"

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        super().check()
        check_choice("stem", self.stem, STEMS)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, *spatial, channels)` -> logits `(batch, num_classes)`."""
        self.check()
        x = self._image_stem(self.stem, x, train)
        x = self._stages(_BLOCKS, x, train, activated=True)
        norm = self._norm()
        if norm is not None:
            x = norm(name="final_norm")(x, train=train)
        return self._head(F.global_avg_pool(self._act(name="final_act")(x)))


_DEPTHS = {**BASIC, **BOTTLENECK, 200: (3, 24, 36, 3)}
VARIANTS = {
    f"preact_resnet{depth}": Variant(
        PreActResNet,
        {"block": "basic" if depth in BASIC else "bottleneck", "depths": depths},
        image=(224, 224, 3),
        paper="He et al. 2016, arXiv:1603.05027",
    )
    for depth, depths in _DEPTHS.items()
}
