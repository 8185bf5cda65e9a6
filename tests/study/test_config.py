import pytest

from cnnjax import initializers
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
        ({"seeds": [3, 3]}, "seeds has 3 twice; got"),
        ({"seeds": [-1, 2]}, "seeds has a value out of range: -1"),
        ({"seeds": [2**32]}, "seeds has a value out of range: 4294967296"),
        ({"learning_rates": [0.1, 0.1]}, "learning_rates has 0.1 twice"),
        ({"learning_rates": [float("nan")]}, "learning_rates has a value out of range: nan"),
        ({"learning_rates": [-1.0]}, "learning_rates has a value out of range: -1.0"),
        ({"grid": {"depth": [10, 10]}}, "axis 'depth' of the grid has 10 twice"),
        ({"quick": {"stps": 3}}, "unknown field of a study, in quick, 'stps'; did you mean 'steps'"),
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


def test_functions_are_told_apart_by_name_and_by_what_they_were_made_with():
    def config(value):
        return make(options={"initializer": value}).as_config()

    assert config(initializers.orthogonal()) == config(initializers.orthogonal(gain=1.0))
    assert config(initializers.orthogonal()) != config(initializers.orthogonal(gain=2.0))
    assert config(initializers.he_normal()) != config(initializers.lecun_normal())
    assert config(initializers.he_normal) != config(initializers.lecun_normal)
    with pytest.raises(TypeError, match="a lambda cannot be told from another one"):
        config(lambda key, shape, dtype: None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"grid": {"depth": 10}}, "axis 'depth' of the grid must be a list of values; got 10: write"),
        (
            {"grid": {"activation": "relu"}},
            "axis 'activation' of the grid must be a list of values; got 'relu'",
        ),
        ({"learning_rates": 0.1}, "learning_rates must be a list of values; got 0.1"),
        ({"seeds": 2.0}, "seeds must be a list of values; got 2.0"),
        ({"seeds": "3"}, "seeds must be a list of values; got '3'"),
        ({"steps": "4"}, "steps must be an integer; got '4'"),
    ],
)
def test_a_field_of_another_type(fields, message):
    with pytest.raises(TypeError, match=message):
        make(**fields)
