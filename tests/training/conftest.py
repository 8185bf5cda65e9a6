import jax
import pytest


@pytest.fixture(scope="module")
def optax_promotes():
    """Adam's bias correction in Optax, and some of its schedules, promote types."""
    with jax.numpy_dtype_promotion("standard"):
        yield
