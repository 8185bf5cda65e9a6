"""Optimizers and schedules against their formulas, alone and in the engine."""

from types import SimpleNamespace

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax import data, models
from cnnjax import functional as F
from cnnjax.optim import Optimizer, Schedule
from cnnjax.study import OPTIMIZERS, SCHEDULES, RunDevices, Study, run

RATE, STEPS = 0.01, 6
# What a study is run with; the constant rate with momentum is in test_run.py. An epoch has 6 steps.
TRAINED = {
    "nesterov": ("nesterov", "linear"),
    "adamw": ("adamw", "cosine"),
    "clipped": (
        Optimizer(options={"momentum": 0.9}, clip="norm", clip_at=0.5),
        Schedule(name="linear", warmup="0.5 epochs"),
    ),
}
# By name, the rate of step t of `STEPS`.
RATES = {
    "constant": lambda t: RATE,
    "cosine": lambda t: RATE * (1 + np.cos(np.pi * t / STEPS)) / 2,
    "linear": lambda t: RATE * (1 - t / STEPS),
}


@pytest.fixture(scope="module", autouse=True)
def promotion():
    """Optax promotes types; the engine compiles in threads, which see the configuration and no context manager."""
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    yield
    jax.config.update("jax_numpy_dtype_promotion", "strict")


def sgd(memory, p, g, t):
    return g


def momentum(memory, p, g, t):
    memory.m = 0.9 * memory.m + g
    return memory.m


def nesterov(memory, p, g, t):
    return g + 0.9 * momentum(memory, p, g, t)


def adam(memory, p, g, t):
    memory.m = 0.9 * memory.m + 0.1 * g
    memory.v = 0.999 * memory.v + 0.001 * g**2
    return memory.m / (1 - 0.9 ** (t + 1)) / (np.sqrt(memory.v / (1 - 0.999 ** (t + 1))) + 1e-8)


def adamw(memory, p, g, t):
    return adam(memory, p, g, t) + 1e-4 * p


def rmsprop(memory, p, g, t):
    memory.v = 0.9 * memory.v + 0.1 * g**2
    return g / np.sqrt(memory.v + 1e-8)


def clipped(memory, p, g, t):
    return momentum(memory, p, g * min(1, 0.5 / np.linalg.norm(g)), t)


DIRECTIONS = {function.__name__: function for function in (sgd, momentum, nesterov, adam, adamw, rmsprop)}
# By arm of the study, its direction and its rate.
BY_HAND = {
    "nesterov": (nesterov, RATES["linear"]),
    "adamw": (adamw, RATES["cosine"]),
    "clipped": (clipped, lambda t: RATE * (t / 3 if t < 3 else 1 - (t - 3) / 3)),
}


def by_hand(direction, rate, params, gradient):
    """The update of every step, in float64. `gradient`: of (parameters, step)."""
    memory = SimpleNamespace(m=np.zeros_like(params), v=np.zeros_like(params))
    updates = []
    for t in range(STEPS):
        updates.append(-rate(t) * direction(memory, params, gradient(params, t), t))
        params = params + updates[-1]
    return np.asarray(updates)


def test_the_others_are_those_of_training():
    for table, known, kind in ((OPTIMIZERS, DIRECTIONS, Optimizer), (SCHEDULES, RATES, Schedule)):
        assert set(known) < set(table)
        assert all(table[name] == kind(name=name) for name in set(table) - set(known))


@pytest.mark.parametrize("schedule", RATES)
@pytest.mark.parametrize("optimizer", DIRECTIONS)
def test_steps_follow_the_formula(rng, optimizer, schedule):
    # Some gradients are so small that the epsilons count, the parameters so large that their decay does.
    gradients = rng.normal(size=(STEPS, 5)) * [1e-8, 1e-4, 1e-2, 1.0, 10.0]
    start = rng.normal(size=5) * 100
    rate = SCHEDULES[schedule].make(jnp.float32(RATE), steps=STEPS, steps_per_epoch=1)
    chosen = OPTIMIZERS[optimizer].make(rate)
    params = {"bias": jnp.asarray(start, jnp.float32)}
    memory, updates = chosen.init(params), []
    for gradient in gradients:
        update, memory = chosen.update({"bias": jnp.asarray(gradient, jnp.float32)}, memory, params)
        params = optax.apply_updates(params, update)
        updates.append(update["bias"])
    expected = by_hand(DIRECTIONS[optimizer], RATES[schedule], start, lambda params, t: gradients[t])
    np.testing.assert_allclose(updates, expected, rtol=1e-4)


@pytest.mark.parametrize(("name", "last"), [("constant", RATE), ("cosine", 0.0), ("linear", 0.0)])
def test_schedules_start_at_the_rate_and_end_where_they_should(name, last):
    schedule = SCHEDULES[name].make(jnp.float32(RATE), steps=STEPS, steps_per_epoch=1)
    rates = [float(schedule(t)) for t in range(STEPS + 1)]
    assert rates[0] == pytest.approx(RATE) and rates[-1] == pytest.approx(last, abs=1e-9)
    assert rates == pytest.approx([RATES[name](t) for t in range(STEPS + 1)], abs=1e-8)
    # Beyond the last step nothing starts again.
    assert float(schedule(STEPS + 3)) == pytest.approx(last, abs=1e-9)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A study of some optimizers, in segments that are shorter than the schedule."""
    arms = {name: {"optimizer": chosen, "schedule": schedule} for name, (chosen, schedule) in TRAINED.items()}
    study = Study(
        name="optimizers",
        question="?",
        model="mlp",
        options={"width": 6, "depth": 3},
        grid={"arm": arms},
        learning_rates=[RATE],
        seeds=1,
        steps=STEPS,
        record_every=2,
        batch_size=16,
        subset=100,
    )
    devices = RunDevices(jax.devices()[:1])
    return run(study, tmp_path_factory.mktemp("optimizers"), devices=devices, quiet=True)


@pytest.fixture(scope="module")
def problem():
    """The first parameters of the study as a vector, the gradient of each of its steps, and the loss on the test split."""
    dataset = data.load("digits", subset=100)
    model = models.create("mlp", width=6, depth=3)
    mean, std = jnp.asarray(dataset.mean), jnp.asarray(dataset.std)
    images, test = (
        data.normalize(jnp.asarray(split.images), mean, std) for split in (dataset.train, dataset.test)
    )
    labels, test_labels = jnp.asarray(dataset.train.labels), jnp.asarray(dataset.test.labels)
    key = jax.random.key(0)
    rows = data.batch_indices(jax.random.fold_in(key, 1), 0, steps=STEPS, size=100, batch_size=16)
    start, restore = jax.flatten_util.ravel_pytree(jax.jit(model.init)(key, images[:16])["params"])

    @jax.jit
    def loss(vector, images, labels):
        logits = model.apply({"params": restore(vector)}, images)
        return jnp.mean(F.cross_entropy(jnp.asarray(logits), labels))

    differentiate = jax.jit(jax.grad(loss))

    def gradient(params, t):
        batch = images[rows[t]], labels[rows[t]]
        return np.asarray(differentiate(jnp.asarray(params, jnp.float32), *batch), np.float64)

    return (
        np.asarray(start, np.float64),
        gradient,
        lambda params: loss(jnp.asarray(params, jnp.float32), test, test_labels),
    )


@pytest.mark.parametrize("arm", TRAINED)
@pytest.mark.slow
def test_a_study_trains_by_the_formula(trained, problem, arm):
    start, gradient, loss = problem
    (row,) = trained.table("runs").query(f"arm == '{arm}'").to_dict("records")
    end = start + by_hand(*BY_HAND[arm], start, gradient).sum(axis=0)
    moved = abs(float(loss(end)) - float(loss(start)))
    assert row["test_loss"] == pytest.approx(float(loss(end)), abs=1e-3 * moved)
