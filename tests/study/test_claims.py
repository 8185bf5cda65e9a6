import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest

from cnnjax.study import Study, run, statistics
from cnnjax.study import verdicts as stored
from cnnjax.study.claims import (
    Claim,
    Measurement,
    NotTested,
    Verdict,
    Where,
    difference,
    evaluate,
    level,
    ordering,
    pending,
)
from cnnjax.study.store import Store
from cnnjax.study.verdicts import judge, read_verdicts, write_verdicts

from .made_up import ACCURACIES, results, study

RELU = {"activation": "relu", "depth": 30}


def claim(rule=None, **fields):
    rule = level("test_accuracy", RELU, at_least=0.7) if rule is None else rule
    words = {"name": "relu trains", "statement": "It trains.", "source": "Nobody 2000, table 1"}
    return Claim(**{**words, "rule": rule, **fields})


def returning(value, *, agrees, n=5):
    estimate = statistics.Estimate(value=value, n=n, confidence=0.95, statistic="mean")
    return lambda _: Measurement(estimate, agrees)


def verdict_of(*claims, **info):
    (verdict,) = evaluate(claims, results(**info))
    return verdict


def test_agree_and_disagree():
    agreed = verdict_of(claim(printed=0.93))
    assert agreed == Verdict(
        name="relu trains",
        statement="It trains.",
        source="Nobody 2000, table 1",
        printed=0.93,
        verdict="agree",
        note="lowest 0.79",
        criterion="test_accuracy ≥ 0.7 in every run",
        estimate=statistics.mean(ACCURACIES["relu", 30]),
    )
    assert verdict_of(claim(level("test_accuracy", RELU, at_least=0.85))).verdict == "disagree"


def test_undecided_is_not_tested_but_has_its_number():
    verdict = verdict_of(claim(level("test_accuracy", RELU, at_least=0.8, by="interval")))
    assert verdict.verdict == "not tested" and verdict.estimate is not None
    assert verdict.note.startswith("undecided: the interval reaches across 0.8; about")


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        (Where(seeds=6), "too few seeds: 5, tested with 6 or more"),
        (Where(data=["mnist", "cifar10"]), "other data: digits, tested on mnist or cifar10"),
        (Where(at_least={"steps": 200}), "other scale: steps = 100, tested from 200 on"),
        (Where(at_least={"width": 32}), "other scale: width = 16, tested from 32 on"),
        (Where(exactly={"padding": "CIRCULAR"}), "other setting: padding = SAME, tested at CIRCULAR"),
        (
            Where(at_least={"learning_rates": 3}),
            "other scale: learning_rates = 2, tested from 3 on",
        ),
        (Where(exactly={"optimizer": "sgd"}), "other setting: optimizer = momentum, tested at sgd"),
        (
            Where(seeds=9, data=["mnist"]),
            "too few seeds: 5, tested with 9 or more; other data: digits, tested on mnist",
        ),
        (
            Where(seeds=5, data=["digits"], at_least={"steps": 100, "subset": 500}, exactly={"norm": None}),
            "",
        ),
    ],
)
def test_where_a_claim_is_tested(where, reason):
    made = claim(where=where)
    study(claims=[made])
    verdict = verdict_of(made)
    assert verdict.verdict == ("not tested" if reason else "agree")
    assert verdict.note == (reason or "lowest 0.79")


def test_an_unfinished_study_tests_nothing():
    assert verdict_of(claim(), finished=None).note == "unfinished"
    (verdict,) = pending([claim(where=Where(seeds=6))], results(finished=None).info)
    assert (verdict.verdict, verdict.note) == ("not tested", "unfinished")


def test_a_run_that_diverged_or_did_not_fit_is_the_reason():
    for status, text in (
        ("diverged", "diverged: 5 of 5 runs"),
        ("out of memory", "out of memory: 5 of 5 runs"),
    ):
        tables = results()
        runs = tables.runs.assign(status=tables.runs["status"].mask(tables.runs["cell"] == 1, status))
        (verdict,) = evaluate([claim()], dataclasses.replace(tables, runs=runs))
        assert verdict.verdict == "not tested" and verdict.note.startswith(text)


@pytest.mark.parametrize(
    "rule",
    [
        level("test_accuracy", RELU, at_least=0.0),
        level("test_accuracy", RELU, at_most=1.0),
        level("test_accuracy", {}, at_least=-math.inf, at_most=1.0, by="interval"),
        level("gradient_slope", {}, at_most=1e9),
    ],
)
def test_empty_tables_and_nan_cannot_agree(rule):
    tables = results()
    nothing = tables.runs.assign(test_accuracy=np.nan, gradient_slope=np.nan)
    for runs in (tables.runs.head(0), nothing):
        (verdict,) = evaluate([claim(rule)], dataclasses.replace(tables, runs=runs))
        assert verdict.verdict == "not tested" and verdict.note and verdict.estimate is None


@pytest.mark.parametrize("agrees", [True, False])
def test_a_rule_without_a_number_cannot_agree(agrees):
    for rule in (returning(math.nan, agrees=agrees), returning(1.0, agrees=agrees, n=0)):
        verdict = verdict_of(claim(rule))
        assert (verdict.verdict, verdict.note) == ("not tested", "the rule found no number")


def test_the_rules_own_seeds_count():
    verdict = verdict_of(claim(returning(1.0, agrees=True, n=2)))
    assert (verdict.verdict, verdict.note) == ("not tested", "too few seeds: 2, tested with 3 or more")
    assert verdict.estimate is not None
    one = verdict_of(claim(returning(1.0, agrees=True, n=1), where=Where(seeds=1)))
    assert (one.verdict, one.note) == ("agree", "")


def test_one_seed_has_no_interval():
    tables = results(seeds=[0])
    tables = dataclasses.replace(tables, runs=tables.runs[tables.runs["seed"] == 0])
    by_interval = claim(level("test_accuracy", RELU, at_least=0.0, by="interval"), where=Where(seeds=1))
    (verdict,) = evaluate([by_interval], tables)
    assert verdict.verdict == "not tested"
    assert verdict.note == "too few seeds: 0.85 (n = 1, no interval)"


def test_a_free_function_is_a_rule():
    def spread_of_accuracy(tables):
        """Deviation of the accuracy below 0.2.

        And more.
        """
        if tables.info["data"] != "digits":
            raise NotTested("made for digits")
        accuracies = tables.numbers("test_accuracy", RELU)
        return Measurement(statistics.bca(accuracies, np.std), np.std(accuracies) < 0.2, "a NumPy boolean")

    verdict = verdict_of(claim(spread_of_accuracy))
    assert (verdict.verdict, verdict.criterion) == ("agree", "Deviation of the accuracy below 0.2.")
    assert verdict_of(claim(spread_of_accuracy), data="mnist").note == "made for digits"


def test_rules_that_fail():
    def misspelled(tables):
        return tables.numbers("test_acuracy", RELU)

    def divided(tables):
        return 1 / len(tables.info["name"][:0])

    with pytest.raises(
        ValueError, match="claim 'relu trains': unknown column of numbers in the table of runs 'te"
    ):
        verdict_of(claim(misspelled))
    with pytest.raises(ValueError, match="claim 'relu trains': ZeroDivisionError: division by zero"):
        verdict_of(claim(divided), name="x")
    with pytest.raises(
        TypeError, match="the rule of claim 'relu trains' must return a Measurement; got bool"
    ):
        verdict_of(claim(lambda _: True))
    with pytest.raises(ValueError, match="TypeError: agrees must be True, False or None; got 'agree'"):
        verdict_of(claim(returning(1.0, agrees="agree")))
    with pytest.raises(
        TypeError, match="a measurement takes an Estimate, as statistics.mean returns; got float"
    ):
        Measurement(0.5, True)  # type: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"name": ""}, ValueError, "a claim needs a name, a text; got ''"),
        ({"source": " "}, ValueError, "a claim needs a source, a text; got ' '"),
        ({"rule": 0.9}, TypeError, "the rule of claim 'relu trains' must be a function of Results"),
        ({"where": {"seeds": 3}}, TypeError, "where of claim 'relu trains' must be a Where"),
    ],
)
def test_claims_that_are_none(fields, error, message):
    with pytest.raises(error, match=message):
        claim(**fields)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"data": "mnist"}, TypeError, r"data must be a list of names; got 'mnist': write \['mnist'\]"),
        ({"seeds": 0}, ValueError, "seeds must be a number of seeds, 1 or more; got 0"),
    ],
)
def test_places_that_are_none(fields, error, message):
    with pytest.raises(error, match=message):
        Where(**fields)


@pytest.mark.parametrize(
    ("claims", "error", "message"),
    [
        (
            [claim(), claim()],
            ValueError,
            "study 'made-up' has two claims called 'relu trains': name them apart",
        ),
        (["he is right"], TypeError, r"claims of study 'made-up' must be a list of Claim\(...\); got 'he is"),
        (
            [claim(level("test_acuracy", RELU, at_least=0))],
            ValueError,
            "claim 'relu trains': unknown column of numbers in the table of runs 'test_acuracy'; did you mean 'test_",
        ),
        (
            [claim(level("test_accuracy", {"depth": 31}, at_least=0))],
            ValueError,
            r"claim 'relu trains': unknown value of the axis depth '31'; did you mean '3'\? Known: 3, 30",
        ),
        (
            [claim(where=Where(at_least={"widht": 3}))],
            ValueError,
            "claim 'relu trains': unknown setting of a study or option of plain 'widht'; did you mean 'width'",
        ),
        (
            [claim(where=Where(exactly={"depth": 3}))],
            ValueError,
            "'depth' is an axis of the grid: say which values",
        ),
        (
            [claim(where=Where(at_least={"padding": 3}))],
            ValueError,
            "'padding' is not a number but 'SAME': take",
        ),
    ],
)
def test_a_study_knows_its_claims_before_it_runs(claims, error, message):
    with pytest.raises(error, match=message):
        study(claims=claims)


def test_claims_do_not_decide_the_numbers():
    assert study(claims=[claim()]).as_config() == study().as_config()


def test_a_smaller_version_excludes_what_it_has_not():
    shallow = level("test_accuracy", {"activation": "relu", "depth": 3}, at_least=0)
    whole = study(claims=[claim(), claim(shallow, name="shallow")])
    small = whole.replace(grid={"activation": ["relu"], "depth": [3]})
    assert [bool(c.excluded) for c in small.claims] == [True, False]
    deep, shallow = evaluate(small.claims, results())
    assert deep.verdict == "not tested" and shallow.verdict == "agree"
    assert deep.note == (
        "other scale: this version of the study lacks what the claim is about (unknown value of the axis depth '30')"
    )
    untrained = whole.replace(steps=0)
    assert all("takes training" in c.excluded for c in untrained.claims)
    # What was left out once is not tested again.
    assert small.replace(grid=whole.grid).claims[0].excluded


def free_rule(tables):
    return Measurement(statistics.mean(tables.numbers("test_accuracy")), True)


@pytest.mark.parametrize(
    ("rule", "grid", "excluded"),
    [
        # "Both train at depth 3" says nothing where only one is left.
        (
            level("test_accuracy", {"depth": 3}, at_least=0),
            {"activation": ["relu"]},
            "no activation tanh, depth 3",
        ),
        (level("test_accuracy", {}, at_least=0), {"depth": [3]}, "no activation relu, depth 30"),
        (
            level("test_accuracy", lambda cell: cell["depth"] > 2, at_least=0),
            {"depth": [30]},
            "no activation relu, d",
        ),
        (level("test_accuracy", {"depth": 3}, at_least=0), {"depth": [3]}, ""),
        (
            difference("test_accuracy", RELU, {"depth": 3}, above=0),
            {"depth": [30]},
            "unknown value of the axis depth",
        ),
        (
            ordering("test_accuracy", RELU, {"depth": 30}),
            {"activation": ["relu"]},
            "no activation tanh, depth 30",
        ),
        (free_rule, {"depth": [3]}, "no activation relu, depth 30"),
        # More cells and more axes take nothing away.
        (free_rule, {"depth": [3, 30, 50]}, ""),
        (level("test_accuracy", RELU, at_least=0), {"depth": [3, 30], "skip": [False, True]}, ""),
    ],
)
def test_claims_go_with_their_cells(rule, grid, excluded):
    whole = study(claims=[claim(rule)])
    (carried,) = whole.replace(grid={**whole.grid, **grid}).claims
    assert carried.excluded.startswith(excluded) and bool(carried.excluded) == bool(excluded)


def test_an_axis_that_is_gone_takes_its_cells_away():
    whole = study(claims=[claim(level("test_accuracy", {"depth": 3}, at_least=0))])
    assert whole.replace(grid={"depth": [3]}).claims[0].excluded == "no activation relu, depth 3"


def test_claims_that_are_given_anew_are_checked():
    whole = study(claims=[claim()])
    assert not whole.replace(grid={**whole.grid, "depth": [30]}, claims=whole.claims).claims[0].excluded
    with pytest.raises(ValueError, match="claim 'relu trains': unknown axis of the grid 'activation'"):
        whole.replace(grid={"depth": [3]}, claims=whole.claims)


@pytest.mark.parametrize(
    "verdict",
    [
        claim().untested("unfinished"),
        claim(printed="6.61 ± 0.16")._judged(Measurement(statistics.mean([1.0, 2.0, 4.0]), True)),
        claim(printed=0.5)._judged(Measurement(statistics.median([-np.inf] * 2 + [1.0]), False, "a note")),
    ],
)
def test_verdicts_come_back_from_json(verdict):
    text = json.dumps(verdict.as_json(), allow_nan=False)
    assert Verdict.from_json(json.loads(text)) == verdict


def test_verdicts_are_stored_once(tmp_path, monkeypatch):
    verdicts = [verdict_of(claim())]
    write_verdicts(tmp_path, verdicts)
    assert read_verdicts(tmp_path) == verdicts
    monkeypatch.setattr(stored, "write_json", lambda *_: pytest.fail("they were written again"))
    write_verdicts(tmp_path, verdicts)
    write_verdicts(tmp_path, [])
    assert not list(tmp_path.iterdir()) and read_verdicts(tmp_path) == []


@pytest.mark.parametrize("text", ["[{", "[3]", '[{"name": "x"}]'])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "verdicts.json").write_text(text)
    with pytest.raises(
        ValueError, match=r"verdicts.json is damaged .* delete it and run the study's file again"
    ):
        read_verdicts(tmp_path)


TINY = Study(
    name="tiny",
    question="?",
    model="mlp",
    options={"width": 4},
    grid={"depth": [3, 4]},
    seeds=3,
    steps=2,
    record_every=1,
    batch_size=8,
    subset=60,
    claims=[
        claim(
            level("gradient_slope", {"depth": 3}, at_least=-9.0, at_most=9.0), name="no slope of nine decades"
        )
    ],
)


def test_a_study_is_judged_when_it_ends(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(
        "cnnjax.study.execute.judge",
        lambda claims, store: begun.extend(read_verdicts(store.folder)) or judge(claims, store),
    )
    store = run(TINY, tmp_path / "out", quiet=True)
    assert [verdict.note for verdict in begun] == ["unfinished"]
    (verdict,) = read_verdicts(store.folder)
    slopes = pd.read_parquet(store.folder / "runs.parquet").query("depth == 3")["gradient_slope"]
    assert verdict.verdict == "agree" and verdict.estimate == statistics.mean(slopes)
    # Another claim about the same tables.
    other = claim(level("gradient_slope", {"depth": 4}, at_least=9.0), name="slope of nine decades")
    run(TINY.replace(claims=[other]), store.folder, quiet=True)
    (verdict,) = read_verdicts(store.folder)
    assert (verdict.name, verdict.verdict) == ("slope of nine decades", "disagree")
    run(TINY.replace(claims=[]), store.folder, quiet=True)
    assert not (store.folder / "verdicts.json").exists()
    assert Store(store.folder).info["finished"]
