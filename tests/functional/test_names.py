import pytest

from cnnjax.functional.names import lookup

TABLE = {"relu": 1, "elu": 2, "tanh": 3}


def test_lookup_returns_the_entry():
    assert lookup(TABLE, "elu", "activation") == 2


@pytest.mark.parametrize("name", ["rellu", "ReLU"])
def test_unknown_name_is_answered_with_the_nearest_and_all_known(name):
    text = f"^unknown activation '{name}'; did you mean 'relu'\\? Known: elu, relu, tanh$"
    with pytest.raises(ValueError, match=text):
        lookup(TABLE, name, "activation")


def test_unknown_name_near_nothing_gets_no_guess():
    with pytest.raises(ValueError, match="^unknown norm 'xyz'. Known: elu, relu, tanh$"):
        lookup(TABLE, "xyz", "norm")


@pytest.mark.parametrize("name", [3, None, ["relu"]])
def test_name_must_be_a_string(name):
    with pytest.raises(TypeError, match="name of the activation must be a string, got"):
        lookup(TABLE, name, "activation")
