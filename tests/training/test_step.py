"""A training step against one written out with Flax and optax, and over devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax import data, models
from cnnjax import functional as F
from cnnjax.nn import BatchNorm
from cnnjax.optim import Freeze, Optimizer
from cnnjax.training.augmentation import Augmentation
from cnnjax.training.metrics import Tally
from cnnjax.training.parallel import check_batch, jit_step, make_mesh, pmap_step, replicated, state_shardings
from cnnjax.training.step import LOSSES, Batch, Moments, Trainer

STEPS, BATCH = 20, 32
# It compiles sooner than a residual network.
PLAIN = models.create("plain", depth=3, width=8, norm="batch")


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def batches(digits, steps=STEPS, batch=BATCH):
    rows = np.asarray(
        data.batch_indices(jax.random.key(7), 0, steps=steps, size=len(digits.train), batch_size=batch)
    )
    return [Batch(jnp.asarray(digits.train.images[r]), jnp.asarray(digits.train.labels[r])) for r in rows]


def trainer(**options):
    chosen = dict(
        model=PLAIN,
        optimizer=Optimizer(options={"momentum": 0.9}, weight_decay=1e-4, decay="l2").make(0.05),
    )
    return Trainer(num_classes=10, **{**chosen, **options})


def moments_of(digits):
    return Moments(jnp.asarray(digits.mean), jnp.asarray(digits.std))


def start(made, digits):
    images = jnp.zeros((2, *digits.image_shape), jnp.float32)
    return jax.jit(made.initial)(jax.random.key(0), images)


def run(step, state, digits, key, moments):
    losses = []
    for batch in batches(digits):
        state, metrics = step(state, batch, key, moments)
        losses.append(float(metrics.loss))
    return state, np.array(losses)


def test_equals_a_loop_written_out(digits):
    made = trainer(model=models.create("cifar_resnet", depth=8, width=8), label_smoothing=0.1)
    key = jax.random.key(1)
    state = start(made, digits)
    moments = moments_of(digits)
    found, losses = run(jax.jit(made.step), state, digits, key, moments)
    params, stats = state.params, state.batch_stats
    optimizer = optax.chain(
        optax.add_decayed_weights(
            1e-4, jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
        ),
        optax.sgd(0.05, momentum=0.9),
    )

    @jax.jit
    def step(params, stats, memory, images, labels):
        def objective(params):
            x = (images.astype(jnp.float32) / 255 - digits.mean[0]) / digits.std[0]
            variables = {"params": params, "batch_stats": stats}
            logits, new = made.model.apply(variables, x, train=True, mutable=["batch_stats"])
            return F.cross_entropy(logits, labels, label_smoothing=0.1).mean(), new["batch_stats"]

        (loss, stats), gradients = jax.value_and_grad(objective, has_aux=True)(params)
        updates, memory = optimizer.update(gradients, memory, params)
        return optax.apply_updates(params, updates), stats, memory, loss

    memory, expected = optimizer.init(params), []
    for images, labels, _ in batches(digits):
        params, stats, memory, loss = step(params, stats, memory, images, labels)
        expected.append(float(loss))
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    assert losses[-1] < losses[0] and int(found.step) == STEPS
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), found.params, params)


AUGMENTED = Augmentation(crop=1, flip=True, cutout=2, mixup=0.2)


# tests/training/test_engine.py has the data axis alone, and pmap, in every run.
@pytest.mark.parametrize(
    "model_axis", [pytest.param(1, marks=pytest.mark.slow), 2], ids=["data axis", "and model axis"]
)
def test_over_eight_devices_it_is_as_on_one(digits, model_axis, monkeypatch):
    monkeypatch.setattr("cnnjax.training.parallel.SMALLEST_SHARD", 4)
    made, key, moments = (
        trainer(augmentation=AUGMENTED, averaging=0.9),
        jax.random.key(1),
        moments_of(digits),
    )
    state = start(made, digits)
    mesh = make_mesh(model=model_axis)
    assert mesh.size == 8
    expected, losses = run(jax.jit(made.step), state, digits, key, moments)
    placed = jax.device_put(state, state_shardings(state, mesh))
    step = jit_step(made, state, mesh)
    found, spread = run(step, placed, digits, key, moments)
    np.testing.assert_allclose(spread, losses, rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected)
    split = [leaf for leaf in jax.tree.leaves(found.params) if not leaf.sharding.is_fully_replicated]
    assert bool(split) == (model_axis > 1)


@pytest.mark.slow
def test_by_pmap_it_is_as_on_one_device(digits):
    made, key, moments = trainer(augmentation=AUGMENTED, averaging=0.9), jax.random.key(1), moments_of(digits)
    state = start(made, digits)
    expected, losses = run(jax.jit(made.step), state, digits, key, moments)
    found, spread = run(pmap_step(made), replicated(state), digits, key, moments)
    np.testing.assert_allclose(spread, losses, rtol=1e-5, atol=1e-5)
    for device in (0, 7):
        one = jax.tree.map(lambda x, d=device: x[d], found)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), one, expected)


def test_batch_norm_of_each_device_sees_its_part_alone(digits):
    made, key, moments = trainer(), jax.random.key(1), moments_of(digits)
    state, batch = start(made, digits), batches(digits, steps=1)[0]
    _, apart = pmap_step(made, synchronized=False)(replicated(state), batch, key, moments)
    parts = [Batch(*(x[i : i + 4] for x in batch[:2])) for i in range(0, BATCH, 4)]
    losses = [jax.jit(made.step)(state, part, key, moments)[1].loss for part in parts]
    assert float(apart.loss) == pytest.approx(float(np.mean(losses)), rel=1e-5)
    _, together = pmap_step(made)(replicated(state), batch, key, moments)
    assert abs(float(together.loss) - float(apart.loss)) > 1e-3


def test_a_step_depends_on_its_number_and_not_on_when_it_is_taken(digits):
    made, key, moments = trainer(augmentation=AUGMENTED), jax.random.key(1), moments_of(digits)
    step = jax.jit(made.step)
    batch = batches(digits, steps=1)[0]
    state, first = step(start(made, digits), batch, key, moments)
    again, second = step(start(made, digits), batch, key, moments)
    assert first.loss == second.loss
    later, third = step(start(made, digits)._replace(step=jnp.int32(5)), batch, key, moments)
    assert third.loss != first.loss


def test_moving_averages(digits):
    made, key, moments = trainer(averaging=0.9), jax.random.key(1), moments_of(digits)
    state = start(made, digits)
    expected = jax.tree.map(np.asarray, state.variables())
    step = jax.jit(made.step)
    for number, batch in enumerate(batches(digits, steps=4)):
        state, _ = step(state, batch, key, moments)
        decay = min(0.9, (1 + number) / (10 + number))
        expected = jax.tree.map(lambda a, b, d=decay: d * a + (1 - d) * b, expected, state.variables())
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        state.variables(averaged=True),
        expected,
    )
    assert start(trainer(), digits).average == {}


@pytest.mark.parametrize(
    "loss", [pytest.param(loss, marks=[pytest.mark.slow] if loss == "focal" else []) for loss in LOSSES]
)
def test_every_loss_falls(digits, loss):
    made, key, moments = trainer(loss=loss), jax.random.key(1), moments_of(digits)
    step, state, found = jax.jit(made.step), start(made, digits), []
    for batch in batches(digits, steps=12):
        state, metrics = step(state, batch, key, moments)
        found.append(float(metrics.loss))
    assert np.mean(found[-3:]) < np.mean(found[:3]) and metrics.gradient_norm > 0


def test_evaluation_is_that_of_running_statistics(digits):
    made, moments = trainer(), moments_of(digits)
    state = start(made, digits)
    batch = Batch(jnp.asarray(digits.test.images[:50]), jnp.asarray(digits.test.labels[:50]))
    found = jax.jit(functools.partial(made.evaluate, state.variables()))(batch, moments)
    logits = made.model.apply(state.variables(), data.normalize(batch.images, *moments), train=False)
    expected = Tally.of(logits, batch.labels, F.cross_entropy(logits, batch.labels))
    assert found.metrics()["loss"] == pytest.approx(expected.metrics()["loss"], rel=1e-4)


@pytest.mark.parametrize(
    "act, text",
    [
        (lambda: trainer(loss="cross_entrpy"), "did you mean 'cross_entropy'"),
        (lambda: trainer(label_smoothing=1.0), r"label_smoothing must lie in \[0, 1\), got 1.0"),
        (lambda: trainer(averaging=-0.1), r"averaging must lie in \[0, 1\)"),
        (lambda: make_mesh(model=3), "8 devices cannot be divided into groups of 3"),
        (
            lambda: pmap_step(trainer(model=models.create("cifar_resnet", norm=BatchNorm))),
            "synchronized=True needs a norm given by name",
        ),
        (lambda: check_batch(100, 8), "a batch of 100 cannot be divided among 8 devices: use 96, or fewer"),
    ],
)
def test_what_does_not_fit_is_named(act, text):
    with pytest.raises(ValueError, match=text):
        act()


def test_no_gradient_is_computed_for_what_is_frozen(digits):
    key, moments, batch = jax.random.key(1), moments_of(digits), batches(digits, steps=1)[0]
    optimizer = Optimizer(options={"momentum": 0.9}, rates={"stem": 0.0, "stack": 0.0})
    found = {}
    for frozen in (Freeze(()), optimizer.frozen):
        made = trainer(optimizer=optimizer.make(0.05), frozen=frozen)
        state = start(made, digits)
        lowered = jax.jit(made.step).lower(state, batch, key, moments)
        new, metrics = lowered.compile()(state, batch, key, moments)
        found[bool(frozen.patterns)] = (
            new,
            float(metrics.gradient_norm),
            lowered.as_text().count("convolution"),
        )
    (free, norm, convolutions), (new, smaller, fewer) = found[False], found[True]
    # What was computed for nothing was thrown away.
    jax.tree.map(np.testing.assert_array_equal, new.params, free.params)
    assert smaller < norm and fewer <= convolutions / 2
    jax.tree.map(np.testing.assert_array_equal, new.params["stem"], state.params["stem"])
