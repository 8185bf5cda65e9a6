import jax
import pytest


@pytest.fixture
def optax_promotes():
    """Adam's bias correction in Optax promotes types."""
    with jax.numpy_dtype_promotion("standard"):
        yield
