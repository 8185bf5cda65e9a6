"""The Shattered Gradients Problem (Balduzzi et al. 2017, arXiv:1702.08591): do gradients become noise with depth?

Claim as published (section 2, figures 1 and 2): along a line of inputs the gradient of a network of one layer changes
like brown noise; that of a 24-layer feedforward network cannot be told from white noise; that of a 50-layer residual
one keeps correlations, and with the branches times beta = 0.1 it is like brown noise again. (Theorem 1): in a
feedforward network from He's initializer the correlation falls as 1 / 2^depth. (Theorem 3): in a residual one with
batch norm it falls as 1 / (beta sqrt(depth)) only.
Settings: fully connected ReLU networks of 200 units at initialization, 256 points on [-2, 2]; batch norm takes its
statistics from the points; the autocorrelation of the gradient up to lag 15, of which lag 1 decides. White noise of 256
points has a lag-1 autocorrelation of 0 +- 1/16, brown noise one near 1.
Smaller here: nothing, but the convolutional networks and the training of the paper are left out. It is not known here
what the paper took for biases and where its shortcuts end; here biases are normal with deviation 0.1 where there is no
batch norm (along a line through 0 a network without any has one kink), and shortcuts are added before the activation.
Neither decides a claim: at deviations of 0.01 to 1 plain networks of 24 and 50 layers have 0.73 to 0.93 (10 seeds), and
branches in the order norm - activation - linear 0.43 at 50 layers, 0.81 with beta.
Command: `cnnjax reproduce balduzzi2017`; `--tier full` takes a fifth depth and 100 seeds (5 times the work of the small
one; never run).
Found: the gradient whitens with depth, and shortcuts keep it from that: at 50 layers -0.01 plain, 0.59 residual, 0.87
with beta = 0.1, all with batch norm. But the dramatic fall needs batch norm: without, plain networks have 0.82 at 24
layers and 0.76 at 50, and theorem 1, which takes units to be active independently for any two inputs, does not describe
them; residual ones have 0.995, while their gradients explode. 2026-11-21, JAX 0.10.2; 2 minutes of processor time.
"""

import math
import operator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.cli import main_of_study
from cnnjax.nn import BatchNorm, Multiplier
from cnnjax.probes import gradient_autocorrelation
from cnnjax.study import Study
from cnnjax.study.claims import Claim, Reduced, Where, level, ordering

BETA = 0.1
BIASED = {"bias_std": 0.1}
POINTS = 256
WHITE = 2 / math.sqrt(POINTS)


class BranchNorm(nn.Module):
    """Batch norm, times beta in the residual branches: not in the stem, for a factor on all layers changes nothing."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`x`: `(batch, channels)`."""
        x = BatchNorm(name="batch")(x, train=train)
        return Multiplier(BETA, name="beta")(x) if "stack" in self.path else x


def with_one_input(variables: dict[str, Any]) -> dict[str, Any]:
    """A network's variables as those of one with a single input: one row of the first kernel, at He's scale for it.

    For t it computes what the network does for an image whose first pixel is t sqrt(pixels) and whose others are 0.
    """
    params = variables["params"]
    linear = params["stem"]["linear"]
    kernel = linear["kernel"]
    stem = params["stem"] | {"linear": linear | {"kernel": kernel[:1] * math.sqrt(len(kernel))}}
    return variables | {"params": params | {"stem": stem}}


def autocorrelation(
    model: nn.Module, variables: dict, images: jax.Array, labels: jax.Array, key: jax.Array
) -> jax.Array:
    """Of the gradient over the points, lags 0 to 15."""
    line = jnp.linspace(-2, 2, POINTS)[:, None]
    return gradient_autocorrelation(model, with_one_input(variables), line, lags=15)


LAG_1 = Reduced("autocorrelation", operator.itemgetter(1), "lag-1 autocorrelation")
FIGURE = "Balduzzi et al. 2017, section 2, figure 2"
HERE = Where(seeds=20, exactly={"width": 200, "activation": "relu", "initializer": "he_normal"})

STUDY = Study(
    name="balduzzi2017",
    question="Do gradients become white noise with depth, and do shortcuts prevent it?",
    papers=["Balduzzi et al. 2017, arXiv:1702.08591"],
    model="mlp",
    options={"width": 200, "activation": "relu", "initializer": "he_normal"},
    grid={
        "network": {
            "plain": BIASED,
            "plain + BN": {"norm": "batch"},
            "residual": {"skip": True, **BIASED},
            "residual + BN": {"skip": True, "norm": "batch"},
            "residual + BN, beta 0.1": {"skip": True, "norm": BranchNorm},
        },
        "depth": [2, 10, 24, 50],
    },
    seeds=20,
    steps=0,
    measures={"autocorrelation": autocorrelation},
    claims=[
        Claim(
            name="brown when shallow",
            statement="The gradient of a network of one hidden layer is like brown noise.",
            source="Balduzzi et al. 2017, section 2, figure 1a",
            rule=level(LAG_1, {"network": ["plain", "plain + BN"], "depth": 2}, at_least=0.9, by="interval"),
            where=HERE,
        ),
        Claim(
            name="white when deep",
            statement="That of 24 and more layers with batch norm cannot be told from white noise.",
            source=FIGURE,
            printed="white noise",
            rule=level(
                LAG_1,
                {"network": "plain + BN", "depth": [24, 50]},
                at_least=-WHITE,
                at_most=WHITE,
                by="interval",
            ),
            where=HERE,
        ),
        Claim(
            name="white without batch norm",
            statement="Nor can that of 24 and more layers without batch norm.",
            source="Balduzzi et al. 2017, theorem 1",
            printed="1 / 2^depth",
            rule=level(
                LAG_1, {"network": "plain", "depth": [24, 50]}, at_least=-WHITE, at_most=WHITE, by="interval"
            ),
            where=HERE,
        ),
        Claim(
            name="shortcuts keep correlations",
            statement="A 50-layer residual network with batch norm keeps correlations.",
            source=FIGURE,
            rule=level(LAG_1, {"network": "residual + BN", "depth": 50}, at_least=0.3, by="interval"),
            where=HERE,
        ),
        Claim(
            name="a small beta keeps more",
            statement="With branches times 0.1 it is close to brown noise.",
            source=FIGURE,
            printed="brown noise",
            rule=level(
                LAG_1, {"network": "residual + BN, beta 0.1", "depth": 50}, at_least=0.7, by="interval"
            ),
            where=HERE,
        ),
        Claim(
            name="the order at 50 layers",
            statement="A small beta keeps more than none, and none more than no shortcut.",
            source=FIGURE,
            rule=ordering(
                LAG_1,
                {"network": "residual + BN, beta 0.1", "depth": 50},
                {"network": "residual + BN", "depth": 50},
                {"network": "plain + BN", "depth": 50},
            ),
            where=HERE,
        ),
    ],
    quick={
        "grid": {
            "network": {
                "plain + BN": {"norm": "batch"},
                "residual + BN, beta 0.1": {"skip": True, "norm": BranchNorm},
            },
            "depth": [2, 4],
        },
        "options": {"width": 16},
        "seeds": 1,
    },
)
FULL = STUDY.replace(name="balduzzi2017-full", grid={**STUDY.grid, "depth": [2, 4, 10, 24, 50]}, seeds=100)

if __name__ == "__main__":
    main_of_study(STUDY)
