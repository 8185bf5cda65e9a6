"""Schedules against their formulas and optax, and lengths in epochs."""

import numpy as np
import optax
import pytest

from cnnjax.optim.schedules import SCHEDULES, Schedule, in_steps


def rates(schedule, steps=100, steps_per_epoch=10, peak=0.4):
    made = schedule.make(peak, steps=steps, steps_per_epoch=steps_per_epoch)
    return np.array([float(made(step)) for step in range(steps + 1)])


STEPS = np.arange(101)
EXPECTED = {
    "constant": (Schedule(), np.full(101, 0.4)),
    # He et al. 2016: divided by 10 twice.
    "step": (
        Schedule(name="step", boundaries=("5 epochs", 75)),
        0.4 * np.select([STEPS >= 75, STEPS >= 50], [0.01, 0.1], 1.0),
    ),
    "cosine": (Schedule(name="cosine"), 0.2 * (1 + np.cos(np.pi * STEPS / 100))),
    "linear": (Schedule(name="linear", end=0.25), 0.4 * (1 - 0.75 * STEPS / 100)),
    "polynomial": (Schedule(name="polynomial", power=3), 0.4 * (1 - STEPS / 100) ** 3),
    "exponential": (Schedule(name="exponential", factor=0.01), 0.4 * 0.01 ** (STEPS / 100)),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_formulas(name):
    schedule, expected = EXPECTED[name]
    np.testing.assert_allclose(rates(schedule), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.usefixtures("optax_promotes")
def test_one_cycle_rises_and_falls():
    found = rates(Schedule(name="one_cycle", rise=0.4, end=1e-3))
    assert found[0] == pytest.approx(0.4 / 25, rel=1e-5) and found.argmax() == 40
    assert found[40] == pytest.approx(0.4, rel=1e-5) and found[100] == pytest.approx(0.4 * 1e-3, rel=1e-3)
    assert rates(Schedule(name="one_cycle"))[100] < 1e-6


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"step", "one_cycle"}))
def test_a_warmup_stands_in_front_and_the_schedule_ends_with_the_run(name):
    found = rates(Schedule(name=name, warmup="2 epochs", warmup_from=0.1, end=0.05))
    np.testing.assert_allclose(found[:20], np.linspace(0.04, 0.4, 21)[:20], rtol=1e-5)
    without = Schedule(name=name, end=0.05).make(0.4, steps=80, steps_per_epoch=10)
    np.testing.assert_allclose(found[20:], [float(without(step)) for step in range(81)], rtol=1e-5)


def test_goyals_recipe():
    # Goyal et al. 2017, sections 2.2 and 5.1: 5 epochs of warm-up, divided by 10 at epochs 30, 60 and 80 of 90.
    schedule = Schedule(name="step", warmup="5 epochs", boundaries=("30 epochs", "60 epochs", "80 epochs"))
    found = rates(schedule, steps=900, peak=3.2)
    np.testing.assert_allclose(
        found[[0, 25, 50, 299, 300, 600, 899]], [0, 1.6, 3.2, 3.2, 0.32, 0.032, 0.0032], rtol=1e-5
    )


def test_with_warmup_a_cosine_is_optaxs():
    expected = optax.warmup_cosine_decay_schedule(0, 0.4, 10, 100)
    found = rates(Schedule(name="cosine", warmup=10))
    np.testing.assert_allclose(found, [float(expected(step)) for step in range(101)], rtol=1e-5, atol=1e-8)


def test_a_warmup_and_a_line_are_airbenchs_triangle():
    # airbench94.py (Jordan 2024): a fifth of the rate at first, all of it after 23 % of 476 steps, 7 % at the end.
    schedule = Schedule(name="linear", warmup=109, warmup_from=0.2, end=0.07)
    expected = np.interp(np.arange(477), [0, 109, 476], [0.2, 1.0, 0.07])
    np.testing.assert_allclose(rates(schedule, steps=476, peak=1.5), 1.5 * expected, rtol=1e-5)


def test_lengths():
    assert [in_steps(d, 7) for d in (0, 12, "12", "12 steps", "3 epochs", "1 epoch", "0.5 epochs")] == [
        0,
        12,
        12,
        12,
        21,
        7,
        4,
    ]


def test_parts_of_a_run():
    assert [in_steps(d, 7, of=60) for d in ("10 %", "2.5%", "0 %", "100 %", "2 epochs")] == [6, 2, 0, 60, 14]
    with pytest.raises(ValueError, match="as '5 epochs' or '10 %'; got '10 per cent'"):
        in_steps("10 per cent", 7, of=60)
    parts = rates(Schedule(name="step", warmup="5 %", boundaries=("50 %", "75 %")))
    np.testing.assert_array_equal(
        parts, rates(Schedule(name="step", warmup=5, boundaries=("5 epochs", "7.5 epochs")))
    )


@pytest.mark.parametrize("length", [-1, 1.5, True, "five epochs", "1.5 steps", "3 weeks", "10 %", None])
def test_lengths_that_are_none(length):
    with pytest.raises(ValueError, match="a length is a number of steps, or a text as '5 epochs'"):
        in_steps(length, 7)


@pytest.mark.parametrize(
    "schedule, text",
    [
        (Schedule(name="cosin"), "did you mean 'cosine'"),
        (
            Schedule(name="cosine", warmup="10 epochs"),
            "the warm-up of 100 steps is longer than the run, which has 100",
        ),
        (Schedule(name="step"), "the schedule 'step' needs boundaries"),
        (
            Schedule(name="step", boundaries=(50, 100)),
            r"before the end of the run \(100 steps\); got \[100\]",
        ),
        (Schedule(name="step", boundaries=(5,), warmup=5), r"lie behind its warm-up \(5 steps\)"),
        (Schedule(name="step", boundaries=(60, 50)), "the boundaries of a schedule must rise"),
        (Schedule(name="one_cycle", rise=1.0), r"must lie in \(0, 1\), got 1.0"),
    ],
)
def test_what_does_not_fit_the_run_is_named(schedule, text):
    with pytest.raises(ValueError, match=text):
        schedule.make(0.1, steps=100, steps_per_epoch=10)
