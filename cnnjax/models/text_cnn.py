"""The convolutional network for sentences of Kim 2014."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from cnnjax import functional as F
from cnnjax.initializers import Choice
from cnnjax.models.base import Model, Variant, check_rate
from cnnjax.nn import Dropout, Embed


def uniform(limit: float) -> Callable[..., jax.Array]:
    """An initializer: uniform between -limit and limit."""

    def initialize(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return initialize


class TextCNN(Model, kw_only=True):
    """An embedding of words, convolutions of several windows side by side, the maximum over time of each, a dense head.

    Maps tokens `(batch, length)`, integers below `vocabulary`, to logits. Nothing is padded here: the authors' code sets
    four empty words in front of a sentence, and at least as many behind it.

    Kernels start uniform within +-0.01 and words within +-0.25, as in the authors' code. Neither `initializer` nor `gain`
    reaches the words, whose table is no kernel. The paper's limit on the norm of the head's kernel is left to training.

    Attributes:
      vocabulary: number of words; 18,765 is that of the movie reviews (table 1).
      embedding_size: length of a word's vector.
      windows: words under a kernel, of each of the convolutions.
      width: channels of each convolution.
      dropout: rate in front of the head.
    """

    num_classes: int = 2
    initializer: Choice = uniform(0.01)
    vocabulary: int = 18_765
    embedding_size: int = 300
    windows: tuple[int, ...] = (3, 4, 5)
    width: int = 100
    dropout: float = 0.5

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError or TypeError for options that do not fit."""
        super().check()
        check_rate("dropout", self.dropout)
        if len(set(self.windows)) < len(self.windows):
            raise ValueError(f"windows must differ from each other; got {self.windows}")

    @nn.compact
    def __call__(self, tokens: jax.Array, *, train: bool = False) -> jax.Array:
        """`tokens`: integers `(batch, length)` -> logits `(batch, num_classes)`.

        Raises TypeError for tokens that are no integers, ValueError for a sentence shorter than a window.
        """
        self.check()
        embed = Embed(self.vocabulary, self.embedding_size, uniform(0.25), self.dtype, name="embed")
        x = embed(tokens)
        make = functools.partial(self._conv_layer, self.width, padding="VALID")
        maps = [make(window, name=f"conv{window}")(x, train=train) for window in self.windows]
        x = jnp.concatenate([F.global_max_pool(y) for y in maps], axis=-1)
        return self._head(Dropout(self.dropout)(x, train=train))


VARIANTS = {"text_cnn": Variant(TextCNN, {}, image=(64,), paper="Kim 2014, arXiv:1408.5882", dtype="int32")}
