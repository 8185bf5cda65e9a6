import re
from functools import partial

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnjax import functional as F
from cnnjax import initializers, nn

from ..drawn import images, shapes, variables

WIDTH = 4
X = images(3, WIDTH)
MUTABLE = ["batch_stats", nn.RECORD]


class Noisy(linen.Module):
    """A block with every kind of variable: parameters, a learned slope, running statistics, probes."""

    @linen.compact
    def __call__(self, x, *, train=False):
        act = partial(nn.Activation, "prelu")
        return nn.Layer(partial(nn.Dense, WIDTH), nn.BatchNorm, act, name="layer")(x, residual=x, train=train)


def stack(length, **options):
    return nn.Stack(Noisy, length, **options)


def gradients(module, made):
    """Gradients with respect to the input, the parameters and the slots, the output, and what moved."""
    slots = module.apply(made, X, train=True, mutable=[nn.SLOTS, *MUTABLE])[1][nn.SLOTS]

    def objective(x, params, slots):
        collections = {**made, "params": params, nn.SLOTS: slots}
        y, state = module.apply(collections, x, train=True, mutable=MUTABLE)
        return jnp.sum(jnp.sin(y)), (y, state)

    return jax.grad(objective, (0, 1, 2), has_aux=True)(X, made["params"], slots)


def close(actual, expected):
    # Sums in another order: a few layers of them, each within 2^-23 of its terms.
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", [1, 4, 5])
def test_scanned_unrolled_and_checkpointed_are_the_same(length):
    made = variables(stack(length), X, gain=0.5)
    apart = {name: nn.unstack(tree) for name, tree in made.items()}

    @jax.jit
    def compute(made, apart):
        scanned = [gradients(stack(length, remat=remat), made) for remat in (False, True)]
        return *scanned, gradients(stack(length, scan=False), apart)

    scanned, checkpointed, unrolled = compute(made, apart)
    jax.tree.map(close, checkpointed, scanned)
    (to_x, to_params, to_slots), (y, state) = unrolled
    assert set(state) == set(MUTABLE)
    restacked = {name: nn.restack(tree) for name, tree in state.items()}
    jax.tree.map(close, ((to_x, nn.restack(to_params), nn.restack(to_slots)), (y, restacked)), scanned)


def test_a_stack_is_its_blocks_one_after_the_other():
    module = nn.Stack(partial(nn.Layer, partial(nn.Dense, WIDTH)), 3)
    made = variables(module, X)
    x = X
    for i in range(3):
        block = jax.tree.map(lambda leaf, i=i: leaf[i], made["params"]["block"]["linear"])
        x = F.relu(x @ block["kernel"] + block["bias"].reshape(1, -1))
    close(module.apply(made, X), x)


def test_unstack_and_restack_are_inverse():
    made = variables(stack(3), X)
    for tree in made.values():
        apart = nn.unstack(tree)
        assert list(apart) == ["block_0", "block_1", "block_2"]
        jax.tree.map(np.testing.assert_array_equal, nn.restack(apart), tree)
    unrolled = shapes(stack(3, scan=False), X)
    assert jax.tree.map(jnp.shape, {name: nn.unstack(tree) for name, tree in made.items()}) == jax.tree.map(
        lambda leaf: leaf.shape, unrolled
    )


@pytest.mark.parametrize("remat", [False, True])
def test_every_block_draws_its_own_parameters(remat):
    def kernel_init(**options):
        return lambda key, shape, dtype: jnp.full(shape, jax.random.bits(key) >> 8, dtype)

    block = partial(nn.Layer, partial(nn.Dense, WIDTH, kernel_init=kernel_init))
    made = nn.Stack(block, 5, remat=remat).init(jax.random.key(0), X)
    kernels = made["params"]["block"]["linear"]["kernel"]
    assert kernels.shape == (5, WIDTH, WIDTH)
    assert len(np.unique(kernels)) == 5


def test_every_block_drops_its_own_entries():
    class Drop(linen.Module):
        @linen.compact
        def __call__(self, x, *, train=False):
            return nn.Dropout(0.5)(x, train=train)

    x = jnp.ones((8, 64))
    for remat in (False, True):
        module = nn.Stack(Drop, 4, remat=remat)

        @jax.jit
        def compute(x, key, module=module):
            y, pull = jax.vjp(lambda x: module.apply({}, x, train=True, rngs={"dropout": key}), x)
            return y, pull(x)[0]

        y, gradient = compute(x, jax.random.key(0))
        # One mask for all would leave half of them. Five deviations: 5 sqrt(15 / 16^2 / 512) = 0.054.
        assert np.mean(y != 0) == pytest.approx(1 / 16, abs=0.054)
        # What is recomputed drops the same entries: y is linear in x.
        np.testing.assert_array_equal(gradient, y)


@pytest.mark.parametrize("scan", [True, False])
def test_a_stack_of_nothing_is_the_identity(scan):
    module = stack(0, scan=scan)
    assert shapes(module, X) == {}
    assert module.apply({}, X) is X


@pytest.mark.parametrize("scan", [True, False])
def test_a_negative_length_is_an_error(scan):
    with pytest.raises(ValueError, match="a stack has 0 blocks or more; got length=-1"):
        shapes(stack(-1, scan=scan), X)


def test_prelu_in_a_stack_learns_in_every_layer():
    module = stack(3)
    made = variables(module, X)
    (_, params, _), _ = jax.jit(partial(gradients, module))(made)
    slopes = params["block"]["layer"]["act"]["slope"]
    assert slopes.shape == (3, WIDTH)
    assert np.all(np.any(slopes != 0, axis=1))


def kept(length, **options):
    """How many arrays of the input's size the backward pass finds, of any shape."""
    module = nn.Stack(
        partial(nn.Layer, partial(nn.Dense, WIDTH), act=partial(nn.Activation, "tanh")), length, **options
    )
    x = jnp.zeros((50, WIDTH))
    made = variables(module, x)
    residuals = jax.eval_shape(lambda x: jax.vjp(lambda x: module.apply(made, x), x)[1], x)
    return sum(leaf.size for leaf in jax.tree.leaves(residuals) if 50 in leaf.shape) / x.size


def test_remat_keeps_the_square_root_of_the_depth():
    assert kept(64) >= 64
    assert kept(64, remat=True) <= 8 + 1
    assert kept(256, remat=True) <= 16 + 1
    assert kept(251, remat=True) <= 1.5 * 251**0.5 + 1


# Chunks hold the layers, and few besides; a prime number of layers does not fit.
CHUNKS = [(1, 1, 1), (2, 1, 2), (7, 2, 4), (12, 3, 4), (64, 8, 8), (997, 37, 27), (1000, 25, 40)]


@pytest.mark.parametrize("length, chunk, chunks", CHUNKS)
def test_chunks_are_near_the_square_root(length, chunk, chunks):
    x = jnp.zeros((1, WIDTH))
    module = nn.Stack(partial(nn.Layer, partial(nn.Dense, WIDTH)), length, remat=True)
    text = str(jax.make_jaxpr(module.apply)(shapes(module, x), x))
    assert set(re.findall(r"length=(\d+)", text)) == {str(chunk), str(chunks)}
    assert 0 <= chunk * chunks - length <= 2


@pytest.mark.parametrize("remat", [False, True])
def test_the_program_does_not_grow_with_depth(remat):
    def size(length):
        module = stack(length, remat=remat)

        def gradient(made, x):
            return jax.grad(lambda x: jnp.sum(module.apply(made, x)))(x)

        return str(jax.make_jaxpr(gradient)(shapes(module, X), X)).count(" = ")

    assert size(10_000) == size(100)


@pytest.mark.parametrize("remat", [False, True])
def test_collections_and_streams_of_your_own(remat):
    class Own(linen.Module):
        @linen.compact
        def __call__(self, x, *, train=False):
            calls = self.variable("calls", "count", jnp.zeros, (), jnp.int32)
            if not self.is_initializing():
                calls.value += 1
            self.sow("intermediates", "bits", jax.random.bits(self.make_rng("noise")))
            return x

    module = nn.Stack(Own, 4, remat=remat)
    rngs = {"noise": jax.random.key(0)}
    made = module.init(rngs, X)
    _, state = module.apply({"calls": made["calls"]}, X, rngs=rngs, mutable=True)
    np.testing.assert_array_equal(state["calls"]["block"]["count"], np.ones(4))
    assert len(np.unique(state["intermediates"]["block"]["bits"][0])) == 4


def test_an_nnx_module_wraps_a_stack():
    kernel_init = partial(initializers.constant, 0.3)
    block = partial(
        nn.Layer, lambda **o: nn.Dense(WIDTH, kernel_init=lambda: kernel_init(), **o), nn.BatchNorm
    )
    module = nn.Stack(block, 3)
    wrapped = nnx.bridge.ToNNX(module, rngs=nnx.Rngs(0)).lazy_init(X)
    made = module.init(jax.random.key(0), X)
    assert wrapped.block["linear"]["kernel"].shape == (3, WIDTH, WIDTH)
    np.testing.assert_array_equal(wrapped(X), module.apply(made, X))
    y, moved = module.apply(made, X, train=True, mutable=["batch_stats"])
    np.testing.assert_array_equal(wrapped(X, train=True, mutable=["batch_stats"]), y)
    np.testing.assert_array_equal(
        wrapped.block["norm"]["mean"][...], moved["batch_stats"]["block"]["norm"]["mean"]
    )


def test_a_block_may_take_several_numbers():
    class Affine(linen.Module):
        @linen.compact
        def __call__(self, x, *, rate, train=False):
            factor, term = rate
            return x * factor + term

    rates = [(2.0, 1.0), (3.0, -1.0), (0.5, 4.0)]
    expected = ((X * 2 + 1) * 3 - 1) * 0.5 + 4
    for options in ({}, {"scan": False}, {"remat": True}):
        np.testing.assert_allclose(nn.Stack(Affine, 3, rates, **options).apply({}, X), expected, rtol=1e-6)
