import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from cnnjax.functional import ACTIVATIONS
from cnnjax.functional.activation import gaussian_mean
from cnnjax.probes.quadrature import Response, response
from cnnjax.probes.rules import pair_rule

everyone = pytest.mark.parametrize("name", ACTIVATIONS)
CORRELATIONS = (-1.0, -0.6, 0.0, 0.5, 0.9, 0.9999, 1.0)


def normal(z):
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


# Closed forms.


@pytest.mark.parametrize("q", [1e-9, 1.0, 3.7, 1e9])
@pytest.mark.parametrize("c", CORRELATIONS)
def test_relu_is_the_arc_cosine_kernel(q, c):
    # Cho & Saul 2009, equations 3 to 6, of degree 1 and 0.
    theta = math.acos(c)
    kernel, slopes = response("relu").pair(q, c)
    assert kernel / q == pytest.approx((math.sin(theta) + (math.pi - theta) * c) / (2 * math.pi), abs=1e-13)
    assert slopes == pytest.approx((math.pi - theta) / (2 * math.pi), abs=1e-13)


@pytest.mark.parametrize(("q", "tolerance"), [(1e-4, 1e-13), (1.0, 1e-13), (9.0, 1e-8), (100.0, 1e-6)])
@pytest.mark.parametrize("c", CORRELATIONS)
def test_erf_is_the_arc_sine_kernel(q, tolerance, c):
    # Williams 1997, equation 11.
    kernel, slopes = response(jax.scipy.special.erf).pair(q, c)
    assert kernel == pytest.approx(2 / math.pi * math.asin(2 * q * c / (1 + 2 * q)), abs=tolerance)
    assert slopes == pytest.approx(
        4 / math.pi / math.sqrt((1 + 2 * q) ** 2 - (2 * q * c) ** 2), abs=tolerance
    )


@pytest.mark.parametrize("q", [1e-9, 0.3, 1e9])
@pytest.mark.parametrize("c", CORRELATIONS)
def test_the_identity_keeps_correlation(q, c):
    kernel, slopes = response("identity").pair(q, c)
    assert (kernel / q, slopes) == pytest.approx((c, 1), abs=1e-13)


@pytest.mark.parametrize("q", [1e-6, 1.0, 50.0])
def test_moments_of_erf(q):
    found = response(jax.scipy.special.erf).moments(q)
    assert found.second == pytest.approx(2 / math.pi * math.asin(2 * q / (1 + 2 * q)), rel=1e-13)
    assert found.slope_second == pytest.approx(4 / math.pi / math.sqrt(1 + 4 * q), rel=1e-13)


# Against other quadratures.


@everyone
@pytest.mark.parametrize("q", [1e-3, 1.0, 20.0])
def test_moments_agree_with_quadpack(name, q):
    row, root = ACTIVATIONS[name], math.sqrt(q)
    points = sorted({-12.0, -1 / root, 0.0, 1 / root, 12.0, *(k / root for k in row.kinks)})
    points = [p for p in points if abs(p) <= 12]

    def mean(power):
        parts = [
            integrate.quad(
                lambda z: row.reference(np.float64(root * z)) ** power * normal(z), a, b, epsabs=1e-13
            )[0]
            for a, b in zip(points[:-1], points[1:], strict=True)
        ]
        return sum(parts)

    found = response(name).moments(q)
    assert (found.mean, found.second) == pytest.approx((mean(1), mean(2)), rel=1e-8, abs=1e-11)


@everyone
def test_it_is_the_quadrature_of_the_gains(name):
    row = ACTIVATIONS[name]
    assert response(name).moments(1.0).second == pytest.approx(row.gain**-2, rel=1e-12)
    slopes = gaussian_mean(
        lambda z: response(name).evaluate(np.ravel(z))[1].reshape(z.shape) ** 2, splits=row.kinks
    )
    assert response(name).moments(1.0).slope_second == pytest.approx(slopes, rel=1e-12)


@everyone
@pytest.mark.parametrize("q", [0.01, 1.0, 10.0])
def test_a_pair_of_equals_is_one_variable(name, q):
    phi = response(name)
    found = phi.moments(q)
    assert phi.pair(q, 1.0) == pytest.approx((found.second, found.slope_second), rel=1e-8)
    # Independent variables.
    assert phi.pair(q, 0.0)[0] == pytest.approx(found.mean**2, rel=1e-8, abs=1e-8 * found.second)


@everyone
def test_the_derivative_of_the_map_is_the_map_of_derivatives(name):
    phi, q, c, step = response(name), 0.8, 0.35, 1e-5
    difference = (phi.pair(q, c + step)[0] - phi.pair(q, c - step)[0]) / (2 * step)
    assert difference / q == pytest.approx(phi.pair(q, c)[1], rel=1e-8)


@everyone
def test_growth_is_the_derivative_of_the_second_moment(name):
    phi, q, step = response(name), 0.8, 1e-5
    difference = (phi.moments(q + step).second - phi.moments(q - step).second) / (2 * step)
    assert phi.moments(q).growth == pytest.approx(difference, rel=1e-8)


def test_many_q_at_once():
    phi, q = response("tanh"), np.geomspace(1e-6, 1e6, 300).reshape(3, 100)
    together = phi.moments(q)
    assert together.second.shape == (3, 100)
    assert together.second[1, 7] == pytest.approx(float(phi.moments(q[1, 7]).second), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "powers"),
    [("relu", ((1, 0), (1, 0))), ("tanh", ((1, 0), (0, -0.5))), ("sigmoid", ((0, 0), (0, -0.5)))],
)
def test_power_laws_beyond_the_range(name, powers):
    phi = response(name)
    np.testing.assert_allclose(phi.powers, powers, atol=1e-4)
    low, high = phi.log_moments(np.log([1e-12, 1e18]))[0]
    below, above = phi.log_moments(np.array([math.log(1e-12) - 5000, math.log(1e18) + 5000]))[0]
    assert (below - low, above - high) == pytest.approx((-5000 * powers[0][0], 5000 * powers[1][0]), abs=1)


def test_projections_of_a_sphere():
    # E[(x . a)^2 (x . b)^2] = n^2 (1 + 2 c^2) / (n (n + 2)) for |x|^2 = n.
    for n, c in ((3, 0.2), (7, -0.5), (200, 0.9)):
        rule = pair_rule(c, dimension=n)
        assert rule.weight.sum() == pytest.approx(1, abs=1e-9)
        assert rule.weight @ (rule.u * rule.v) == pytest.approx(c, abs=1e-9)
        fourth = rule.weight @ (rule.u**2 * rule.v**2)
        assert fourth == pytest.approx(n / (n + 2) * (1 + 2 * c * c), rel=1e-9)


# Functions of a user's own.


def test_kinks_are_found():
    assert response(lambda x: jnp.clip(x, -0.3, 2.0)).kinks == pytest.approx((-0.3, 2.0), abs=1e-8)
    assert response(jax.nn.relu).kinks == (0.0,)
    assert response(lambda x: jnp.sin(3 * x)).kinks == ()


def test_a_function_of_your_own_is_as_good_as_a_row():
    own, row = response(lambda x: jnp.where(x > 0, x, 0.01 * x)), response("leaky_relu")
    assert own.pair(1.3, 0.4) == pytest.approx(row.pair(1.3, 0.4), abs=1e-12)
    assert isinstance(own, Response) and response(own) is own
    given = response(lambda x: jnp.abs(x - 1), kinks=(1.0,))
    # E (u - 1)^2 = q + 1
    assert given.moments(2.0).second == pytest.approx(3, rel=1e-13)


def test_precision_of_jax_is_left_alone():
    response("tanh").pair(1.0, 0.5)
    assert jnp.asarray(1.0).dtype == jnp.float32


# Bad input.


def test_what_is_not_elementwise_is_refused():
    with pytest.raises(
        ValueError, match="'softmax' is not elementwise: an entry of its result changes with other"
    ):
        response(jax.nn.softmax)
    with pytest.raises(ValueError, match=r"'glu' is not elementwise: it maps shape \(6400,\) to \(3200,\)"):
        response(jax.nn.glu)


def test_other_bad_input():
    with pytest.raises(ValueError, match="'nothing' is constant: it lets no signal through"):

        def nothing(x):
            return 0 * x

        response(nothing)
    with pytest.raises(ValueError, match="unknown activation 'thanh'; did you mean 'tanh'"):
        response("thanh")
    with pytest.raises(ValueError, match="a correlation lies between -1 and 1, got 1.5"):
        response("relu").pair(1.0, 1.5)
