import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import explain
from cnnjax.explain.target import chosen_scores, resolve_target

from . import small

SCORES = jnp.array([[1.0, 3.0, 2.0], [5.0, 3.0, 2.0]])


@pytest.mark.parametrize(
    ("target", "classes"),
    [
        (None, [1, 0]),
        (2, [2, 2]),
        (np.int64(2), [2, 2]),
        (np.array([0, 2]), [0, 2]),
        (jnp.array([0, 2]), [0, 2]),
    ],
)
def test_targets(target, classes):
    found = resolve_target(SCORES, target)
    assert found.dtype == jnp.int32 and found.tolist() == classes
    np.testing.assert_array_equal(chosen_scores(SCORES, found), np.asarray(SCORES)[[0, 1], classes])


@pytest.mark.parametrize(
    ("target", "error", "match"),
    [
        (3, ValueError, "target must be a class from 0 to 2, as the model has 3; got 3"),
        (-1, ValueError, "got -1"),
        (np.array([0, 7]), ValueError, "got 7"),
        ([[0]], TypeError, "target must be the index of a class"),
        (np.array([0, 1, 2]), ValueError, r"one for each of the 2 images; got shape \(3,\)"),
        (1.0, TypeError, "an integer from 0 to 2; got 1.0"),
        (True, TypeError, "got True"),
        ("cat", TypeError, "got 'cat'"),
    ],
)
def test_errors(target, error, match):
    with pytest.raises(error, match=match):
        resolve_target(SCORES, target)


def test_a_traced_target_that_there_is_not_gives_nan():
    found = jax.jit(lambda t: chosen_scores(SCORES, resolve_target(SCORES, t)))(3)
    assert np.isnan(found).all()


@pytest.mark.parametrize("method", explain.METHODS)
def test_every_method_explains_the_predicted_class_and_refuses_others(method):
    model, made, x = small.one_conv()
    classes = np.argmax(model.apply(made, x), axis=-1)
    run = jax.jit(lambda v: [explain.explain(method, model, v, x, target=t).maps for t in (None, classes)])
    runs = run(made)
    np.testing.assert_allclose(*runs, rtol=1e-5, atol=1e-7)
    assert runs[0].shape == (2, 6, 5) and np.isfinite(runs[0]).all()
    with pytest.raises(ValueError, match="target must be a class from 0 to 2"):
        explain.explain(method, model, made, x, target=3)
