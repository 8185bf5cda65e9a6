"""The compiled functions of a run: the same numbers by every placement, and evaluations of every example once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import data, models
from cnnjax import functional as F
from cnnjax.optim import Optimizer
from cnnjax.training import memory
from cnnjax.training.augmentation import Augmentation
from cnnjax.training.engine import Engine
from cnnjax.training.feed import Keys, Resident, evaluation_batch
from cnnjax.training.metrics import Tally
from cnnjax.training.parallel import make_mesh
from cnnjax.training.placement import Placement
from cnnjax.training.plan import Plan
from cnnjax.training.step import Batch, Trainer

PLAN = Plan(steps=20, batch_size=32)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def engine(digits, placement, *, plan=PLAN, **options):
    chosen = dict(
        model=models.create("cifar_resnet", depth=8, width=8),
        optimizer=Optimizer(options={"momentum": 0.9}).make(0.05),
        augmentation=Augmentation(crop=1, flip=True),
        averaging=0.9,
    )
    trainer = Trainer(num_classes=10, **{**chosen, **options})
    keys, mesh = Keys.of(plan.seed), placement.mesh(plan.batch_size)
    mirrors = trainer.augmentation.flip == "alternating"
    return Engine(trainer, Resident(digits, plan, keys, mesh, mirrors=mirrors), keys, placement, mesh)


def run(made, steps=20, calls=(3, 17)):
    state, losses, step = made.adopt(made.start()), [], 0
    for count in calls:
        state, metrics = made.advance(state, step, count)
        losses += metrics.loss.tolist()
        step += count
    assert step == steps and np.all(metrics.finite)
    return made.one(state), losses


@pytest.fixture(scope="module")
def alone(digits):
    """20 steps on one device."""
    return run(engine(digits, Placement(devices=1)))


@pytest.mark.parametrize(
    "placement",
    [
        Placement(),
        Placement(by="pmap"),
        pytest.param(Placement(model_axis=2), marks=pytest.mark.slow),
        pytest.param(Placement(by="pmap", devices=2), marks=pytest.mark.slow),
    ],
    ids=lambda placement: f"{placement.by}-{placement.devices}-{placement.model_axis}",
)
def test_every_placement_gives_the_numbers_of_one_device(digits, alone, placement):
    state, losses = run(engine(digits, placement))
    np.testing.assert_allclose(losses, alone[1], rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), state, alone[0])
    assert losses[-1] < losses[0]


def test_how_calls_are_cut_changes_nothing(digits, alone):
    state, losses = run(engine(digits, Placement(devices=1)), calls=(1, 4, 15))
    assert losses == alone[1]
    jax.tree.map(np.testing.assert_array_equal, state, alone[0])


def test_one_by_one_the_steps_are_the_same(digits, alone):
    made = engine(digits, Placement(devices=1))
    state, step = made.start(), jax.jit(made.trainer.step)
    losses = []
    for number in range(20):
        state, metrics = step(state, made.feed.batch(number), made.keys.step, made.feed.moments)
        losses.append(float(metrics.loss))
    np.testing.assert_allclose(losses, alone[1], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), state, alone[0])


@pytest.mark.parametrize("devices", [1, 8])
def test_an_evaluation_has_every_example_once(digits, devices, monkeypatch):
    # 288 images in batches of 96 or so.
    monkeypatch.setattr("cnnjax.training.feed.EVALUATION_BATCH", 100)
    made = engine(digits, Placement(devices=devices), model=small())
    one = made.start()
    found = made.evaluate(one, "validation")
    split, variables = digits.validation, one.variables()
    batch = Batch(jnp.asarray(split.images), jnp.asarray(split.labels))
    logits = jax.jit(made.trainer.logits)(variables, batch.images, made.feed.moments)
    expected = Tally.of(logits, batch.labels, F.cross_entropy(logits, batch.labels)).report()
    np.testing.assert_array_equal(found.report()["confusion"], expected["confusion"])
    assert found.report()["examples"] == len(split)
    assert found.report()["loss"] == pytest.approx(expected["loss"], rel=1e-5)


@pytest.mark.parametrize("size, devices, expected", [(288, 8, 288), (2000, 8, 504), (1, 8, 8), (501, 1, 251)])
def test_batches_of_an_evaluation_fill_the_devices(size, devices, expected):
    found = evaluation_batch(size, make_mesh(jax.devices()[:devices]))
    assert found == expected and found % devices == 0


def test_an_alternating_flip_turns_each_image_in_every_second_epoch(digits):
    plan = Plan(steps=20, batch_size=len(digits.train))
    made = engine(digits, Placement(devices=1), plan=plan, augmentation=Augmentation(flip="alternating"))
    by_example = []
    for epoch in range(3):
        row = np.asarray(made.feed.rows(jnp.int32(epoch), 1)[0])
        mirrored = np.asarray(made.feed.batch(epoch).mirrored)
        by_example.append(mirrored[np.argsort(row)])
    np.testing.assert_array_equal(by_example[0], ~by_example[1])
    np.testing.assert_array_equal(by_example[0], by_example[2])
    assert 0.4 < by_example[0].mean() < 0.6


def test_a_state_that_is_not_finite_stays_as_it_was(digits):
    def rate(step):
        return jnp.where(step < 4, 0.05, jnp.inf)

    optimizer = Optimizer(options={"momentum": 0.9}).make(rate)
    options = {"optimizer": optimizer, "model": small()}
    stops = engine(digits, Placement(devices=1), **options)
    state, metrics = stops.advance(stops.start(), 0, 8)
    assert metrics.finite.tolist() == [True] * 4 + [False] * 4
    assert int(state.step) == 4 and int(state.skipped) == 4
    before, _ = stops.advance(stops.start(), 0, 4)
    jax.tree.map(np.testing.assert_array_equal, state._replace(skipped=before.skipped), before)
    skips = engine(digits, Placement(devices=1), on_nonfinite="skip", **options)
    state, metrics = skips.advance(skips.start(), 0, 8)
    assert int(state.step) == 8 and int(state.skipped) == 4
    jax.tree.map(np.testing.assert_array_equal, state.params, before.params)
    assert np.isfinite(metrics.loss).all()


def small():
    """A network that compiles in a moment."""
    return models.create("mlp", depth=3, width=16)


def test_a_look_into_the_layers_is_that_of_the_next_step(digits):
    made = engine(digits, Placement(), model=small())
    flow = made.flow(made.start(), 0)
    assert len(flow.layers) == 3 and np.isfinite(flow.columns["gradient_log10_second_moment"]).all()


def test_what_does_not_fit_into_memory_is_known_before_it_runs(digits, monkeypatch):
    # Of activations it has more than of anything else.
    made = engine(digits, Placement(devices=2), model=models.create("plain", depth=4, width=8))
    state = made.start()
    made.prepare(state)
    need = memory.needed(made.lowered(32, False))
    data = sum(leaf.nbytes for leaf in jax.tree.leaves(made.feed.splits))
    monkeypatch.setattr(memory, "limit", lambda device: data + need * 3 // 4)
    with pytest.raises(memory.OutOfMemory, match=r"a step with a batch of 32 needs .*: a batch of (16|8|4)"):
        made.prepare(state)


def test_memory_that_runs_out_on_the_way_is_explained(digits, monkeypatch):
    made = engine(digits, Placement(devices=1), model=small())
    state = made.start()

    def full(*arguments):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 10 bytes")

    monkeypatch.setattr(type(made._steps), "__call__", full)
    with pytest.raises(memory.OutOfMemory, match="not all of it free: a batch of 16 .* would need less"):
        made.advance(state, 0, 1)
