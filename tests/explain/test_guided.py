import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import explain
from cnnjax.explain.guided import _guiding

from . import small

SLOPES = {"relu": lambda z: z > 0, "tanh": lambda z: 1 - np.tanh(z) ** 2}
FUNCTIONS = {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh}


@pytest.mark.parametrize("activation", SLOPES)
def test_against_the_rule_in_numpy(activation):
    model, made, x = small.dense(activation=activation)
    layers = list(linear_parts(made["params"]))
    h, zs = np.asarray(x, np.float64).reshape(3, -1), []
    for kernel, bias in layers[:-1]:
        zs.append(h @ kernel + bias)
        h = FUNCTIONS[activation](zs[-1])
    r = np.broadcast_to(layers[-1][0][:, 4], h.shape)
    for (kernel, _), z in zip(layers[-2::-1], zs[::-1], strict=True):
        r = (np.where((z > 0) & (r > 0), r, 0) * SLOPES[activation](z)) @ kernel.T
    found = jax.jit(lambda v: explain.guided_backpropagation(model, v, x, target=4))(made)
    assert np.abs(r).max() > 0
    np.testing.assert_allclose(found, r.reshape(x.shape), rtol=1e-4, atol=1e-6)


def linear_parts(params):
    """Kernel and bias of each layer in float64, from the image to the logits."""
    for name in ("stem", "stack", "head"):
        part = params[name]["block"]["layer"] if name == "stack" else params[name]
        kernel, bias = (np.asarray(part["linear"][key], np.float64) for key in ("kernel", "bias"))
        yield from zip(kernel, bias, strict=True) if kernel.ndim == 3 else [(kernel, bias)]


def test_the_forward_pass_is_the_same_bit_for_bit():
    model, made, x = small.residual(activation="elu")

    def run(v):
        with linen.intercept_methods(_guiding):
            return model.apply(v, x)

    np.testing.assert_array_equal(jax.jit(run)(made), jax.jit(lambda v: model.apply(v, x))(made))


def test_nothing_that_inhibits_passes():
    # Behind the last activation lies the dense layer: its negative weights send nothing back.
    model, made, x = small.one_conv()
    head = made["params"]["head"]["linear"]
    negative = {
        **made,
        "params": {**made["params"], "head": {"linear": {**head, "kernel": -jnp.abs(head["kernel"])}}},
    }
    found = jax.jit(lambda v: explain.guided_backpropagation(model, v, x, target=1))(negative)
    np.testing.assert_array_equal(found, np.zeros_like(found))


def test_with_respect_to_a_layer():
    # The activation itself is not passed; what follows is linear.
    model, made, x = small.one_conv()
    found = jax.jit(lambda v: explain.guided_backpropagation(model, v, x, target=1, layer="conv"))(made)
    weights = made["params"]["head"]["linear"]["kernel"][:, 1] / 30
    np.testing.assert_allclose(found, np.broadcast_to(weights, found.shape), rtol=1e-6)


def test_integers_have_no_gradient():
    model, made, x = small.one_conv()
    for method in (explain.guided_backpropagation, explain.integrated_gradients):
        with pytest.raises(
            TypeError, match="images must be floating point; got uint8: use cnnjax.data.normalize"
        ):
            method(model, made, x.astype(jnp.uint8))
