from functools import partial

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.errors import InvalidRngError
from flax.traverse_util import flatten_dict

from cnnjax import functional as F
from cnnjax import models, nn
from cnnjax.training import freeze

from ..drawn import images, shapes, variables

MODEL = models.create("plain", depth=4, width=4, norm="batch", num_classes=3)
IMAGES, LABELS = images(6, 6, 6, 1), jnp.arange(6) % 3
PARAMS = shapes(MODEL, IMAGES)["params"]
OPTIMIZERS = {
    "momentum with L2": optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1, momentum=0.9)),
    "adam, clipped": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)),
    "adamw": optax.adamw(0.1, weight_decay=0.1),
}


def paths(tree, *, where=lambda leaf: True):
    return {"/".join(path) for path, leaf in flatten_dict(tree).items() if where(leaf)}


def bits(array):
    return np.asarray(array).view(np.uint32)


def changed(before, after):
    """The paths at which not every number has kept its bits."""
    before, after = flatten_dict(before), flatten_dict(after)
    assert before.keys() == after.keys()
    return {"/".join(path) for path in before if not np.array_equal(bits(before[path]), bits(after[path]))}


def passed(model, frozen, made):
    """The gradient and the statistics of a training step."""

    def loss(params):
        given = {**made, "params": params}
        logits, new = frozen.apply(model, given, IMAGES, train=True, mutable=["batch_stats"])
        return F.cross_entropy(logits, LABELS).mean(), new["batch_stats"]

    return jax.grad(loss, has_aux=True)(made["params"])


@pytest.mark.usefixtures("optax_promotes")
@pytest.mark.parametrize(
    ("patterns", "stays"),
    [
        (["stem", "stack/**"], lambda path: not path.startswith("head")),
        # A norm whose scale is trained still follows the batch.
        (["**/kernel", "stem/norm/bias"], lambda path: path.endswith("kernel") or path == "stem/norm/bias"),
        ("**/norm", lambda path: "/norm/" in path),
    ],
    ids=["layers", "kernels", "norms"],
)
def test_what_is_frozen_stays_bit_equal(patterns, stays):
    frozen = freeze(patterns)
    made = variables(MODEL, IMAGES)
    # Numbers that adding a zero may change.
    kernel = made["params"]["stem"]["linear"]["kernel"]
    made["params"]["stem"]["linear"]["kernel"] = kernel.at[0, 0, 0, :3].set(
        jnp.float32([-0.0, 1e-40, -1e-45])
    )
    differentiate = jax.jit(partial(passed, MODEL, frozen))
    for optimizer in OPTIMIZERS.values():
        optimizer = frozen.optimizer(optimizer)

        @jax.jit
        def update(gradients, memory, params, optimizer=optimizer):
            updates, memory = optimizer.update(gradients, memory, params)
            return optax.apply_updates(params, updates), memory

        now, memory = made, optimizer.init(made["params"])
        for _ in range(3):
            gradients, stats = differentiate(now)
            params, memory = update(gradients, memory, now["params"])
            now = {"params": params, "batch_stats": stats}
        trained = {path for path in paths(made["params"]) if not stays(path)}
        assert changed(made["params"], now["params"]) == trained
        moving = {path for path in paths(made["batch_stats"]) if not stays(path)}
        assert changed(made["batch_stats"], now["batch_stats"]) == moving


@pytest.mark.usefixtures("optax_promotes")
def test_nothing_frozen_moves_everything():
    made = variables(MODEL, IMAGES)
    optimizer = freeze(()).optimizer(OPTIMIZERS["adamw"])
    gradients = jax.tree.map(np.zeros_like, made["params"])

    @jax.jit
    def update(params):
        return optax.apply_updates(params, optimizer.update(gradients, optimizer.init(params), params)[0])

    # Weight decay alone.
    assert changed(made["params"], update(made["params"])) == paths(made["params"])


@pytest.mark.parametrize("options", [{}, {"scan": False}, {"remat": True}], ids=str)
def test_frozen_norms_are_in_evaluation_mode_however_a_stack_runs(options):
    model = models.create("plain", depth=4, width=2, norm="batch", **options)
    made = variables(model, IMAGES)

    @jax.jit
    def both(made):
        frozen = freeze("**/norm").apply(model, made, IMAGES, train=True, mutable=["batch_stats"])
        return frozen, model.apply(made, IMAGES)

    (logits, new), expected = both(made)
    np.testing.assert_array_equal(logits, expected)
    assert not changed(made["batch_stats"], new["batch_stats"])


def test_dropout_of_frozen_modules_rests():
    class Dropping(linen.Module):
        @linen.compact
        def __call__(self, x, *, train=False):
            return nn.Dropout(0.5)(nn.Dense(4, name="dense")(x), train=train)

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x, *, train=False):
            return Dropping(name="second")(Dropping(name="first")(x, train=train), train=train)

    rows = images(2, 3)
    made = variables(Net(), rows)
    # Without a random stream whatever is dropped is an error.
    freeze("**").apply(Net(), made, rows, train=True)
    with pytest.raises(InvalidRngError):
        freeze("first").apply(Net(), made, rows, train=True)
    with pytest.raises(InvalidRngError):
        freeze("**/kernel").apply(Net(), made, rows, train=True)


def convolutions(function, *arguments):
    return str(jax.make_jaxpr(function)(*arguments)).count("conv_general_dilated")


def test_no_backward_pass_below_the_first_trained_layer():
    made = variables(MODEL, IMAGES)
    forward = convolutions(lambda v: MODEL.apply(v, IMAGES), made)
    assert convolutions(partial(passed, MODEL, freeze("**", but="head")), made) == forward
    assert convolutions(partial(passed, MODEL, freeze(())), made) > forward


@pytest.mark.usefixtures("optax_promotes")
def test_optimizers_never_see_what_is_frozen():
    params = {"a": jnp.full(3, 3.0), "b": jnp.full(4, 3.0)}
    optimizer = freeze("a").optimizer(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)))
    assert optax.tree.get(optimizer.init(params), "mu")["a"] == optax.MaskedNode()
    clipped = freeze("a").optimizer(optax.clip_by_global_norm(1.0))
    updates, _ = clipped.update(params, clipped.init(params))
    # |b| alone is 6.
    np.testing.assert_allclose(updates["b"], 0.5, rtol=1e-6)
    np.testing.assert_array_equal(updates["a"], 0)


@pytest.mark.parametrize(
    ("patterns", "but", "expected"),
    [
        ("stem", (), {"stem/linear/kernel", "stem/norm/scale", "stem/norm/bias"}),
        ("stem/", (), {"stem/linear/kernel", "stem/norm/scale", "stem/norm/bias"}),
        ("stem/*", "stem/norm", {"stem/linear/kernel"}),
        ("*/linear/kernel", (), {"stem/linear/kernel", "head/linear/kernel"}),
        ("**/kernel", (), {f"{name}/linear/kernel" for name in ("stem", "stack/block/layer", "head")}),
        ("stack/**/scale", (), {"stack/block/layer/norm/scale"}),
        ("st*/norm/[sb]*", "**/bias", {"stem/norm/scale"}),
        (["head", "stem/norm/scale"], "**/bias", {"head/linear/kernel", "stem/norm/scale"}),
        ("**", ("stem", "stack"), {"head/linear/kernel", "head/linear/bias"}),
        ((), (), set()),
    ],
)
def test_patterns(patterns, but, expected):
    trained = freeze(patterns, but=but).trained(PARAMS)
    assert paths(trained, where=lambda one: not one) == expected


@pytest.mark.parametrize(
    ("patterns", "text"),
    [
        ("stom", "the pattern 'stom' matches no parameter; nearest: 'stem', .*"),
        ("stack/blok/**", "'stack/blok/.*' matches no parameter; nearest: 'stack/block'.*"),
        (
            ["stem", "stack[0]/layer"],
            r"nearest: 'stack/block/layer'.*\(the blocks .*; scan=False has them apart\)",
        ),
        (["stem", ""], "the pattern '' matches no parameter; nearest: "),
    ],
)
def test_a_pattern_that_matches_nothing(patterns, text):
    made = variables(MODEL, IMAGES)
    frozen, unfrozen = freeze(patterns), freeze("**", but=patterns)
    for call in (
        lambda: frozen.trained(PARAMS),
        lambda: unfrozen.trained(PARAMS),
        lambda: frozen.optimizer(optax.sgd(0.1)).init(PARAMS),
        lambda: frozen.apply(MODEL, made, IMAGES),
    ):
        with pytest.raises(ValueError, match=text):
            call()


def test_something_must_be_left_to_train():
    with pytest.raises(ValueError, match=r"\['\*\*'\] freezes every parameter: leave some to train"):
        freeze("**").optimizer(optax.sgd(0.1)).init(PARAMS)


def test_a_pattern_is_a_string():
    with pytest.raises(TypeError, match="a pattern is a path in the parameters.*got 3"):
        freeze(["stem", 3])
