import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cnnjax.functional.padding import (
    check_window_fits,
    effective_window,
    pad_circular,
    per_axis,
    resolve_padding,
)


@pytest.mark.parametrize("value, expected", [(2, (2, 2, 2)), ((1, 2, 3), (1, 2, 3)), ([4, 5, 6], (4, 5, 6))])
def test_per_axis(value, expected):
    assert per_axis(value, 3, "stride") == expected


def test_per_axis_makes_plain_integers():
    assert all(type(entry) is int for entry in per_axis(np.int64(2), 2, "stride"))


@pytest.mark.parametrize(
    "value, error, text",
    [
        (0, ValueError, "stride must be positive, got 0"),
        ((1, -2), ValueError, r"stride must be positive, got \(1, -2\)"),
        ((1, 2, 3), ValueError, r"one entry per spatial axis \(2\), got \(1, 2, 3\)"),
        (1.5, TypeError, "stride must be an int or a sequence of 2 ints, got 1.5"),
        ((1, 2.0), TypeError, "stride must be an int"),
        ("22", TypeError, "stride must be an int"),
        (True, TypeError, "stride must be an int"),
        (None, TypeError, "stride must be an int"),
    ],
)
def test_per_axis_errors(value, error, text):
    with pytest.raises(error, match=text):
        per_axis(value, 2, "stride")


@pytest.mark.parametrize("size", [1, 5, 8])
@pytest.mark.parametrize("window", [1, 2, 3, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_same_is_that_of_xla(size, window, stride, dilation):
    extent = (window - 1) * dilation + 1
    expected = lax.padtype_to_pads([size], [extent], [stride], "SAME")
    assert effective_window(window, dilation) == extent
    for name in ("SAME", "same", "CIRCULAR"):
        assert resolve_padding(name, (size,), (window,), stride=(stride,), dilation=(dilation,)) == tuple(
            map(tuple, expected)
        )


@pytest.mark.parametrize(
    "padding, expected",
    [
        ("VALID", ((0, 0), (0, 0))),
        ("valid", ((0, 0), (0, 0))),
        ("FULL", ((2, 2), (4, 4))),  # 3 taps; 3 taps with dilation 2 span 5
        (1, ((1, 1), (1, 1))),
        (((0, 1), [2, 3]), ((0, 1), (2, 3))),
    ],
)
def test_resolve_padding(padding, expected):
    assert resolve_padding(padding, (8, 8), (3, 3), stride=(1, 1), dilation=(1, 2)) == expected


@pytest.mark.parametrize(
    "padding, error, text",
    [
        ("REFLECT", ValueError, "unknown padding 'REFLECT': use 'VALID', 'SAME', 'FULL', 'CIRCULAR', an int"),
        (-1, ValueError, "must not be negative"),
        (((0, 0), (0, -1)), ValueError, "must not be negative"),
        (((1, 1),), ValueError, r"one pair per spatial axis \(2\)"),
        ((1, 1), TypeError, r"one \(low, high\) pair per spatial axis, got \(1, 1\)"),
        (((1, 1), (1,)), TypeError, "padding must be 'VALID'"),
        (((1, 1), (1, 0.5)), TypeError, "padding must be 'VALID'"),
        (1.5, TypeError, "padding must be 'VALID'"),
        (None, TypeError, "padding must be 'VALID'"),
    ],
)
def test_resolve_padding_errors(padding, error, text):
    with pytest.raises(error, match=text):
        resolve_padding(padding, (8, 8), (3, 3), stride=(1, 1), dilation=(1, 1))


def test_window_that_just_fits_the_padded_input():
    check_window_fits((3, 4), ((1, 1), (0, 1)), (3, 5), (2, 1))


def test_window_larger_than_the_padded_input():
    text = (
        "window larger than the padded input along spatial axis 1: window size 3 with dilation 2 spans 5, "
        r"input size 2 with padding \(1, 1\) is 4. Use a smaller window, less dilation or more padding"
    )
    with pytest.raises(ValueError, match=text):
        check_window_fits((9, 2), ((0, 0), (1, 1)), (3, 3), (1, 2), name="window")


def test_pad_circular_continues_periodically(rng):
    x = rng.normal(size=(2, 4, 3, 2)).astype(np.float32)
    padded = pad_circular(jnp.asarray(x), ((1, 2), (3, 0)))
    rows, columns = np.arange(-1, 6) % 4, np.arange(-3, 3) % 3
    np.testing.assert_array_equal(padded, x[:, rows][:, :, columns])


def test_pad_circular_errors():
    x = jnp.zeros((1, 4, 3, 1))
    with pytest.raises(ValueError, match=r"circular padding \(0, 4\) exceeds the size 3 of spatial axis 1"):
        pad_circular(x, ((0, 0), (0, 4)))
    with pytest.raises(ValueError, match=r"one \(low, high\) pair per spatial axis \(2\)"):
        pad_circular(x, ((0, 0),))


def test_pad_circular_gradient_counts_the_copies():
    gradient = jax.grad(lambda x: pad_circular(x, ((1, 2),)).sum())(jnp.zeros((1, 4, 1)))
    np.testing.assert_array_equal(gradient[0, :, 0], [2, 2, 1, 2])
