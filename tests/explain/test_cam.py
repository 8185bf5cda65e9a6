import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import explain, models, nn, probes

from ..drawn import images, shapes, variables
from . import small


def weights_and_maps(made, model, x, target):
    """The dense layer's weights (channels,) of a class, and the convolution's maps."""
    _, maps = explain.cut(model, made, x, "conv")
    return np.asarray(made["params"]["head"]["linear"]["kernel"], np.float64)[:, target], np.asarray(
        maps, np.float64
    )


def test_grad_cam_of_pooled_maps_is_their_weighted_sum():
    # Selvaraju et al. 2017, section 3.1: with global average pooling, w_k is the dense layer's weight over the positions.
    model, made, x = small.one_conv()
    weights, maps = weights_and_maps(made, model, x, 2)
    expected = np.maximum(maps @ weights, 0) / 30
    found = jax.jit(lambda v, x: explain.grad_cam(model, v, x, target=2, layer="conv"))(made, x)
    assert (expected > 0).any() and (expected == 0).any()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_grad_cam_plus_plus_by_the_paper():
    model, made, x = small.one_conv()
    weights, maps = weights_and_maps(made, model, x, 1)
    g = np.broadcast_to(weights / 30, maps.shape)
    # Equation 19, and equation 10 of the paper.
    alpha = g**2 / (2 * g**2 + g**3 * maps.sum(axis=(1, 2), keepdims=True))
    channel = (alpha * np.maximum(g, 0)).sum(axis=(1, 2), keepdims=True)
    expected = np.maximum((channel * maps).sum(axis=-1), 0)
    found = jax.jit(lambda v, x: explain.grad_cam_plus_plus(model, v, x, target=1, layer="conv"))(made, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", [explain.grad_cam, explain.grad_cam_plus_plus])
def test_a_shifted_image_shifts_the_map(method):
    model, made, x = small.one_conv()
    run = jax.jit(lambda v, x: method(model, v, x, target=0))
    shifted = run(made, jnp.roll(x, (2, 1), axis=(1, 2)))
    np.testing.assert_allclose(shifted, jnp.roll(run(made, x), (2, 1), axis=(1, 2)), rtol=1e-4, atol=1e-7)


def test_the_gradient_of_a_layer_in_a_stack_is_that_of_its_slice():
    # The reference adds a shift to what the written-out block puts out.
    model, made, x = small.residual(scan=False)

    def score(shift):
        def shifted(next_function, args, kwargs, context):
            y = next_function(*args, **kwargs)
            place = ("stack", "block_1", "layer", "act")
            return y + shift if context.module.path == place and context.method_name == "__call__" else y

        with small.linen.intercept_methods(shifted):
            return jnp.sum(model.apply(made, x)[:, 3])

    gradient = jax.jit(jax.grad(score))(jnp.zeros((2, 6, 6, 4)))
    stacked, whole = model.clone(scan=True), nn.restack(made)

    @jax.jit
    def through_cut(v):
        function, maps = explain.cut(stacked, v, x, "stack[1]/layer")
        return jax.grad(lambda a: jnp.sum(function(a)[:, 3]))(maps), function(maps)

    found, scores = through_cut(whole)
    assert np.abs(gradient).max() > 1e-3
    np.testing.assert_allclose(found, gradient, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(scores, model.apply(made, x), rtol=1e-5, atol=1e-6)


def test_maps_of_stacks_do_not_depend_on_how_they_run():
    model, made, x = small.residual()

    def run(model, v):
        options = dict(target=jnp.array([1, 4]), layer="stack[1]/layer")
        return explain.grad_cam(model, v, x, **options), explain.guided_backpropagation(model, v, x, target=1)

    scanned = jax.jit(lambda v: run(model, v))(made)
    written = jax.jit(lambda v: run(model.clone(scan=False), v))(nn.unstack(made))
    again = jax.jit(lambda v: run(model.clone(remat=True), v))(made)
    for others in (written, again):
        for found, expected in zip(others, scanned, strict=True):
            assert np.abs(expected).max() > 0
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


def test_the_map_is_brought_to_the_size_of_the_image():
    model, x = models.create("lenet5", padding="SAME"), images(2, 8, 8, 1)
    run = jax.jit(
        lambda v: [
            explain.grad_cam(model, v, x, layer="c3", target=1, resize=resize) for resize in (True, False)
        ]
    )
    resized, bare = run(variables(model, x))
    assert resized.shape == (2, 8, 8) and bare.shape == (2, 4, 4)
    # The centers of the corner pixels lie beyond those of the map's.
    np.testing.assert_allclose(resized[:, ::7, ::7], bare[:, ::3, ::3], rtol=1e-5)
    expected = np.asarray(bare)[:, :2, :2].reshape(2, 4) @ np.array([9, 3, 3, 1]) / 16
    np.testing.assert_allclose(resized[:, 1, 1], expected, rtol=1e-4)


# Every rank, a dense prediction, words.
VARIED = ["c3d", "deepsea", "text_cnn", "unet"]
FAMILIES = {variant.family: name for name, variant in reversed(models.VARIANTS.items())}


def check_map(name):
    """The size of a model's Grad-CAM, at the paper's resolution; nothing is computed."""
    model, variant = models.create(name), models.VARIANTS[name]
    x = jnp.zeros((1, *variant.image), variant.dtype)
    made = shapes(model, x)
    layer = explain.last_spatial_layer(model, made, x)
    rank = len(explain.layer_shapes(model, made, x)[layer]) - 2
    assert rank == len(variant.image) - (variant.dtype == "float32")
    found = jax.eval_shape(lambda v: explain.grad_cam(model, v, x, layer=layer), made)
    assert found.shape == x.shape[: rank + 1]
    return layer


@pytest.mark.parametrize("name", VARIED)
def test_models_of_every_kind_have_a_map(name):
    check_map(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FAMILIES.values()))
def test_every_family_has_a_map(name):
    if name != "mlp":
        check_map(name)


@pytest.mark.slow
def test_the_branches_of_an_inception_module_are_one_layer():
    assert check_map("googlenet") == "inception5b"


def test_a_network_without_maps():
    model, made, x = small.dense()
    with pytest.raises(
        ValueError, match=r"MLP has no layer with maps .* it has stem \(16,\), .*, head \(10,\)"
    ):
        explain.grad_cam(model, made, x)


def test_blocks_and_parts_of_layers_are_layers_too():
    model, made, x = small.residual()

    @jax.jit
    def compute(v):
        names = ["stack[1]", "stack", "stack[2]/layer/linear"]
        return [explain.cut(model, v, x, name)[1] for name in names], probes.features(model, v, x)

    (block, stack, linear), layers = compute(made)
    np.testing.assert_allclose(block, layers["stack[1]/layer"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stack, layers["stack[2]/layer"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.nn.relu(linear + layers["stack[1]/layer"]), stack, rtol=1e-5, atol=1e-6)
    assert list(explain.layer_shapes(model, made, x)) == [
        "stem",
        *[name for i in range(3) for name in (f"stack[{i}]/layer", f"stack[{i}]")],
        "stack",
        "head",
    ]


def test_errors():
    model, made, x = small.residual()
    with pytest.raises(
        ValueError,
        match=r"unknown layer 'stack\[7\]/layer'; did you mean .* Known: head, stack, stack\[0\], stack\[0\]/layer,",
    ):
        explain.grad_cam(model, made, x, layer="stack[7]/layer")
    with pytest.raises(
        ValueError, match=r"spatial maps; 'head' puts out shape \(5,\). With maps: stem, stack\[0\]/layer"
    ):
        explain.grad_cam(model, made, x, layer="head")
    with pytest.raises(TypeError, match="name of the layer must be a string"):
        explain.grad_cam(model, made, x, layer=3)
    with pytest.raises(ValueError, match="Bare has no probe point"):
        explain.layer_shapes(Bare(), {}, images(1, 4, 4, 1))


class Bare(small.linen.Module):
    @small.linen.compact
    def __call__(self, x, *, train=False):
        return x.reshape(len(x), -1)
