"""Advice on memory, against what is compiled: steps of real models, and compilers that refuse."""

import functools
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import optax
import pytest

from cnnjax import machine, models
from cnnjax.training import Batch, Moments, Trainer, memory
from cnnjax.training.memory import OutOfMemory, advise, explained, needed

FLOAT = jax.ShapeDtypeStruct((1024,), jnp.float32)


@pytest.mark.parametrize(("donated", "expected"), [((), 3 * 4096), ((0,), 2 * 4096)])
def test_what_is_donated_counts_once(donated, expected):
    compiled = jax.jit(lambda x, y: x + y, donate_argnums=donated).lower(FLOAT, FLOAT).compile()
    assert needed(compiled) == expected


def test_what_lies_between_counts():
    def between(x):
        outer = x[:, None] * x[None]
        return jnp.sort(outer, axis=0)[0]

    assert needed(jax.jit(between).lower(FLOAT).compile()) >= 1024 * 4096


def test_a_compiler_that_does_not_tell():
    assert needed(SimpleNamespace(memory_analysis=lambda: None)) == 0


def test_the_limit_of_a_cpu_is_what_the_process_may_take(monkeypatch):
    monkeypatch.setattr(machine, "host_memory", lambda: 17)
    assert memory.limit(jax.devices("cpu")[0]) == 17


@pytest.mark.parametrize(
    ("stats", "expected"), [({"bytes_limit": 5, "bytes_in_use": 1}, 5), ({}, None), (None, None)]
)
def test_the_limit_of_an_accelerator_is_what_it_says(stats, expected):
    assert memory.limit(SimpleNamespace(platform="gpu", memory_stats=lambda: stats)) == expected


@functools.cache
def lower(batch, remat):
    """The step of a deep plain network."""
    model = models.create("plain", depth=24, width=8, remat=remat)
    trainer = Trainer(model=model, optimizer=optax.sgd(0.1), num_classes=10)
    images = jax.ShapeDtypeStruct((batch, 8, 8, 1), jnp.uint8)
    state = jax.eval_shape(trainer.initial, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    example = Batch(images, jax.ShapeDtypeStruct((batch,), jnp.int32))
    moments = Moments(*[jax.ShapeDtypeStruct((1,), jnp.float32)] * 2)
    key = jax.eval_shape(jax.random.key, 0)
    return jax.jit(trainer.step, donate_argnums=0).lower(state, example, key, moments).compile()


def need(batch, remat=False):
    return needed(lower(batch, remat))


def test_remat_and_smaller_batches_need_less():
    assert max(need(128, True), need(64)) < need(128)


@pytest.mark.parametrize("spare", [0, 1000])
def test_the_batch_that_is_named_fits_and_its_double_does_not(spare):
    limit = need(32) + spare
    text = advise(lower, batch_size=128, can_remat=False, limit=limit, multiple_of=8)
    mib = "{:.1f} MiB".format
    numbers = (mib(size / 2**20) for size in (need(128), limit, need(32)))
    expected = "a step with a batch of 128 needs {} and the device has {}: a batch of 32 ({}) would fit"
    assert text == expected.format(*numbers)
    assert need(32) <= limit < need(64)


def test_remat_is_named_where_it_fits():
    text = advise(lower, batch_size=128, can_remat=True, limit=need(128, True), multiple_of=1)
    found = re.search(
        r": a batch of (\d+) \([\d.]+ MiB\) or one of 128 with remat \(([\d.]+) MiB\) would fit$", text
    )
    assert found and float(found[2]) == pytest.approx(need(128, True) / 2**20, abs=0.05)
    assert need(int(found[1])) <= need(128, True) < need(2 * int(found[1]))


GIB = 2**30


def told(**options):
    """Advice on a step of 1 GiB and 0.1 GiB an image, and half of it with remat; records what was compiled."""
    asked = []

    def lower(batch, remat):
        asked.append((batch, remat))
        size = int((GIB + batch * GIB / 10) * (0.5 if remat else 1))
        analysis = SimpleNamespace(
            argument_size_in_bytes=size, output_size_in_bytes=7, alias_size_in_bytes=7, temp_size_in_bytes=0
        )
        return SimpleNamespace(memory_analysis=lambda: analysis)

    arguments = {"batch_size": 128, "can_remat": True, "multiple_of": 1} | options
    return advise(lower, **arguments), asked


@pytest.mark.parametrize(
    ("limit", "options", "expected"),
    [
        (
            8.0,
            {},
            "13.8 GiB and the device has 8.0 GiB: a batch of 64 (7.4 GiB) or one of 128 with remat (6.9 GiB) would fit",
        ),
        (5.0, {}, "13.8 GiB and the device has 5.0 GiB: a batch of 32 (4.2 GiB) would fit"),
        (5.0, {"multiple_of": 64}, "5.0 GiB: a batch of 64 with remat (3.7 GiB) would fit"),
        (7.0, {"multiple_of": 96}, "7.0 GiB: a batch of 128 with remat (6.9 GiB) would fit"),
        (
            0.5,
            {},
            "0.5 GiB: not even a batch of 1 with remat would fit; take a smaller model or smaller images",
        ),
        (
            1.0,
            {"can_remat": False, "multiple_of": 8},
            "1.0 GiB: not even a batch of 8 would fit; take a smaller model or smaller images",
        ),
        (
            1.0,
            {"can_remat": False, "multiple_of": 128},
            "1.0 GiB: not even a batch of 128 would fit; take a smaller model or smaller images",
        ),
        (
            20.0,
            {},
            "needs 13.8 GiB and the device has 20.0 GiB, not all of it free: a batch of 64 (7.4 GiB) or one of 128 with "
            "remat (6.9 GiB) would need less",
        ),
    ],
)
def test_the_sentence(limit, options, expected):
    text, _ = told(limit=int(limit * GIB), **options)
    assert text.startswith("a step with a batch of 128 needs 13.8 GiB") and text.endswith(expected)


def test_no_more_is_compiled_than_is_asked_for():
    _, asked = told(limit=8 * GIB)
    assert asked == [(128, False), (64, False), (128, True)]
    _, asked = told(limit=GIB, can_remat=False, batch_size=100, multiple_of=8)
    assert asked == [(100, False), (48, False), (24, False), (8, False)]


def refusing(largest, error):
    """A compiler that refuses larger batches than one."""

    def refuse(batch, remat):
        if batch > largest:
            raise error
        return lower(batch, remat)

    return refuse


EXHAUSTED = jax.errors.JaxRuntimeError(
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm."
)


def test_a_batch_that_the_compiler_refuses_does_not_fit():
    text = advise(refusing(32, EXHAUSTED), batch_size=128, can_remat=False, limit=8 * GIB, multiple_of=1)
    assert text.startswith(
        "a step with a batch of 128 needs more than can be compiled and the device has 8.0 GiB: a batch of 32 ("
    )


def test_another_error_of_the_compiler_is_not_hidden():
    broken = jax.errors.JaxRuntimeError("INTERNAL: broken")
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL: broken"):
        advise(refusing(64, broken), batch_size=128, can_remat=False, limit=8 * GIB, multiple_of=1)


def test_the_errors_of_memory_are_recognized():
    with pytest.raises(jax.errors.JaxRuntimeError) as caught:
        jnp.zeros(1 << 44, jnp.int8).block_until_ready()
    assert explained(caught.value) and explained(EXHAUSTED) and explained(MemoryError())
    assert not explained(jax.errors.JaxRuntimeError("INTERNAL: broken"))
    assert not explained(ValueError("RESOURCE_EXHAUSTED: the words alone"))


def test_it_is_an_error_of_values():
    assert issubclass(OutOfMemory, ValueError)
