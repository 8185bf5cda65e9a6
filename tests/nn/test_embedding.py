import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import nn

from ..drawn import variables

TOKENS = jnp.array([[3, 0, 3], [1, 2, 4]], jnp.int32)


def test_each_token_is_its_row_of_the_table():
    module = nn.Embed(5, 4)
    made = variables(module, TOKENS)
    table = np.asarray(made["params"]["embedding"])
    assert table.shape == (5, 4)
    np.testing.assert_array_equal(module.apply(made, TOKENS), table[np.asarray(TOKENS)])


def test_a_row_receives_the_gradients_of_all_its_places():
    module = nn.Embed(6, 2)
    made = variables(module, TOKENS)
    weights = jnp.arange(12.0).reshape(2, 3, 2)
    gradient = jax.grad(lambda made: jnp.sum(weights * module.apply(made, TOKENS)))(made)["params"][
        "embedding"
    ]
    expected = np.zeros((6, 2))
    np.add.at(expected, np.asarray(TOKENS), weights)
    np.testing.assert_array_equal(gradient, expected)


def test_tokens_outside_of_the_vocabulary_are_not_hidden():
    module = nn.Embed(5, 4)
    made = variables(module, TOKENS)
    for token in (5, -1, -5):
        found = module.apply(made, jnp.array([[token, 2]]))
        assert np.all(np.isnan(found[0, 0])) and np.all(np.isfinite(found[0, 1]))


def test_types():
    made = variables(nn.Embed(5, 4), TOKENS)
    assert nn.Embed(5, 4).apply(made, TOKENS).dtype == jnp.float32
    assert nn.Embed(5, 4, dtype=jnp.bfloat16).apply(made, TOKENS.astype(jnp.uint8)).dtype == jnp.bfloat16
    wide = variables(nn.Embed(300, 4), TOKENS)
    assert np.all(np.isfinite(nn.Embed(300, 4).apply(wide, TOKENS.astype(jnp.uint8))))
    with pytest.raises(TypeError, match="takes tokens as integers, such as int32; got float32"):
        nn.Embed(5, 4).apply(made, TOKENS.astype(jnp.float32))
