import dataclasses
import math

import numpy as np
import pytest

from cnnjax.study import statistics
from cnnjax.study.claims import (
    AtLayer,
    ErrorRate,
    NotTested,
    Rate,
    Reduced,
    Slope,
    StepsTo,
    difference,
    equivalent,
    level,
    near,
    ordering,
    ratio,
)
from cnnjax.study.claims.metrics import START_COLUMNS, TRAINED_COLUMNS
from cnnjax.study.plan import plan
from cnnjax.study.tables import run_rows

from .made_up import ACCURACIES, SEEDS, results, study

RELU = {"activation": "relu", "depth": 30}
TANH = {"activation": "tanh", "depth": 30}


def changed(tables=None, *, where, **columns):
    """The tables with other values in the runs of a query."""
    tables = results() if tables is None else tables
    runs = tables.runs.copy()
    runs.loc[runs.eval(where), list(columns)] = list(columns.values())
    return dataclasses.replace(tables, runs=runs)


def test_the_selected_runs_are_taken():
    numbers = results().numbers("test_accuracy", RELU)
    assert numbers.to_dict() == dict(enumerate(ACCURACIES["relu", 30]))
    assert len(results().selected()) == 4 * SEEDS
    assert set(results().selected({"depth": [3, 30], "activation": "tanh"})["cell"]) == {2, 3}
    assert set(results().selected(lambda cell: cell["depth"] < 10)["cell"]) == {0, 2}


@pytest.mark.parametrize(
    ("ends", "agrees", "note"),
    [
        ({"at_least": 0.79}, True, "lowest 0.79"),
        ({"at_least": 0.8}, False, "lowest 0.79"),
        ({"at_most": 0.9}, True, "highest 0.9"),
        ({"at_most": 0.89}, False, "highest 0.9"),
        ({"at_least": 0.7, "at_most": 1.0}, True, "lowest 0.79, highest 0.9"),
    ],
)
def test_in_every_seed(ends, agrees, note):
    found = level("test_accuracy", RELU, **ends)(results())
    assert (found.agrees, found.note) == (agrees, note)
    assert found.estimate == statistics.mean(ACCURACIES["relu", 30])


def test_in_every_seed_of_every_cell_while_the_mean_is_by_seed():
    found = level("test_accuracy", {"activation": "relu"}, at_least=0.8)(results())
    means = np.mean([ACCURACIES["relu", 3], ACCURACIES["relu", 30]], axis=0)
    assert found.agrees is False and found.note == "lowest 0.79"
    assert found.estimate == statistics.mean(means)
    assert level("test_accuracy", {"activation": "relu"}, at_least=0.8, by="interval")(results()).agrees


@pytest.mark.parametrize(
    ("least", "by", "agrees"),
    # The interval is 0.844 [0.783, 0.905].
    [
        (0.78, "interval", True),
        (0.95, "interval", False),
        (0.8, "interval", None),
        (0.84, "mean", True),
        (0.86, "mean", False),
    ],
)
def test_by_interval_and_by_mean(least, by, agrees):
    assert level("test_accuracy", RELU, at_least=least, by=by)(results()).agrees is agrees


def test_an_interval_across_the_end_says_how_many_seeds_it_takes():
    found = level("test_accuracy", RELU, at_least=0.8, by="interval")(results())
    accuracies = ACCURACIES["relu", 30]
    needed = statistics.seeds_needed(np.mean(accuracies) - 0.8, deviation=np.std(accuracies, ddof=1))
    assert found.note == (
        f"undecided: the interval reaches across 0.8; about {needed} seeds would tell if mean and spread stay"
    )


def test_pairs_share_their_seeds():
    found = difference(
        "test_accuracy",
        {"activation": "relu", "depth": 3},
        {"activation": "tanh", "depth": 3},
        above=0.0,
    )(results())
    # 0.01 in every seed, though each sample spreads by more than that.
    assert found.agrees and found.estimate.value == pytest.approx(0.01)
    assert found.estimate.note == "all equal"
    shuffled = results().runs.sample(frac=1, random_state=0)
    again = difference("test_accuracy", RELU, TANH, above=0.0)(dataclasses.replace(results(), runs=shuffled))
    assert again.estimate == statistics.mean(np.subtract(ACCURACIES["relu", 30], ACCURACIES["tanh", 30]))


def test_no_difference_is_not_above_zero():
    # Both cells are at chance in every seed, so the interval of the difference is the point 0.
    tables = changed(where="depth == 30", test_accuracy=0.1)
    assert difference("test_accuracy", RELU, TANH, above=0.0)(tables).agrees is False
    assert difference("test_accuracy", RELU, TANH, below=0.0)(tables).agrees is False
    assert equivalent("test_accuracy", RELU, TANH, margin=0.01)(tables).agrees is True


def test_equivalence_is_that_of_the_statistics(rng):
    for margin in (0.02, 0.1, 0.5):
        for spread in (0.01, 0.1):
            tables = results()
            noise = rng.normal(0, spread, len(tables.runs))
            tables = dataclasses.replace(
                tables, runs=tables.runs.assign(test_accuracy=tables.runs["test_accuracy"] + noise)
            )
            cells = {"activation": "relu", "depth": 3}, {"activation": "tanh", "depth": 3}
            first, second = (tables.numbers("test_accuracy", own) for own in cells)
            expected = statistics.equivalence(first, second, margin=margin).equivalent
            found = equivalent("test_accuracy", *cells, margin=margin)(tables)
            assert (found.agrees is True) == expected and found.estimate.confidence == 0.9


def test_ratios():
    steps = StepsTo("accuracy", 0.7)
    # Accuracy a grows as a step / 100: 0.7 at step 80 for 0.95, 0.96 and so on; never for 0.1.
    assert results().numbers(steps, {"activation": "relu", "depth": 3}).tolist() == [80.0] * SEEDS
    assert results().numbers(steps, TANH).tolist() == [math.inf] * SEEDS
    found = ratio(steps, {"activation": "relu", "depth": 3}, TANH, below=0.5, by="every seed")(results())
    assert found.agrees and found.estimate.value == 0.0
    inverse = ratio(steps, TANH, {"activation": "relu", "depth": 3}, below=0.5, by="every seed")(results())
    assert inverse.agrees is False and inverse.estimate.value == math.inf
    with pytest.raises(NotTested, match="the ratio is not a number for seed 0"):
        ratio(steps, TANH, TANH, below=0.5, by="every seed")(results())
    with pytest.raises(
        NotTested, match="infinite for some seeds, which have no mean: decide by='every seed'"
    ):
        level(steps, TANH, at_most=100, by="mean")(results())


def test_an_ordering_takes_all_intervals_together():
    falling = [{"activation": "relu", "depth": 3}, RELU, TANH]
    found = ordering("test_accuracy", *falling)(results())
    assert found.agrees is True
    assert found.estimate.confidence == 0.975
    assert found.note == "smallest step, from the 1st to the 2nd"
    assert ordering("test_accuracy", *reversed(falling))(results()).agrees is False
    # Surely above, then surely below.
    assert ordering("test_accuracy", falling[0], TANH, RELU)(results()).agrees is False
    noisy = changed(where="activation == 'tanh' and depth == 30 and seed == 0", test_accuracy=0.99)
    undecided = ordering("test_accuracy", *falling)(noisy)
    assert undecided.agrees is None and undecided.note.startswith("undecided: smallest step")


def test_rates_and_slopes_of_layers():
    tables = results()
    rate = tables.numbers(Rate("gradient_log10_second_moment"), RELU)
    # A factor of a half toward the input, and 10^-0.001 a seed.
    assert rate.to_numpy() == pytest.approx(0.5 * 10 ** (-0.001 * np.arange(SEEDS)))
    assert tables.numbers(Rate("gradient_log10_second_moment", step=50), RELU)[0] == pytest.approx(1.0)
    assert tables.numbers(Rate("gradient_log10_second_moment", step="last"), RELU)[0] == pytest.approx(1.0)
    # Without the head, whose 10^99 is no part of it.
    whole = Rate("gradient_log10_second_moment", part=(0.0, 1.0))
    assert tables.numbers(whole, RELU)[0] == pytest.approx(0.5)
    # Toward the output.
    assert tables.numbers(Rate("output_log10_second_moment"), RELU)[0] == pytest.approx(10**-0.2)
    assert tables.numbers(Slope("dead", part=(0.0, 1.0)), RELU).to_numpy() == pytest.approx(0.02)
    assert tables.numbers(AtLayer("dead", 2), RELU)[0] == pytest.approx(0.04)
    assert tables.numbers(AtLayer("gradient_log10_second_moment", -1), RELU)[0] == 99.0


def test_only_the_part_of_the_layers_counts():
    layers = results().layers.copy()
    bent = layers["layer"].isin([0, 1, 2, 3, 4, 27, 28, 29])
    layers.loc[bent, "gradient_log10_second_moment"] += 5
    tables = dataclasses.replace(results(), layers=layers)
    assert tables.numbers(Rate("gradient_log10_second_moment"), RELU)[0] == pytest.approx(0.5)
    whole = Rate("gradient_log10_second_moment", part=(0.0, 1.0))
    assert abs(tables.numbers(whole, RELU)[0] - 0.5) > 0.05


def test_a_rate_near_its_prediction():
    found = near(Rate("gradient_log10_second_moment"), RELU, 0.5, within=0.03)(results())
    assert found.agrees is True and found.estimate.value == pytest.approx(0.5, rel=0.01)
    assert near(Rate("gradient_log10_second_moment"), RELU, 0.52, within=0.03)(results()).agrees is False
    # A negative prediction has its range the right way round.
    negative = near(Slope("output_log10_second_moment"), RELU, -0.2, within=0.01)(results())
    assert negative.agrees is True


def test_measures_of_the_study():
    tables = results()
    assert tables.numbers("s_max", RELU).tolist() == [2.0, 3.0, 4.0, 5.0, 6.0]
    spread = Reduced("singular_values", lambda values: values.max() / np.median(values), "s_max / s_median")
    assert tables.numbers(spread, RELU).tolist() == [3.0] * SEEDS
    with pytest.raises(
        ValueError, match="unknown measure of the study 'singular'; did you mean 'singular_val"
    ):
        tables.numbers(Reduced("singular", np.max, "s_max"), RELU)


def test_error_rates_are_in_percent():
    assert results().numbers(ErrorRate(), TANH).to_numpy() == pytest.approx(90.0)


@pytest.mark.parametrize(
    ("where", "columns", "reason"),
    [
        ("cell == 1 and seed == 2", {"status": "unfinished"}, "unfinished: 2 of 10 runs"),
        ("cell == 1", {"selected": False}, "unfinished: 0 runs are selected where 5 should be"),
        ("run == 11", {"status": "out of memory"}, "out of memory: 1 of 5 runs"),
        (
            "run == 11",
            {"status": "diverged"},
            r"diverged: 1 of 5 runs \(run 11 first\), and the claim does not",
        ),
        (
            "run == 11",
            {"test_accuracy": np.nan},
            r"test_accuracy is not a number in 1 of 5 runs \(run 11 first",
        ),
    ],
)
def test_what_the_tables_do_not_tell(where, columns, reason):
    tables = changed(where=where, **columns)
    for by in ("every seed", "interval", "mean"):
        with pytest.raises(NotTested, match=reason):
            level("test_accuracy", RELU, at_least=0.0, by=by)(tables)
    # Other cells are not concerned.
    assert level("test_accuracy", TANH, at_most=0.2)(tables).agrees is True


def test_a_missing_seed_is_noticed():
    tables = results()
    tables = dataclasses.replace(tables, runs=tables.runs[tables.runs["run"] != 11])
    with pytest.raises(NotTested, match="unfinished: 4 runs are selected where 5 should be"):
        level("test_accuracy", RELU, at_least=0.0)(tables)


def test_diverged_runs_count_as_the_claim_says():
    tables = changed(where="cell == 1", status="diverged", test_accuracy=0.97)
    assert level("test_accuracy", RELU, at_most=0.2, diverged=0.1)(tables).agrees is True
    assert difference("test_accuracy", RELU, TANH, above=0.0, diverged=0.1)(tables).agrees is False
    # What is known at initialization is not concerned.
    assert level("gradient_slope", RELU, at_least=3.0)(tables).agrees is True


def test_infinite_numbers_in_every_seed():
    tables = changed(where="cell == 1 and seed > 0", gradient_slope=-np.inf)
    found = level("gradient_slope", RELU, at_most=-4.0)(tables)
    assert found.agrees is False and found.note == "highest 3"
    assert (found.estimate.statistic, found.estimate.value) == ("median", -np.inf)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: level("test_accuracy", {}),
            "takes a lower or an upper end, or both in order; got -inf to inf",
        ),
        (lambda: level("test_accuracy", {}, at_least=2.0, at_most=1.0), "or both in order; got 2.0 to 1.0"),
        (lambda: level("test_accuracy", {}, at_least=math.nan), "got nan to inf"),
        (
            lambda: level("test_accuracy", {}, at_least=0.0, by="seed"),
            r"unknown way to decide \(by\) 'seed'. Known: every seed, interval",
        ),
        (lambda: near("test_accuracy", {}, 0.0, within=0.1), "takes a finite prediction other than 0"),
        (lambda: near("test_accuracy", {}, 1.0, within=0.0), "and a positive tolerance; got 1.0, 0.0"),
        (lambda: ordering("test_accuracy", {}), "takes two sets of cells or more, the largest first; got 1"),
        (
            lambda: Rate("dead"),
            "a rate takes a column that is a logarithm, got 'dead': take Slope, or one of log10",
        ),
        (
            lambda: Slope("gradient"),
            "unknown column of numbers in the table of layers 'gradient'; did you mean",
        ),
        (
            lambda: Slope("dead", part=(0.5, 0.2)),
            r"part must be two fractions of the depth, .* got \(0.5, 0.2\)",
        ),
        (lambda: AtLayer("deed", 0), "in the table of layers 'deed'; did you mean 'dead'"),
        (lambda: StepsTo("test_accuracy", 0.9), "in the table of curves 'test_accuracy'; did you mean"),
        (lambda: ErrorRate("tset"), "unknown split 'tset'; did you mean 'test'"),
    ],
)
def test_rules_that_do_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_metrics_that_are_none():
    with pytest.raises(TypeError, match=r"a metric is the name of a column, or one as Rate\(...\); got 3"):
        level(3, {}, at_least=0.0)
    with pytest.raises(
        TypeError, match=r"cells must be values of axes, as {'depth': 30}, or a function; got 30"
    ):
        level("test_accuracy", 30, at_least=0.0).check(study())


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            level("test_acuracy", RELU, at_least=0),
            "in the table of runs 'test_acuracy'; did you mean 'test_acc",
        ),
        (
            level("test_accuracy", {"activatoin": "relu"}, at_least=0),
            "unknown axis of the grid 'activatoin'; did",
        ),
        (
            level("test_accuracy", {"activation": "rleu"}, at_least=0),
            "unknown value of the axis activation 'rleu'; did you mean 'relu'",
        ),
        (level("test_accuracy", {"depth": [3, 31]}, at_least=0), "unknown value of the axis depth '31'"),
        (
            level("test_accuracy", lambda cell: cell["dept"] < 5, at_least=0),
            "unknown axis of the grid 'dept'; did you mean 'depth'",
        ),
        (
            level("test_accuracy", lambda cell: cell["depth"] > 99, at_least=0),
            "no cell of the grid is matched",
        ),
        (difference("test_accuracy", RELU, {"depth": 4}, above=0), "unknown value of the axis depth '4'"),
        (ordering("test_accuracy", RELU, {"depth": 4}), "unknown value of the axis depth '4'"),
        (level(AtLayer("dead", 0, step=7), RELU, at_least=0), "no layer will be recorded at step 7"),
        (level(AtLayer("dead", 0, step="end"), RELU, at_least=0), "unknown step 'end'"),
        (level(Reduced("s", np.max, "s_max"), RELU, at_least=0), "unknown measure of the study 's'"),
    ],
)
def test_what_the_study_has_not_is_known_before(rule, message):
    with pytest.raises(ValueError, match=message):
        rule.check(study())


def test_what_is_there_passes():
    for rule in (
        level("gradient_slope", {"activation": ["relu", "tanh"]}, at_least=0),
        level(AtLayer("dead", 0, step=50), RELU, at_least=0),
        level(Rate("gradient_log10_second_moment", step=99), RELU, at_least=0),
        difference(StepsTo("accuracy", 0.5), RELU, TANH, below=0),
    ):
        rule.check(study())
    level("s_max", RELU, at_least=0).check(study(measures={"s_max": np.max}))


@pytest.mark.parametrize("metric", ["test_accuracy", ErrorRate(), StepsTo("accuracy", 0.5)])
def test_training_is_needed(metric):
    with pytest.raises(ValueError, match=r"takes training, and the study has none \(steps=0\)"):
        level(metric, RELU, at_least=0).check(study(steps=0))


def test_columns_and_steps_that_the_tables_have_not():
    with pytest.raises(ValueError, match="in the table of runs 'accuracy'; did you mean"):
        results().numbers("accuracy", RELU)
    with pytest.raises(ValueError, match="no layer was recorded at step 7; recorded: 0, 50"):
        results().numbers(AtLayer("dead", 0, step=7), RELU)
    with pytest.raises(ValueError, match="there is no layer 31 in a network of 31 layers"):
        results().numbers(AtLayer("dead", 31), RELU)
    with pytest.raises(ValueError, match="unknown value of the axis depth '4'"):
        results().numbers("test_accuracy", {"depth": 4})


def test_empty_tables_have_no_numbers():
    tables = results()
    none = dataclasses.replace(tables, curves=tables.curves.head(0), layers=tables.layers.head(0))
    for metric in (StepsTo("accuracy", 0.5), Rate("gradient_log10_second_moment")):
        with pytest.raises(NotTested, match="is not a number in 5 of 5 runs"):
            none.numbers(metric, RELU)
    with pytest.raises(NotTested, match="there are no runs"):
        dataclasses.replace(tables, runs=tables.runs.head(0)).numbers("test_accuracy", RELU)


def test_underflow_is_no_slope():
    layers = results().layers.copy()
    layers.loc[layers["layer"] == 10, "gradient_log10_second_moment"] = -np.inf
    with pytest.raises(
        NotTested, match="rate of gradient_log10_second_moment is not a number in 5 of 5 runs"
    ):
        dataclasses.replace(results(), layers=layers).numbers(Rate("gradient_log10_second_moment"), RELU)


def test_the_columns_are_those_of_the_engine():
    row = run_rows(plan(study())[0].runs[:1], "finished")
    assert {*TRAINED_COLUMNS, *START_COLUMNS} <= {*row.columns}
    numbers = {*row.select_dtypes("number").columns} - {"run", "cell", "seed", "depth", "learning_rate"}
    assert numbers == {*TRAINED_COLUMNS, *START_COLUMNS, "diverged_step"}


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (level("test_accuracy", {}, at_least=0.9), "test_accuracy ≥ 0.9 in every run"),
        (
            near(Rate("gradient_log10_second_moment"), {}, 2.0, within=0.1),
            "rate of gradient_log10_second_moment between 1.8 and 2.2 (95 % interval)",
        ),
        (
            difference("test_accuracy", {}, {}, above=0.3, by="mean"),
            "difference of test_accuracy > 0.3 (mean)",
        ),
        (
            equivalent("test_loss", {}, {}, margin=0.1),
            "difference of test_loss between -0.1 and 0.1 (90 % interval)",
        ),
        (
            ordering("test_loss", {}, {}, {}),
            "every difference of test_loss > 0 (95 % intervals, taken together)",
        ),
    ],
    ids=["level", "near", "difference", "equivalent", "ordering"],
)
def test_a_rule_says_what_has_to_hold(rule, words):
    assert rule.criterion == words
