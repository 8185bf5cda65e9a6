import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import models, nn
from cnnjax.probes import effective_depth

from ..drawn import images, variables

IMAGES, LABELS = images(4, 4, 4, 2), jnp.arange(4)


def depth_of(model, made):
    return float(jax.jit(lambda v: effective_depth(model, v, IMAGES, LABELS))(made))


@pytest.mark.parametrize("depth", [2, 6, 300])
def test_without_shortcuts_it_is_the_depth(depth):
    model = models.create("mlp", depth=depth, width=5, activation="tanh")
    # Kernels behind the first activation; differences of logarithms in float32 leave 1e-4 of each.
    assert depth_of(model, variables(model, IMAGES)) == pytest.approx(depth - 1, rel=2e-3)


@pytest.mark.parametrize("branch", [0.1, 1.0])
def test_linear_shortcuts_in_closed_form(branch):
    """z' = (1 + b) z: the lengths are binomial with probability b / (1 + b), and 1 for the head (Veit et al. 2016)."""
    model = models.create("mlp", depth=12, width=5, activation="identity", skip=True)
    made = variables(model, IMAGES)
    linear = made["params"]["stack"]["block"]["layer"]["linear"]
    linear["kernel"] = jnp.broadcast_to(branch * jnp.eye(5), (10, 5, 5))
    assert depth_of(model, made) == pytest.approx(10 * branch / (1 + branch) + 1, rel=1e-3)


def test_a_residual_net_is_shallower_than_its_plain_twin():
    model = models.create("cifar_resnet", depth=8, width=4, norm=None)
    made = variables(model, IMAGES)
    plain = depth_of(model.clone(skip=False), made)
    assert plain == pytest.approx(7, rel=1e-3)
    assert 1 < depth_of(model, made) < plain


def test_bad_input():
    model = models.create("mlp", depth=2, width=5)
    made = variables(model, IMAGES)
    with pytest.raises(ValueError, match="as many labels; got images of shape"):
        effective_depth(model, made, IMAGES, LABELS[:2])
    with pytest.raises(ValueError, match="must hold the collection 'params'"):
        effective_depth(model, {}, IMAGES, LABELS)
    with pytest.raises(TypeError, match="images must be floating point; got int32"):
        effective_depth(model, made, jnp.ones((4, 3), jnp.int32), LABELS)

    class Flat(linen.Module):
        @linen.compact
        def __call__(self, x, *, train=False):
            return nn.Activation("tanh")(x.reshape(x.shape[0], -1))

    with pytest.raises(ValueError, match="Flat has no convolution or dense layer"):
        effective_depth(Flat(), {"params": {}}, IMAGES, LABELS)
    assert np.isfinite(depth_of(model, made))
