import pytest

from cnnjax.commands.options import RunOptions, parse_value
from cnnjax.study import Study

STUDY = Study(
    name="s",
    question="?",
    grid={
        "depth": [5, 10],
        "norm": [None, "batch"],
        "architecture": {"plain": {"skip": False}, "skip": {"skip": True}},
    },
    steps=100,
    quick={"steps": 25, "seeds": 1},
)


def test_nothing_is_replaced_by_default():
    assert RunOptions().apply(STUDY) == STUDY


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"data": "mnist"}, {"data": "mnist"}),
        ({"seeds": (4,)}, {"seeds": 4}),
        ({"seeds": (4, 7)}, {"seeds": (4, 7)}),
        ({"steps": 0}, {"steps": 0}),
        ({"learning_rates": (0.5, 0.1)}, {"learning_rates": (0.5, 0.1)}),
        ({"batch_size": 8, "subset": 100}, {"batch_size": 8, "subset": 100}),
        ({"record_every": 50}, {"record_every": 50}),
        ({"quick": True}, {"steps": 25, "seeds": 1}),
        ({"quick": True, "seeds": (3,)}, {"steps": 25, "seeds": 3}),
        ({"depths": (7, 8)}, {"grid": {**STUDY.grid, "depth": [7, 8]}}),
        ({"axis": (("norm", "none", "group"),)}, {"grid": {**STUDY.grid, "norm": [None, "group"]}}),
        (
            {"axis": (("architecture", "skip"), ("depth", "3"))},
            {"grid": {**STUDY.grid, "architecture": {"skip": {"skip": True}}, "depth": [3]}},
        ),
    ],
)
def test_fields_that_options_replace(options, fields):
    assert RunOptions(**options).apply(STUDY) == STUDY.replace(**fields)


@pytest.mark.parametrize(
    ("study", "options", "match"),
    [
        (STUDY.replace(quick={}), {"quick": True}, r"study 's' has no quick version"),
        (
            STUDY.replace(grid={"norm": [None]}),
            {"depths": (3,)},
            r"unknown axis of the grid 'depth'. Known: norm",
        ),
        (STUDY, {"axis": (("nrm", "batch"),)}, r"unknown axis of the grid 'nrm'; did you mean 'norm'"),
        (STUDY, {"axis": (("architecture", "plan"),)}, r"unknown variant of architecture 'plan'; did you"),
        (STUDY, {"axis": (("depth",),)}, r"--axis takes the name of an axis and its values"),
        (
            STUDY.replace(grid={"batch_size": [8, 16]}),
            {"batch_size": 8},
            r"compares values of batch_size, so --batch-size would do nothing: use --axis batch_size",
        ),
        (
            STUDY.replace(grid={"learning_rate": [0.1]}),
            {"learning_rates": (0.1,)},
            r"--learning-rates would do nothing: use --axis learning_rate",
        ),
        (STUDY, {"steps": 30}, r"steps=30 is not a multiple of record_every=25"),
        (STUDY, {"seeds": ()}, r"needs a seed"),
    ],
)
def test_options_that_do_not_fit(study, options, match):
    with pytest.raises(ValueError, match=match):
        RunOptions(**options).apply(study)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-3", 1e-3),
        ("none", None),
        ("True", True),
        ("false", False),
        ("relu", "relu"),
        ("[1,2]", [1, 2]),
    ],
)
def test_parse_value(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)
