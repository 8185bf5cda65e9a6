import pytest

from cnnjax.study import Study


def make(**fields):
    return Study(**{"name": "s", "question": "?", "grid": {"depth": [3]}, **fields})


@pytest.mark.parametrize("grid", [{}, {"depth": []}, {"depth": [3], "arm": {}}])
def test_empty_grid(grid):
    with pytest.raises(ValueError, match="the grid of study 's' is empty: give every axis a value"):
        make(grid=grid)


@pytest.mark.parametrize("fields", [{"seeds": 0}, {"seeds": []}, {"learning_rates": []}])
def test_nothing_to_run(fields):
    with pytest.raises(ValueError, match="study 's' needs a seed and a learning rate"):
        make(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizer": "momentun"}, "unknown optimizer 'momentun'; did you mean 'momentum'"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin'; did you mean 'cosine'"),
        ({"steps": -1}, "steps must be 0 or more"),
        ({"batch_size": 0}, "batch_size and record_every 1 or more"),
        ({"steps": 130, "record_every": 25}, "not a multiple of record_every=25: take 125 or 150 steps"),
    ],
)
def test_fields_that_do_not_fit(fields, message):
    with pytest.raises(ValueError, match=message):
        make(**fields)


def test_seeds_are_counted_or_listed():
    assert make(seeds=3).seed_list == (0, 1, 2)
    assert make(seeds=[7, 5]).seed_list == (7, 5)


def test_configuration_holds_what_decides_the_numbers_and_no_words():
    study = make(question="one", seeds=2)
    assert study.as_config() == make(question="another", seeds=[0, 1]).as_config()
    assert study.as_config() != study.replace(steps=400).as_config()
