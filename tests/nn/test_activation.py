from functools import partial

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import functional as F
from cnnjax import nn
from cnnjax.functional import statistics
from cnnjax.probes import gradient_flow

from ..drawn import images, shapes, variables

PLAIN = [name for name, row in F.ACTIVATIONS.items() if row.initial_slope is None]


@pytest.fixture
def z():
    return 2 * images(4, 3, 5)


def slots():
    return {"gradient": F.new_slot(), "output_gradient": F.new_slot()}


@pytest.mark.parametrize("name", PLAIN)
def test_without_probes_it_is_the_bare_function(name, z):
    module = nn.Activation(name)
    assert shapes(module, z) == {}

    def bare(z):
        return F.ACTIVATIONS[name].function(z)

    assert str(jax.make_jaxpr(lambda z: module.apply({}, z))(z)) == str(jax.make_jaxpr(bare)(z))


def test_without_probes_a_network_is_the_same_program(z):
    class Bare(linen.Module):
        @linen.compact
        def __call__(self, z):
            return F.tanh(z)

    def program(act):
        stack = nn.Stack(partial(nn.Layer, partial(nn.Dense, 5), None, act), 3)

        def gradient(made, z):
            return jax.grad(lambda made: jnp.sum(stack.apply(made, z)))(made)

        return jax.jit(gradient).lower(variables(stack, z), z).as_text()

    probed = program(partial(nn.Activation, "tanh"))
    assert probed.count("dot_general") == 3
    assert probed == program(Bare)


def test_an_activation_of_your_own(z):
    cube = F.Activation("cube", lambda x: x * x * x, lambda x: x**3, max_slope=np.inf)
    np.testing.assert_array_equal(nn.Activation(cube).apply({}, z), z * z * z)


def test_prelu_learns_a_slope_for_each_channel(z):
    for module in (nn.Activation("prelu"), nn.PReLU()):
        start = module.init(jax.random.key(0), z)
        np.testing.assert_array_equal(start["params"]["slope"], np.full(5, 0.25, np.float32))
        made = variables(module, z)
        np.testing.assert_array_equal(module.apply(made, z), F.prelu(z, made["params"]["slope"]))
        assert module.apply(made, z.astype(jnp.bfloat16)).dtype == jnp.bfloat16
        gradient = jax.grad(lambda v, module=module: module.apply(v, z).sum())(made)["params"]["slope"]
        np.testing.assert_allclose(gradient, np.minimum(z, 0).sum((0, 1)), rtol=1e-5)


def test_a_layer_with_prelu_has_its_row_of_gradient_flow():
    model = nn.Layer(partial(nn.Dense, 4), None, nn.PReLU)
    x = images(6, 5)
    flow = gradient_flow(model, variables(model, x), x, jnp.arange(6) % 4)
    assert flow.activations == ("prelu",)
    assert np.all(np.isfinite(flow.table[:, :3]))


@pytest.mark.parametrize("name", ["relu", "tanh", "prelu"])
def test_the_record_holds_the_statistics_of_the_forward_pass(name, z):
    module = nn.Activation(name)
    made = variables(module, z)
    y, state = jax.jit(lambda v, z: module.apply(v, z, mutable=[nn.RECORD]))(made, z)
    np.testing.assert_array_equal(y, module.apply(made, z))
    assert set(state) == {nn.RECORD}
    row = state[nn.RECORD]["forward"]
    wide, after = np.asarray(z, np.float64), np.asarray(y, np.float64)
    slope = np.abs(jax.vmap(jax.grad(lambda z: module.apply(made, z).sum()))(z))
    largest, largest_after = np.abs(wide).max(), np.abs(after).max()
    expected = [
        *(wide.mean(), np.square(wide / largest).mean(), largest),
        *(after.mean(), np.square(after / largest_after).mean(), largest_after),
        *(np.mean(slope == 0), np.mean(slope < 0.1 * F.ACTIVATIONS[name].max_slope)),
        statistics.pair_correlation(z),
    ]
    np.testing.assert_allclose(row, expected, atol=1e-5)


def test_the_record_passes_no_gradient(z):
    def recorded(z):
        return nn.Activation("tanh").apply({}, z, mutable=[nn.RECORD])[1][nn.RECORD]["forward"][0]

    np.testing.assert_array_equal(jax.jit(jax.grad(recorded))(z), np.zeros_like(z))


def test_slots_are_made_where_asked_for(z):
    _, state = nn.Activation("tanh").apply({}, z, mutable=[nn.SLOTS])
    jax.tree.map(np.testing.assert_array_equal, state, {nn.SLOTS: slots()})
    assert nn.SLOTS not in shapes(nn.Activation("tanh"), z)


def test_slots_receive_both_gradients(z):
    module = nn.Activation("tanh")
    weight = images(*z.shape, seed=2)

    def objective(z, collections):
        return jnp.vdot(module.apply(collections, z), weight)

    gradient, tapped = jax.jit(jax.grad(objective, (0, 1)))(z, {nn.SLOTS: slots()})
    np.testing.assert_array_equal(gradient, jax.jit(jax.grad(objective))(z, {}))
    for name, cotangent in (("gradient", gradient), ("output_gradient", weight)):
        expected = F.scaled_moments(cotangent)
        np.testing.assert_allclose(tapped[nn.SLOTS][name], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "kind, error, text",
    [
        ("rellu", ValueError, "unknown activation 'rellu'; did you mean 'relu'. Known: elu, gelu"),
        (jnp.tanh, TypeError, "an activation must be a name or an Activation, got the function"),
        (3, TypeError, "the name of the activation must be a string, got 3"),
    ],
)
def test_errors(kind, error, text, z):
    with pytest.raises(error, match=text):
        shapes(nn.Activation(kind), z)
