"""Products of Many Large Random Matrices (Hanin & Nica 2018, arXiv:1812.05994): how much does luck decide?

Claim as published (theorem 1): in a ReLU network from He's initializer the logarithm of the squared norm of a
Jacobian times a vector is normal in the limit, with a variance of 5 times the sum of 1 / width over the hidden
layers. Width and depth enter as their ratio only, so a deep narrow network's gradient is a matter of luck even where
its mean is right.
Settings: fully connected, He's initializer, no bias, one example; 1,000 draws of each network, at initialization.
Command: `cnnjax reproduce hanin2018`; `--tier full` draws 5,000 (5 times the work of the small one; never run).
Found: 0.540 [0.497, 0.593] where theory says 0.5, 1.94 [1.77, 2.12] for 2, 1.11 [1.02, 1.21] for 1. 2026-11-21, JAX
0.10.2; 2 minutes of processor time. (The loss's gradient is not a fixed vector: its own spread is 12 to 15 % larger.)
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax.linen import Module

from cnnjax.cli import main_of_study
from cnnjax.study import Study, statistics
from cnnjax.study.claims import Claim, Measurement, Results, Where

SHAPES = {
    "width 100, depth 11": (100, 11),
    "width 100, depth 41": (100, 41),
    "width 200, depth 41": (200, 41),
}


def log_stretch(
    model: Module, variables: dict, images: jax.Array, labels: jax.Array, key: jax.Array
) -> jax.Array:
    """ln |J u|^2: J takes the image to the last hidden layer's output, u is a random unit vector."""

    def hidden(images: jax.Array) -> jax.Array:
        captured = model.apply(
            variables,
            images,
            capture_intermediates=lambda module, method: module.name == "stack",
            mutable=["intermediates"],
        )[1]
        return captured["intermediates"]["stack"]["__call__"][0]

    u = jax.random.normal(key, images.shape)
    _, stretched = jax.jvp(hidden, (images,), (u / jnp.linalg.norm(u),))
    return jnp.log(jnp.sum(stretched**2))


def variance(sample: np.ndarray, axis: int = -1) -> np.ndarray:
    """Of a sample, unbiased."""
    return np.var(sample, axis=axis, ddof=1)


def spread(shape: str) -> Claim:
    """The variance of ln |J u|^2 over the draws of one network."""
    width, depth = SHAPES[shape]
    predicted = 5 * (depth - 1) / width

    def rule(results: Results) -> Measurement:
        """Variance within 15 % of the prediction."""
        found = statistics.bca(results.numbers("log_stretch", {"shape": shape}).to_numpy(), variance)
        return Measurement(found, abs(found.value / predicted - 1) <= 0.15)

    return Claim(
        name=shape,
        statement=f"The variance of ln |Ju|^2 is 5 x {depth - 1} / {width} = {predicted:g}, within 15 %.",
        source="Hanin & Nica 2018, theorem 1",
        printed=round(predicted, 3),
        rule=rule,
        where=Where(seeds=1000),
    )


STUDY = Study(
    name="hanin2018",
    question="How much does the gradient of a He-initialized network differ from draw to draw?",
    papers=["Hanin & Nica 2018, arXiv:1812.05994", "Hanin 2018, arXiv:1801.03744"],
    model="mlp",
    options={"activation": "relu", "initializer": "he_normal"},
    grid={"shape": {name: {"width": width, "depth": depth} for name, (width, depth) in SHAPES.items()}},
    seeds=1000,
    steps=0,
    batch_size=1,
    measures={"log_stretch": log_stretch},
    claims=[spread(shape) for shape in SHAPES],
    quick={"seeds": 4},
)
FULL = STUDY.replace(name="hanin2018-full", seeds=5000)

if __name__ == "__main__":
    main_of_study(STUDY)
