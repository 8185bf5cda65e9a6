import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import models

from ..drawn import images, variables
from .traced import inputs, output_shapes, parameters_of

TINY = {"width": 2, "hidden": 64, "num_classes": 3}


def test_the_stages_of_the_paper():
    # Tran et al. 2015, figure 3; fc6 reads 8,192 features.
    found = output_shapes(models.create("c3d"), inputs("c3d"))
    assert {part: shape for part, shape in found.items() if part.startswith("pool")} == {
        "pool1": (16, 56, 56, 64),
        "pool2": (8, 28, 28, 128),
        "pool3": (4, 14, 14, 256),
        "pool4": (2, 7, 7, 512),
        "pool5": (1, 4, 4, 512),
    }
    made = parameters_of(models.create("c3d"), inputs("c3d"))
    assert made["fc6/linear/kernel"] == (8192, 4096) and made["fc7/linear/kernel"] == (4096, 4096)
    assert {shape[:-2] for path, shape in made.items() if "conv" in path and "kernel" in path} == {(3, 3, 3)}


def test_dropout_is_behind_the_dense_layers_in_training_only():
    model, x = models.create("c3d", **TINY, dropout=0.3), images(4, 2, 8, 8, 3)
    made = variables(model, x, gain=1.4)

    @jax.jit
    def compute(made, x):
        rngs = {"dropout": jax.random.key(1)}
        _, state = model.apply(
            made, x, train=True, rngs=rngs, capture_intermediates=True, mutable=["intermediates"]
        )
        return (
            state["intermediates"],
            model.apply(made, x),
            model.clone(dropout=0.0).apply(made, x, train=True),
        )

    seen, evaluated, without = compute(made, x)
    np.testing.assert_array_equal(evaluated, without)
    for layer in ("fc6", "fc7"):
        before, after = (np.asarray(seen[part]["__call__"][0]) for part in (layer, f"{layer}_dropout"))
        kept = after[before > 0]
        assert np.mean(kept == 0) == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / kept.size))
        np.testing.assert_allclose(after[after > 0], before[after > 0] / 0.7, rtol=1e-6)


def test_norms_and_activations_reach_every_layer():
    model = models.create("c3d", **TINY, norm="group", activation="prelu")
    made = parameters_of(model, jax.ShapeDtypeStruct((1, 2, 8, 8, 3), jnp.float32))
    layers = {path.split("/")[0] for path in made} - {"head"}
    assert len(layers) == 10
    for part in ("norm/scale", "act/slope"):
        assert {path.split("/")[0] for path in made if path.endswith(part)} == layers


def test_errors():
    with pytest.raises(ValueError, match="dropout is a probability of dropping .*; got 1.5"):
        models.create("c3d", dropout=1.5)
    with pytest.raises(ValueError, match="hidden must be a positive integer; got 0"):
        models.create("c3d", hidden=0)
