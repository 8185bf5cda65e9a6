import dataclasses

import pytest

from cnnjax import initializers
from cnnjax.nn import GroupNorm
from cnnjax.optim import Optimizer, Schedule, title
from cnnjax.study import Study, plan


def make(**fields):
    return Study(**{"name": "s", "question": "?", "model": "mlp", "options": {"width": 4}, **fields})


def test_numbers_and_initializers_share_a_program():
    grid = {"initializer": ["he_normal", "orthogonal"], "gain": [0.5, 1.0, 2.0]}
    (program,) = plan(make(grid=grid, seeds=2, learning_rates=[0.1, 0.01]))
    assert len(program.runs) == 2 * 3 * 2 * 2
    assert "gain" not in program.options and "initializer" not in program.options
    assert {run.numbers["gain"] for run in program.runs} == {0.5, 1.0, 2.0}


@pytest.mark.parametrize(
    "grid",
    [{"activation": ["relu", "tanh"]}, {"depth": [3, 4]}, {"norm": [None, "batch"]}, {"batch_size": [8, 16]}],
)
def test_structure_makes_programs(grid):
    first, second = plan(make(grid=grid, seeds=1))
    assert (len(first.runs), len(second.runs)) == (1, 1)


def test_every_cell_seed_and_rate_is_run_once_in_the_order_of_the_grid():
    grid = {"activation": ["relu", "tanh"], "initializer": ["he_normal", "xavier_normal"]}
    programs = plan(make(grid=grid, seeds=[3, 4], learning_rates=[0.1, 0.2]))
    runs = sorted((run for program in programs for run in program.runs), key=lambda run: run.run)
    assert [run.run for run in runs] == list(range(16))
    keys = [(*run.labels.values(), run.learning_rate, run.seed) for run in runs]
    assert keys[:3] == [
        ("relu", "he_normal", 0.1, 3),
        ("relu", "he_normal", 0.1, 4),
        ("relu", "he_normal", 0.2, 3),
    ]
    assert len(set(keys)) == 16
    assert [run.cell for run in runs] == [i // 4 for i in range(16)]


def test_named_variants_set_several_options_and_may_change_the_model():
    arms = {"mlp": {"depth": 3}, "conv": {"model": "plain", "depth": 4, "norm": "batch"}}
    first, second = plan(make(grid={"arm": arms}, seeds=1))
    assert first.runs[0].labels == {"arm": "mlp"}
    assert (second.model, second.options["norm"]) == ("plain", "batch")


def test_a_learning_rate_axis_replaces_the_search():
    (program,) = plan(make(grid={"learning_rate": [0.5, 0.25]}, seeds=1, learning_rates=[1, 2, 3]))
    assert [run.learning_rate for run in program.runs] == [0.5, 0.25]


def test_an_optimizer_of_ones_own_is_called_by_what_it_has():
    usual = Optimizer(options={"momentum": 0.9})
    values = ["momentum", usual, dataclasses.replace(usual, clip="norm")]
    study = make(grid={"optimizer": values}, seeds=1, schedule=Schedule(name="cosine", warmup="5 %"))
    first, second = plan(study)
    assert first.optimizer == usual and first.schedule.warmup == "5 %"
    labels = [run.labels["optimizer"] for program in (first, second) for run in program.runs]
    assert labels == ["momentum", "sgd(momentum=0.9)", "sgd(momentum=0.9, clip=norm)"]
    one, other = {"momentum": 0.9, "nesterov": True}, {"nesterov": True, "momentum": 0.9}
    assert title(Optimizer(options=one)) == title(Optimizer(options=other))
    config = study.as_config()
    assert config["grid"]["optimizer"] == labels and config["schedule"] == "cosine(warmup=5 %)"


def test_none_is_labeled():
    assert plan(make(grid={"norm": [None, "batch"]}, seeds=1))[0].runs[0].labels == {"norm": "none"}


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"activaton": ["relu"]}, "did you mean 'activation'"),
        ({"activation": ["rellu"]}, "unknown activation 'rellu'; did you mean 'relu'"),
        ({"initializer": ["he_norm"]}, "unknown initializer 'he_norm'; did you mean 'he_normal'"),
        ({"model": ["plane"]}, "unknown model 'plane'; did you mean 'plain'"),
        ({"depth": [-3]}, "depth counts the layers with weights"),
        ({"optimizer": ["sdg"]}, "unknown optimizer 'sdg'; did you mean 'sgd'"),
    ],
)
def test_values_that_do_not_exist(grid, message):
    with pytest.raises(ValueError, match=message):
        plan(make(grid=grid))


def test_two_values_with_one_name():
    values = [initializers.orthogonal(), initializers.orthogonal(gain=2.0)]
    with pytest.raises(
        ValueError, match="two values of the axis 'initializer' are both called 'initialize': name"
    ):
        plan(make(grid={"initializer": values}))
    named = {name: {"initializer": value} for name, value in zip("ab", values, strict=True)}
    assert len(plan(make(grid={"initializer": named}))) == 1


@pytest.mark.parametrize(
    "grid",
    [
        {"depth": [4], "arm": {"shallow": {"depth": 3}, "tanh": {"activation": "tanh"}}},
        {"one": {"a": {"depth": 3}}, "other": {"b": {"depth": 4}}},
    ],
)
def test_two_axes_that_set_the_same(grid):
    with pytest.raises(ValueError, match="of the grid both set 'depth': let one do it"):
        plan(Study(name="s", question="?", grid=grid))


def test_the_title_names_what_is_made_by_a_function():
    (program,) = plan(make(grid={"depth": [3]}, options={"norm": GroupNorm}))
    assert program.title == "mlp(norm=GroupNorm, depth=3)"
