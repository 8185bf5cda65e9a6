"""AlexNet in its one-tower form (Krizhevsky 2014, after Krizhevsky et al. 2012): 61,100,840 parameters at 224x224x3."""

import flax.linen as nn
import jax

from cnnjax import functional as F
from cnnjax.initializers import Choice
from cnnjax.models.base import Model, Variant, check_choice, check_rate, flatten
from cnnjax.nn import Dropout, Pool


class AlexNet(Model, kw_only=True):
    """Five convolutions, three of them followed by overlapping pooling, and three dense layers.

    Kernels are normal of deviation 0.01 (2012, section 5), whatever the width; the paper's biases of one are zeros here, and
    its local response normalization is left out, as in the one-tower form.

    Attributes:
      stem: "imagenet": the first window is 11 with a stride of 4, and the last maps are averaged to 6x6, so that images of
        any size from 63x63 will do. "cifar": a first window of 3 without a stride, and the last maps as they are: 3x3 for
        32x32 images. The head then belongs to one size of image, 15x15 or more.
      widths: channels of the five convolutions.
      hidden: units of the two dense layers before the head.
      dropout: of the inputs of those two.
    """

    num_classes: int = 1000
    initializer: Choice = jax.nn.initializers.normal(0.01)
    stem: str = "imagenet"
    widths: tuple[int, ...] = (64, 192, 384, 256, 256)
    hidden: int = 4096
    dropout: float = 0.5

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        super().check()
        check_choice("stem", self.stem, ("imagenet", "cifar"))
        check_rate("dropout", self.dropout)
        if len(self.widths) != 5:
            raise ValueError(f"widths are those of five convolutions; got {self.widths!r}")

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, height, width, channels)` -> logits `(batch, num_classes)`."""
        self.check()
        x = self._features(x, train)
        if self.stem == "imagenet":
            x = F.adaptive_avg_pool(x, 6)
        x = flatten(x)
        for name in ("fc6", "fc7"):
            x = Dropout(self.dropout, name=f"{name}_dropout")(x, train=train)
            x = self._dense_layer(self.hidden, name=name)(x, train=train)
        return self._head(x)

    def _features(self, x: jax.Array, train: bool) -> jax.Array:
        first = dict(window=11, stride=4, padding=2) if self.stem == "imagenet" else dict(window=3)
        rows = [first, dict(window=5), dict(window=3), dict(window=3), dict(window=3)]
        for i, (width, row) in enumerate(zip(self.widths, rows, strict=True), 1):
            x = self._conv_layer(width, name=f"conv{i}", **row)(x, train=train)
            if i in (1, 2, 5):
                x = Pool(3, 2, name=f"pool{i}")(x)
        return x


VARIANTS = {
    "alexnet": Variant(
        AlexNet,
        {},
        image=(224, 224, 3),
        paper="Krizhevsky 2014, arXiv:1404.5997; Krizhevsky et al. 2012, doi:10.1145/3065386",
    )
}
