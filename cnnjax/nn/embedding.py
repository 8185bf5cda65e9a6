"""A table of vectors, looked up by integers."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp


class Embed(nn.Module):
    """One learned vector for each of `vocabulary` tokens.

    A lookup costs no product: the table is no kernel, and neither the initializer nor the gain of a model reaches it.

    Attributes:
      vocabulary: number of tokens, which are the integers from 0 on.
      features: length of a vector.
      embedding_init: an initializer of the table `(vocabulary, features)`.
      dtype: of the result (None: float32).
    """

    vocabulary: int
    features: int
    embedding_init: Callable[..., jax.Array] = nn.initializers.normal(1.0)
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """`tokens`: integers `(batch, *spatial)` -> `(batch, *spatial, features)`; NaN for those outside of the vocabulary.

        Raises TypeError for tokens that are no integers.
        """
        if not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise TypeError(f"Embed takes tokens as integers, such as int32; got {tokens.dtype}")
        shape = (self.vocabulary, self.features)
        table = self.param("embedding", self.embedding_init, shape, jnp.float32)
        # A negative index would count from the end.
        known = jnp.where(tokens < 0, self.vocabulary, tokens.astype(jnp.int32))
        return jnp.take(table, known, axis=0, mode="fill").astype(self.dtype or jnp.float32)
