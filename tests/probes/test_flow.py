from functools import partial

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from cnnjax import functional as F
from cnnjax import models, nn
from cnnjax.probes import COLUMNS, Recorder, gradient_flow
from cnnjax.probes.flow import KERNEL_COLUMNS

from ..drawn import images, shapes, variables
from .test_points import Outer

IMAGES, LABELS = images(8, 4, 4, 3), jnp.arange(8) % 5
NETS = {
    "plain": models.create("plain", depth=4, width=4, num_classes=5, activation="tanh"),
    "batch_norm_and_skip": models.create("mlp", depth=4, width=6, num_classes=5, norm="batch", skip=True),
}


def close(actual, expected):
    # In float32, logarithms to base 10 of numbers that differ by 1e-4 of themselves differ by 4e-5.
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=5e-5)


def written_out(tree):
    """Variables of a scanned model as those of its twin with `scan=False`, the outer stacks first."""
    if not isinstance(tree, dict):
        return tree
    if set(tree) == {"block"}:
        tree = nn.unstack(tree)
    return {name: written_out(child) for name, child in tree.items()}


# The numbers.


def log10_rms(x):
    return np.log10(np.mean(np.square(np.asarray(x, np.float64))))


def log10_norm(x):
    return np.log10(np.linalg.norm(np.asarray(x, np.float64)))


def by_hand(params, x, labels):
    """Every column for a tanh MLP of two hidden layers, each gradient that of a perturbation of its own."""
    names = ("stem", "stack", "head")
    linear = {"stem": params["stem"], "stack": params["stack"]["block"]["layer"], "head": params["head"]}
    linear = {name: jax.tree.map(jnp.squeeze, linear[name]["linear"]) for name in names}

    def forward(linear, shifts, output_shifts):
        y, pre, post = x.reshape(len(x), -1), {}, {}
        for name in names:
            pre[name] = y @ linear[name]["kernel"] + linear[name]["bias"].reshape(1, -1) + shifts[name]
            post[name] = (pre[name] if name == "head" else jnp.tanh(pre[name])) + output_shifts[name]
            y = post[name]
        return jnp.mean(F.cross_entropy(y, labels)), (pre, post)

    still = {name: jnp.zeros((len(x), linear[name]["bias"].size)) for name in names}
    gradients, (pre, post) = jax.jit(jax.grad(forward, (0, 1, 2), has_aux=True))(linear, still, still)
    to_linear, to_pre, to_post = gradients
    rows = []
    for name in names:
        z, kernel = np.asarray(pre[name], np.float64), linear[name]["kernel"]
        slope = np.ones_like(z) if name == "head" else 1 - np.tanh(z) ** 2
        pairs = zip(z, np.roll(z, -1, 0), strict=True)
        rows.append(
            {
                "mean": z.mean(),
                "log10_second_moment": log10_rms(z),
                "dead": 0.0,
                "saturated": np.mean(slope < 0.1),
                "correlation": np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]),
                "output_mean": np.mean(post[name]),
                "output_log10_second_moment": log10_rms(post[name]),
                "gradient_mean": np.mean(to_pre[name]),
                "gradient_log10_second_moment": log10_rms(to_pre[name]),
                "gradient_log10_max": np.log10(np.abs(to_pre[name]).max()),
                "output_gradient_mean": np.mean(to_post[name]),
                "output_gradient_log10_second_moment": log10_rms(to_post[name]),
                "output_gradient_log10_max": np.log10(np.abs(to_post[name]).max()),
                "kernel_log10_norm": log10_norm(kernel),
                "kernel_gradient_log10_norm": log10_norm(to_linear[name]["kernel"]),
                "gradient_to_kernel_log10": log10_norm(to_linear[name]["kernel"]) - log10_norm(kernel),
                "update_to_kernel_log10": np.nan,
            }
        )
    return rows


def test_every_column_against_the_same_by_hand():
    model = models.create("mlp", depth=3, width=6, num_classes=5, activation="tanh")
    made = variables(model, IMAGES, gain=2.0)
    flow = jax.jit(partial(gradient_flow, model))(made, IMAGES, LABELS)
    assert flow.layers == ("stem", "stack[0]/layer", "head")
    expected = by_hand(made["params"], IMAGES, LABELS)
    assert set(flow.columns) == set(COLUMNS) == set(expected[0])
    for name in COLUMNS:
        close(flow.columns[name], [row[name] for row in expected])


def test_updates_are_compared_with_kernels_where_there_are_any():
    class Tail(linen.Module):
        @linen.compact
        def __call__(self, x, *, train=False):
            x = nn.Stack(partial(nn.Layer, partial(nn.Dense, 4)), 3, name="stack")(x)
            return nn.Activation("tanh", name="tail")(x)

    x = images(2, 4)
    params, gradients = (variables(Tail(), x, seed=seed)["params"] for seed in (0, 1))
    recorder = Recorder.of(Tail(), {"params": params}, x)
    _, state = Tail().apply({"params": params}, x, mutable=[nn.RECORD])
    updates = jax.tree.map(lambda g: -0.01 * g, gradients)
    flow = jax.jit(recorder.flow)(state[nn.RECORD], recorder.new_slots(), params, gradients, updates)
    assert flow.layers == ("stack[0]", "stack[1]", "stack[2]", "tail")
    columns = {name: np.asarray(flow.columns[name]) for name in KERNEL_COLUMNS}
    assert all(np.isnan(column[3]) for column in columns.values())
    kernels, moved = (tree["stack"]["block"]["linear"]["kernel"] for tree in (params, gradients))
    close(columns["kernel_log10_norm"][:3], [log10_norm(kernel) for kernel in kernels])
    close(columns["kernel_gradient_log10_norm"][:3], [log10_norm(gradient) for gradient in moved])
    close(columns["update_to_kernel_log10"], columns["gradient_to_kernel_log10"] - 2)


def test_the_first_update_of_an_optimizer():
    model = models.create("mlp", depth=3, width=6, num_classes=5)
    made = variables(model, IMAGES)
    flow = jax.jit(partial(gradient_flow, model, optimizer=optax.sgd(0.1, momentum=0.9)))(
        made, IMAGES, LABELS
    )
    close(flow.columns["update_to_kernel_log10"], flow.columns["gradient_to_kernel_log10"] - 1)


def test_labels_out_of_range_and_variables_without_params():
    model = models.create("mlp", depth=2, width=6, num_classes=5)
    made = variables(model, IMAGES)
    with pytest.raises(ValueError, match="5"):
        gradient_flow(model, made, IMAGES, LABELS.at[3].set(5))
    with pytest.raises(ValueError, match="must hold the collection 'params', as model.init makes them; got"):
        gradient_flow(model, made["params"], IMAGES, LABELS)


def test_a_recorder_may_be_a_static_argument():
    model = models.create("mlp", depth=2, width=6, num_classes=5)
    recorder = Recorder.of(model, shapes(model, IMAGES), IMAGES)
    jax.jit(lambda recorder: recorder.new_slots(), static_argnums=0)(recorder)


def test_the_loss_and_training_may_be_chosen():
    model = models.create("mlp", depth=2, width=6, num_classes=5, norm="batch")
    made, targets = variables(model, IMAGES), images(8, 5, seed=3)

    def loss(logits, targets):
        return jnp.sum(jnp.square(logits - targets), -1)

    @jax.jit
    def compute(made):
        flows = [
            gradient_flow(model, made, IMAGES, targets, loss=loss, train=train) for train in (True, False)
        ]
        return flows, [model.apply(made, IMAGES, train=train) for train in (True, False)]

    for flow, logits in zip(*compute(made), strict=True):
        # The head's pre-activations are the logits: their gradient is 2 (logits - targets) / batch.
        close(flow.columns["gradient_log10_second_moment"][-1], log10_rms(2 * (logits - targets) / 8))


# The contract.


@pytest.mark.parametrize("name", NETS)
def test_probes_change_no_gradient(name):
    model, made = NETS[name], variables(NETS[name], IMAGES)
    rest = {key: tree for key, tree in made.items() if key != "params"}
    slots = Recorder.of(model, made, IMAGES).new_slots()

    def objective(params, x, probes, mutable):
        collections = {"params": params, **rest, **probes}
        logits, state = model.apply(collections, x, train=True, mutable=["batch_stats", *mutable])
        return jnp.mean(F.cross_entropy(logits, LABELS)), (logits, state.get("batch_stats"))

    differentiate = jax.jit(jax.value_and_grad(objective, (0, 1), has_aux=True), static_argnums=3)
    plain = differentiate(made["params"], IMAGES, {}, ())
    probed = differentiate(made["params"], IMAGES, {nn.SLOTS: slots}, (nn.RECORD,))
    jax.tree.map(np.testing.assert_array_equal, probed, plain)


@pytest.fixture(scope="module", params=NETS)
def single(request):
    """A net, its variables, and its flow inside jit."""
    model = NETS[request.param]
    made = variables(model, IMAGES)
    return model, made, jax.device_get(jax.jit(partial(gradient_flow, model))(made, IMAGES, LABELS))


def test_unrolled_and_checkpointed_agree_with_scanned(single):
    model, made, flow = single

    @jax.jit
    def variants(made):
        return (
            gradient_flow(model.clone(scan=False, remat=True), written_out(made), IMAGES, LABELS),
            gradient_flow(model.clone(remat=True), made, IMAGES, LABELS),
        )

    for other in variants(made):
        assert other.layers == flow.layers
        assert other.activations == flow.activations
        jax.tree.map(close, other.columns, flow.columns)


def test_over_eight_devices_it_is_the_same(single):
    model, made, flow = single
    assert len(jax.devices()) == 8
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    batch = jax.device_put((IMAGES, LABELS), NamedSharding(mesh, PartitionSpec("batch")))
    whole = jax.device_put(made, NamedSharding(mesh, PartitionSpec()))
    sharded = jax.jit(partial(gradient_flow, model))(whole, *batch)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), sharded.columns, flow.columns)


def test_under_checkpoint_vmap_and_map_it_is_the_same():
    model = NETS["batch_norm_and_skip"]
    made = variables(model, IMAGES)

    @jax.jit
    def variants(made):
        twice = jax.tree.map(lambda leaf: jnp.stack([2 * leaf, leaf]), made)

        def probe(made):
            return gradient_flow(model, made, IMAGES, LABELS)

        mapped = jax.vmap(probe)(twice), jax.lax.map(probe, twice)
        second = [jax.tree.map(lambda leaf: leaf[1], each) for each in mapped]
        return probe(made), jax.checkpoint(probe)(made), *second

    flow, *others = variants(made)
    for other in others:
        jax.tree.map(close, other.columns, flow.columns)


def test_nested_stacks_agree_with_the_written_out():
    x, labels = images(8, 4), jnp.arange(8) % 4
    made = variables(Outer(), x, gain=1.5)

    @jax.jit
    def both(made):
        apart = gradient_flow(Outer(scan=False), written_out(made), x, labels)
        return gradient_flow(Outer(), made, x, labels), apart

    scanned, unrolled = both(made)
    assert scanned.layers == unrolled.layers
    jax.tree.map(close, scanned.columns, unrolled.columns)


def test_what_is_absent_costs_nothing():
    model = NETS["plain"]
    made = variables(model, IMAGES)

    def program(made, x):
        return jax.grad(lambda params: jnp.sum(model.apply({"params": params}, x)))(made["params"])

    text = str(jax.make_jaxpr(program)(made, IMAGES))
    assert "custom_vjp" not in text and "log" not in text
    assert set(shapes(model, IMAGES)) == {"params"}


def test_deep_gradients_are_numbers_far_below_float32():
    model = models.create("mlp", depth=30, width=6, activation="sigmoid", num_classes=5)
    made = variables(model, IMAGES, gain=0.5)
    moments = jax.jit(partial(gradient_flow, model))(made, IMAGES, LABELS).columns[
        "gradient_log10_second_moment"
    ]
    assert np.all(np.isfinite(moments))
    # float32 ends at 1e-45, and the squares that this is the mean of with it.
    assert moments[0] < -50


# The frame.


def test_a_frame_has_a_row_for_each_layer(single):
    *_, flow = single
    frame = flow.frame()
    assert list(frame.columns) == ["layer", "path", "activation", *COLUMNS]
    assert list(frame["layer"]) == list(range(len(flow.layers)))
    assert tuple(frame["path"]) == flow.layers
    assert tuple(frame["activation"]) == flow.activations
    for name in COLUMNS:
        np.testing.assert_array_equal(frame[name], flow.columns[name])


def test_a_frame_is_of_one_run(single):
    *_, flow = single
    batched = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), flow)
    with pytest.raises(
        ValueError, match=r"select one run first, as in jax.tree.map\(lambda a: a\[0\], flow\)"
    ):
        batched.frame()
    assert jax.tree.map(lambda leaf: leaf[0], batched).frame().equals(flow.frame())
