import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import explain

from . import small


def test_an_unknown_method():
    model, made, x = small.one_conv()
    with pytest.raises(ValueError, match="unknown method 'gradcamm'; did you mean 'gradcam'?"):
        explain.explain("gradcamm", model, made, x)


@pytest.mark.parametrize("method", ["guided", "integrated_gradients"])
def test_a_layer_without_positions_gives_no_map(method):
    model, made, x = small.one_conv()
    with pytest.raises(
        ValueError, match="a map of the image takes a layer with spatial maps; 'head' has none"
    ):
        explain.explain(method, model, made, x, layer="head")


def test_channels_are_taken_together():
    model, made, x = small.one_conv()

    @jax.jit
    def run(v):
        options = dict(target=1)
        maps = [
            explain.explain(name, model, v, x, **options).maps for name in ("guided", "integrated_gradients")
        ]
        gradients = explain.guided_backpropagation(model, v, x, **options)
        return maps, gradients, explain.integrated_gradients(model, v, x, **options)

    (guided, integrated), gradients, found = run(made)
    np.testing.assert_array_equal(guided, jnp.abs(gradients).max(axis=-1))
    np.testing.assert_allclose(
        integrated.sum(axis=(1, 2)), found.difference + found.completeness_error, rtol=1e-4
    )


@pytest.mark.parametrize("method", explain.METHODS)
def test_maps_of_a_layer_have_the_size_of_the_image(method):
    model, made, x = small.residual()
    found = jax.eval_shape(
        lambda v: explain.explain(method, model, v, x, layer="stack[1]/layer", target=0).maps, made
    )
    assert found.shape == (2, 6, 6)
