"""What is broken on purpose is found where it was broken."""

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import functional as F
from cnnjax import models, nn
from cnnjax.training.nonfinite import find_nonfinite

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 5, 1)), jnp.float32)
LABELS = jax.nn.one_hot(jnp.arange(4) % 3, 3)
NET = models.create("plain", depth=8, width=3, num_classes=3, activation="identity")
VARIABLES = NET.init(jax.random.key(0), IMAGES)


def scaled(**factors):
    """The variables with the kernel of the stem, of a layer of the stack (stack_3) or of the head times a number."""
    params = jax.tree.map(lambda leaf: leaf, VARIABLES["params"])
    for name, factor in factors.items():
        part, _, index = name.partition("_")
        linear = params["stack"]["block"]["layer"]["linear"] if index else params[part]["linear"]
        kernel = linear["kernel"]
        linear["kernel"] = kernel.at[int(index)].multiply(factor) if index else kernel * factor
    return {**VARIABLES, "params": params}


def find(variables=VARIABLES, *, model=NET, images=IMAGES, labels=LABELS, loss=F.cross_entropy, key=None):
    return find_nonfinite(model, variables, images, labels, loss=loss, key=key)


@pytest.mark.parametrize(
    "name, layer, factor",
    [("stem", "stem", jnp.inf), ("stack_3", "stack[3]/layer", jnp.nan), ("head", "head", jnp.inf)],
)
def test_a_broken_kernel_breaks_its_own_layer(name, layer, factor):
    found = find(scaled(**{name: factor}))
    assert (found.forward, found.backward, found.images) == (layer, "head", 0)
    stack = "params/stack/block/layer/linear/kernel"
    assert found.variables == ((stack,) if "_" in name else (f"params/{name}/linear/kernel",))
    assert not np.isfinite(found.loss) and stack in found.gradients
    assert found.text == (
        f"variables that are not finite before the step: {found.variables[0]}; going forward, the first values that are not "
        f"finite are the pre-activations of {layer}; going back, the first gradient that is not finite is that of the "
        "output of head"
    )


def test_large_kernels_break_the_layer_in_which_the_product_overflows():
    found = find(scaled(stack_1=1e30, stack_3=1e30))
    assert (found.forward, found.backward, found.variables) == ("stack[3]/layer", "head", ())
    assert found.text.startswith(
        "going forward, the first values that are not finite are the pre-activations of stack[3]"
    )
    assert find(scaled(stack_1=1e30)).forward is None


def test_a_backward_pass_that_overflows_alone():
    # Forward 1e-30 * 1e25 * 1e25; back from the head, the product of the two large kernels is met before the small one.
    found = find(scaled(stem=1e-30, stack_2=1e25, stack_3=1e25))
    assert np.isfinite(found.loss) and found.variables == ()
    assert (found.forward, found.backward) == (None, "stack[1]/layer")
    assert found.text == (
        "going forward, everything is finite; going back, the first gradient that is not finite is that of the output of "
        "stack[1]/layer"
    )
    rows = found.flow.frame().set_index("path")["gradient_log10_second_moment"]
    assert np.isfinite(rows["stack[2]/layer"]) and not np.isfinite(rows["stack[1]/layer"])


def test_an_activation_that_overflows_breaks_the_output_and_not_the_pre_activations():
    square = F.Activation("square", jnp.square, np.square)
    model = models.create("plain", depth=4, width=3, num_classes=3, activation=square)
    variables = model.init(jax.random.key(0), IMAGES)
    variables["params"]["stem"]["linear"]["kernel"] *= 1e25
    found = find(variables, model=model)
    assert found.forward == "stem"
    assert "the first values that are not finite are the output of stem" in found.text


def test_images_that_are_not_finite_are_counted():
    found = find(images=IMAGES.at[1, 2, 3].set(jnp.nan).at[3, 0, 0].set(jnp.inf))
    assert found.images == 2 and found.forward == "stem"
    assert found.text.startswith("images that are not finite: 2; going forward")


def test_a_loss_that_is_not_finite_by_itself():
    found = find(loss=lambda logits, labels: F.cross_entropy(logits, labels) + jnp.inf)
    assert (found.forward, found.backward) == (None, None)
    assert "going forward, every layer is finite, but the loss is inf" in found.text


def test_gradients_of_parameters_alone():
    # Images of 3e38 under a kernel of 1e-30: its gradient is the product of the images and a gradient above 1.
    model = models.create("plain", depth=4, width=3, num_classes=3, activation="identity")
    images = jnp.full((4, 5, 5, 1), 3e38)
    variables = model.init(jax.random.key(0), images)
    variables["params"]["stem"]["linear"]["kernel"] *= 1e-30
    variables["params"]["head"]["linear"]["kernel"] *= 1e10
    found = find(variables, model=model, images=images)
    assert (found.forward, found.backward) == (None, None)
    assert found.gradients == ("params/stem/linear/kernel",)
    assert found.text.endswith(
        "going back, only gradients of parameters are not finite: params/stem/linear/kernel"
    )


def test_where_all_is_finite_it_was_the_update():
    found = find()
    assert (found.forward, found.backward, found.gradients) == (None, None, ())
    assert found.text == (
        "going forward, everything is finite; going back, every gradient is finite: what is not is their norm or the "
        "optimizer's update"
    )


def test_running_statistics_and_many_names():
    model = models.create("plain", depth=3, width=3, num_classes=3, norm="batch")
    variables = jax.tree.map(lambda leaf: leaf * jnp.nan, model.init(jax.random.key(0), IMAGES))
    found = find(variables, model=model)
    leaves = len(jax.tree.leaves(variables))
    assert len(found.variables) == leaves and "batch_stats/stem/norm/mean" in found.variables
    assert f"{', '.join(found.variables[:3])} and {leaves - 3} more;" in found.text


class Dropping(linen.Module):
    @linen.compact
    def __call__(self, x, *, train):
        x = nn.Dropout(0.5)(nn.Activation("tanh")(nn.Dense(20)(x.reshape(len(x), -1))), train=train)
        return nn.Dense(3)(x)


def test_dropout_takes_the_key_of_the_step():
    model = Dropping()
    variables, key = model.init(jax.random.key(0), IMAGES, train=False), jax.random.key(1)
    logits = model.apply(variables, IMAGES, train=True, rngs={"dropout": key})
    expected = jnp.mean(F.cross_entropy(logits, LABELS))
    assert find(variables, model=model, key=key).loss == pytest.approx(float(expected), rel=1e-6)
    assert find(variables, model=model, key=jax.random.key(2)).loss != pytest.approx(
        float(expected), rel=1e-6
    )
