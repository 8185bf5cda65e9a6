"""The activation, which is also the one probe point of a layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax import functional as F
from cnnjax.functional import statistics
from cnnjax.functional.tap import new_slot, tap

SLOTS = "slots"
"""The collection whose gradients are the moments of gradients (`functional.tap`)."""
RECORD = "record"
"""The collection that holds the statistics of the forward pass (`probes.Recorder` reads it)."""


class Activation(nn.Module):
    """An elementwise nonlinearity from `cnnjax.functional.ACTIVATIONS`, with a tap before and one behind it.

    The probes are there only when they are asked for: forward statistics when the collection `RECORD` is mutable, taps
    when `SLOTS` has values (or is mutable: then the slots are made). Otherwise this is the bare function.

    Attributes:
      kind: a name in the table, or an `Activation` of the functional package.
    """

    kind: str | F.Activation = "relu"

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        """`z`: pre-activations of any shape; with "prelu" the last axis is the channels."""
        activation = F.get_activation(self.kind)
        arguments = ()
        if activation.initial_slope is not None:
            initial = nn.initializers.constant(activation.initial_slope)
            arguments = (self.param("slope", initial, (z.shape[-1],)).astype(z.dtype),)
        z = self._tapped("gradient", z)
        y = activation.function(z, *arguments)
        if self._collects(RECORD):
            self._record(activation, *jax.lax.stop_gradient((z, y, arguments)))
        return self._tapped("output_gradient", y)

    def _collects(self, collection: str) -> bool:
        return self.is_mutable_collection(collection) and not self.is_initializing()

    def _tapped(self, name: str, x: jax.Array) -> jax.Array:
        if self._collects(SLOTS):
            self.put_variable(SLOTS, name, new_slot())
        elif self.has_variable(SLOTS, name):
            return tap(x, self.get_variable(SLOTS, name))
        return x

    def _record(self, activation: F.Activation, z: jax.Array, y: jax.Array, arguments: tuple) -> None:
        def derivative(z):
            return F.derivative(activation)(z, *arguments)

        slopes = statistics.slope_fractions(z, derivative, max_slope=activation.max_slope)
        # One vector of 9 numbers: under a scan each array that leaves the loop costs time to compile.
        rest = jnp.stack([*slopes, statistics.pair_correlation(z)])
        parts = [statistics.scaled_moments(z), statistics.scaled_moments(y), rest]
        self.put_variable(RECORD, "forward", jnp.concatenate(parts))


class PReLU(Activation):
    """`Activation("prelu")`: a leaky ReLU that learns one slope for each channel (He et al. 2015)."""

    kind: str | F.Activation = "prelu"
