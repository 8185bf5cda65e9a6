import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import models
from cnnjax.functional import ACTIVATIONS
from cnnjax.probes import (
    batch_norm_rate,
    critical_line,
    gradient_flow,
    mean_field,
    normalizer_free_gain,
    residual_trajectory,
    trajectory,
    zero_padding_factor,
)
from cnnjax.probes.quadrature import response

everyone = pytest.mark.parametrize("name", ACTIVATIONS)

# Fixed points.

# papers.md, "Critical line of tanh": sigma_b2, sigma_w2, q*.
TANH_LINE = [
    (1e-6, 1.01825, 0.00925),
    (2e-5, 1.04991, 0.02587),
    (1e-4, 1.08603, 0.04571),
    (1e-3, 1.18919, 0.10729),
    (0.01, 1.42421, 0.27330),
    (0.05, 1.76095, 0.57005),
    (0.1, 1.98607, 0.80580),
    (0.2, 2.28515, 1.16450),
    (0.3, 2.50513, 1.46117),
]


@pytest.mark.parametrize(("sigma_b2", "sigma_w2", "q"), TANH_LINE)
def test_the_critical_line_of_tanh(sigma_b2, sigma_w2, q):
    found = critical_line("tanh", sigma_b2)
    # The table has five decimals.
    assert found == pytest.approx(sigma_w2, abs=0.6e-5)
    field = mean_field("tanh", sigma_w2=found, sigma_b2=sigma_b2)
    assert field.q_star == pytest.approx(q, abs=0.6e-5)
    assert (field.chi_1, field.phase, field.c_star) == (1, "critical", 1)
    assert math.isinf(field.xi_c) and math.isinf(field.xi_grad)


# Schoenholz et al. 2017, figure 5, by papers.md: sigma_w2 and 6 xi_c at sigma_b2 = 0.05, as printed there.
@pytest.mark.parametrize(
    ("sigma_w2", "six_xi", "digits"),
    [
        (0.5, 7.1, 0.05),
        (1.0, 21.8, 0.05),
        (1.4, 64, 0.5),
        (1.6, 162, 0.5),
        (1.8, 755, 0.5),
        (2.0, 151, 0.5),
        (3.0, 54, 0.5),
    ],
)
def test_depth_scales_of_schoenholz(sigma_w2, six_xi, digits):
    field = mean_field("tanh", sigma_w2=sigma_w2, sigma_b2=0.05)
    assert 6 * field.xi_c == pytest.approx(six_xi, abs=digits)
    assert field.phase == ("ordered" if sigma_w2 < 1.76095 else "chaotic")
    assert (field.xi_grad > 0) == (field.phase == "ordered")


def test_the_fixed_point_of_a_relu():
    # q = sigma_w2 q / 2 + sigma_b2.
    field = mean_field("relu", sigma_w2=1.5, sigma_b2=0.1)
    assert (field.q_star, field.chi_1, field.c_star) == pytest.approx((0.4, 0.75, 1), rel=1e-12)
    assert field.phase == "ordered"
    assert (field.xi_q, field.xi_c, field.xi_grad) == pytest.approx((-1 / math.log(0.75),) * 3, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "sigma_w2"), [("relu", 2.0), ("identity", 1.0), ("prelu", 2 / (1 + 0.25**2))]
)
def test_where_every_q_is_a_fixed_point(name, sigma_w2):
    field = mean_field(name, sigma_w2=sigma_w2, sigma_b2=0.0)
    assert (field.q_star, field.chi_1, field.c_star) == pytest.approx((1, 1, 1), rel=1e-12)
    assert field.phase == "critical"
    assert field.xi_q == math.inf
    assert critical_line(name, 0.0) == pytest.approx(sigma_w2, rel=1e-12)


def test_the_fixed_point_of_erf():
    # Poole et al. 2016, with E[erf^2] and E[erf'^2] in closed form.
    def second(q):
        return 2 / math.pi * math.asin(2 * q / (1 + 2 * q))

    q, sigma_w2 = 1.5, 2.4
    sigma_b2 = q - sigma_w2 * second(q)
    field = mean_field(jax.scipy.special.erf, sigma_w2=sigma_w2, sigma_b2=sigma_b2)
    assert field.q_star == pytest.approx(q, rel=1e-12)
    assert field.chi_1 == pytest.approx(sigma_w2 * 4 / math.pi / math.sqrt(1 + 4 * q), rel=1e-12)
    c = field.c_star
    mapped = (sigma_w2 * 2 / math.pi * math.asin(2 * q * c / (1 + 2 * q)) + sigma_b2) / q
    assert field.phase == "chaotic" and 0 < c < 1 and mapped == pytest.approx(c, abs=1e-10)


def test_an_odd_activation_without_biases_makes_inputs_orthogonal():
    field = mean_field("tanh", sigma_w2=2.0, sigma_b2=0.0)
    assert (field.phase, field.c_star) == ("chaotic", 0)
    # chi_c = sigma_w2 E[phi']^2 at c = 0.
    slopes = response("tanh").pair(field.q_star, 0.0)[1]
    assert field.chi_c == pytest.approx(2 * slopes)


def test_signals_that_fade_away():
    field = mean_field("tanh", sigma_w2=0.9, sigma_b2=0.0)
    assert (field.q_star, field.phase) == (0, "ordered")
    assert field.chi_1 == pytest.approx(0.9)


@everyone
def test_every_activation_has_a_fixed_point_with_biases(name):
    sigma_w2 = 0.8 * ACTIVATIONS[name].gain ** 2
    field = mean_field(name, sigma_w2=sigma_w2, sigma_b2=0.1)
    found = response(name).moments(field.q_star)
    assert sigma_w2 * found.second + 0.1 == pytest.approx(field.q_star, rel=1e-10)
    assert sigma_w2 * found.slope_second == pytest.approx(field.chi_1, rel=1e-10)
    # The distance from a fixed point shrinks by e in xi_q layers.
    path = trajectory(name, depth=3, q=field.q_star * 1.0001, c=0.0, sigma_w2=sigma_w2, sigma_b2=0.1)
    distance = 10**path.log10_second_moment - field.q_star
    assert distance[1] / distance[0] == pytest.approx(math.exp(-1 / field.xi_q), rel=1e-3)


def test_the_slope_of_the_correlation_map_is_the_rate_of_convergence():
    field = mean_field("tanh", sigma_w2=2.0, sigma_b2=0.05)
    path = trajectory("tanh", depth=60, q=field.q_star, c=0.2, sigma_w2=2.0, sigma_b2=0.05).correlation
    assert (path[-1] - field.c_star) / (path[-2] - field.c_star) == pytest.approx(field.chi_c, rel=1e-2)
    assert field.xi_c == pytest.approx(-1 / math.log(field.chi_c))


# Trajectories.


def test_ten_thousand_layers_of_relu():
    path = trajectory("relu", depth=10_000, q=1.0, c=0.3, sigma_w2=1.0, sigma_b2=0.0)
    np.testing.assert_allclose(path.log10_second_moment, -np.arange(10_000) * math.log10(2), rtol=1e-10)
    np.testing.assert_allclose(
        path.gradient_log10_second_moment, -np.arange(9_999, -1, -1) * math.log10(2), rtol=1e-9
    )
    # Cho & Saul 2009: the map of c, twice; and 1 - c falls as 9 pi^2 / (2 l^2) (Hayou et al. 2019, proposition 1).
    c = 0.3
    for layer in range(3):
        assert path.correlation[layer] == pytest.approx(c, abs=1e-10)
        c = (math.sqrt(1 - c * c) + (math.pi - math.acos(c)) * c) / math.pi
    assert (1 - path.correlation[-1]) * 1e8 * 2 / (9 * math.pi**2) == pytest.approx(1, rel=0.05)


def test_the_correlation_of_a_critical_tanh():
    # At first order, as the map of q and c themselves says.
    sigma_w2, sigma_b2 = critical_line("tanh", 2e-5), 2e-5
    path = trajectory("tanh", depth=400, q=1.0, c=0.3, sigma_w2=sigma_w2, sigma_b2=sigma_b2)
    phi, q, c = response("tanh"), 1.0, 0.3
    for layer in range(400):
        if layer % 57 == 0 or layer > 397:
            assert path.log10_second_moment[layer] == pytest.approx(math.log10(q), abs=1e-9)
            assert path.correlation[layer] == pytest.approx(c, abs=1e-7)
        new = sigma_w2 * float(phi.moments(q).second) + sigma_b2
        c, q = (sigma_w2 * phi.pair(q, c)[0] + sigma_b2) / new, new


def test_a_trajectory_reaches_the_fixed_point():
    field = mean_field("softsign", sigma_w2=3.0, sigma_b2=0.2)
    path = trajectory("softsign", depth=200, q=5.0, c=-0.4, sigma_w2=3.0, sigma_b2=0.2)
    assert 10 ** path.log10_second_moment[-1] == pytest.approx(field.q_star, rel=1e-10)
    assert path.correlation[-1] == pytest.approx(field.c_star, abs=1e-6)
    slope = path.gradient_log10_second_moment[-2] - path.gradient_log10_second_moment[-1]
    assert slope == pytest.approx(math.log10(field.chi_1), abs=1e-10)


def test_skipinit_leaves_all_as_it_is():
    path = residual_trajectory("gelu", depth=50, q=2.0, c=0.3, alpha=0.0, sigma_w2=2.0, sigma_b2=0.1)
    np.testing.assert_allclose(path.log10_second_moment, math.log10(2))
    np.testing.assert_allclose(path.correlation, 0.3)
    np.testing.assert_allclose(path.gradient_log10_second_moment, 0, atol=1e-15)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_residual_relu_net_grows_by_its_branches(layers):
    # He's kernels preserve q and the gradient in a branch: both grow by 1 + alpha^2 a block (Hayou et al. 2021).
    depth = 100
    alpha = 1 / math.sqrt(depth)
    options = dict(depth=depth, q=1.0, c=0.3, alpha=alpha, sigma_w2=2.0, sigma_b2=0.0)
    path = residual_trajectory("relu", layers=layers, **options)
    growth = (depth - 1) * math.log10(1 + alpha**2)
    assert path.log10_second_moment[-1] == pytest.approx(growth)
    assert path.gradient_log10_second_moment[0] == pytest.approx(growth)
    c = 0.3
    for _ in range(layers):
        c = (math.sqrt(1 - c * c) + (math.pi - math.acos(c)) * c) / math.pi
    assert path.correlation[1] == pytest.approx((0.3 + alpha**2 * c) / (1 + alpha**2), abs=1e-10)


# Constants.


# papers.md, finding 4 (Yang et al. 2019).
@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("relu", 1.4669),
        ("tanh", 1.1778),
        ("sigmoid", 1.0336),
        ("gelu", 1.3188),
        ("silu", 1.2121),
        ("selu", 1.0716),
        ("elu", 1.0790),
        ("softsign", 1.2440),
        ("identity", 1.0),
    ],
)
def test_batch_norm_makes_gradients_explode(name, rate):
    assert batch_norm_rate(name) == pytest.approx(rate, abs=0.6e-4)
    assert batch_norm_rate(name, batch=10**6) == pytest.approx(batch_norm_rate(name), rel=1e-5)


def test_the_rate_of_relu_in_closed_form():
    assert batch_norm_rate("relu") == pytest.approx(math.pi / (math.pi - 1), rel=1e-12)

    # Yang et al. 2019 for a batch of B, as in papers.md, finding 4; there 1.788, 1.522 and 1.480.
    def closed(batch):
        c = -1 / (batch - 1)
        slope = (math.pi - math.acos(c)) / math.pi
        kernel = (math.sqrt(1 - c * c) + (math.pi - math.acos(c)) * c) / math.pi
        above = (batch - 1) * (slope + batch - 1)
        return above / ((batch - 3) * (batch - 1) * (1 - kernel)) - 1 / (batch - 3)

    for batch, printed in ((8, 1.788), (32, 1.522), (128, 1.480)):
        assert closed(batch) == pytest.approx(printed, abs=0.6e-3)
    for batch in (4, 5, 8, 32, 128, 4096):
        assert batch_norm_rate("relu", batch=batch) == pytest.approx(closed(batch), rel=1e-9)


@pytest.mark.parametrize("batch", [4, 5, 8, 100])
def test_the_rate_of_a_linear_net_in_closed_form(batch):
    assert batch_norm_rate("identity", batch=batch) == pytest.approx((batch - 2) / (batch - 3), rel=1e-9)


def test_the_finite_batch_formula_against_a_drawn_jacobian():
    # E tr(J^T D G D J), J the Jacobian of a batch norm: a batch of 8 drawn 200,000 times.
    batch, draws, phi = 8, 200_000, response("tanh")
    h = np.random.default_rng(0).normal(size=(draws, batch))
    h -= h.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(h, axis=1, keepdims=True)
    y = math.sqrt(batch) * h / norm
    value, slope = (a.reshape(y.shape) for a in phi.evaluate(y.ravel()))
    centered = np.eye(batch) - 1 / batch
    projected = centered - np.einsum("ni,nj->nij", y, y) / batch
    inner = np.einsum("ni,ij,nj->nij", slope, centered, slope)
    numbers = batch / norm[:, 0] ** 2 * np.einsum("nij,nji->n", projected, inner) / (batch - 1)
    # Of the inputs' covariance E[phi phi^T] the eigenvalue off the mean is the variance that h would have.
    variance = np.mean(np.sum((value @ centered) * value, axis=1)) / (batch - 1)
    measured, error = numbers.mean() / variance, numbers.std() / math.sqrt(draws) / variance
    assert batch_norm_rate("tanh", batch=batch) == pytest.approx(measured, abs=5 * error)


def test_normalizer_free_gains():
    assert normalizer_free_gain("relu") == pytest.approx(1.7128585504, abs=1e-10)
    assert normalizer_free_gain("relu") == pytest.approx(math.sqrt(2 / (1 - 1 / math.pi)), rel=1e-13)
    assert normalizer_free_gain("selu") == pytest.approx(1, rel=1e-12)
    # Brock et al. 2021's published constants are Monte Carlo (timm, nfnet.py).
    for name, published in (
        ("gelu", 1.7015043497085571),
        ("silu", 1.7881293296813965),
        ("tanh", 1.5939117670059204),
    ):
        assert normalizer_free_gain(name) == pytest.approx(published, rel=2e-3)


def test_zero_padding_factors():
    # papers.md, finding 3.
    for size, factor in ((4, 0.762), (8, 0.921), (32, 0.994)):
        assert zero_padding_factor(size) == pytest.approx(factor, abs=0.6e-3)
        assert zero_padding_factor(size) == pytest.approx(((1 + 2 * math.cos(math.pi / (size + 1))) / 3) ** 2)
    one, two = zero_padding_factor((8,)), zero_padding_factor((5,), window=5)
    assert zero_padding_factor((8, 8, 8)) == pytest.approx(one**3)
    assert zero_padding_factor((8, 5), window=(3, 5)) == pytest.approx(one * two)
    assert zero_padding_factor(7, window=1) == 1
    # A net of 400 convolutions of kernels of one output each, summed by position.
    profile = np.ones(5)
    for _ in range(400):
        profile, before = np.convolve(profile, np.ones(5) / 5, "same"), profile
    assert profile[2] / before[2] == pytest.approx(two)


def test_the_standard_initializer_of_glorot():
    # Mean singular value of a tanh layer under U(+-1/sqrt n): sigma_w = 1/sqrt 3 at q -> 0, and that of a Gaussian
    # square matrix is 8 / (3 pi) of its deviation (papers.md: 0.490 = 8 / (3 pi) / sqrt 3).
    field = mean_field("tanh", sigma_w2=1 / 3, sigma_b2=0.0)
    assert field.chi_1 == pytest.approx(1 / 3)
    assert 8 / (3 * math.pi) * math.sqrt(field.chi_1) == pytest.approx(0.490, abs=0.5e-3)


# Against networks.

DEPTH, WIDTH, SEEDS, BATCH = 30, 512, 6, 4


def fitted(log10_moments):
    """The slope of a natural logarithm over the hidden layers."""
    hidden = np.asarray(log10_moments, np.float64)[..., :-1]
    return np.polyfit(np.arange(hidden.shape[-1]), hidden.T, 1)[0] * math.log(10)


def step_variance(name, q):
    """Variance that a layer adds to the logarithm of a gradient's norm, times its width.

    Hanin & Nica 2019: 3 mu - 1 with mu = E[phi'^4] / E[phi'^2]^2, which is 5 for ReLU.
    """
    slope = response(name).evaluate(math.sqrt(q) * np.random.default_rng(1).normal(size=100_000))[1]
    return 3 * np.mean(slope**4) / np.mean(slope**2) ** 2 - 1


def tolerance(name, q, seeds):
    """Of a fitted slope: four deviations of a random walk's slope, 6/5 s^2 / depth, and the bias s^2 / 2 of a logarithm."""
    s2 = step_variance(name, q) / WIDTH
    return 4 * math.sqrt(1.2 * s2 / (DEPTH * seeds)) + s2 / 2


def measured_slopes(name, points, seeds, **options):
    """Fitted slopes of log gradient of wide nets, one program for all points (gain, bias_std) and seeds."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(options.pop("batch", BATCH), 64)), jnp.float32)

    def one(run):
        gain, bias_std, key = run
        model = models.create(
            "mlp",
            depth=DEPTH + 1,
            width=WIDTH,
            activation=name,
            initializer="gaussian",
            gain=gain,
            bias_std=bias_std,
            **options,
        )
        variables = model.init(key, x)
        return gradient_flow(model, variables, x, jnp.arange(len(x)) % 10).columns[
            "gradient_log10_second_moment"
        ]

    runs = [(w, b, seed) for w, b in points for seed in range(seeds)]
    gains, biases, numbers = map(np.asarray, zip(*runs, strict=True))
    keys = jax.vmap(jax.random.key)(numbers)
    flows = jax.jit(lambda runs: jax.lax.map(one, runs))((jnp.float32(gains), jnp.float32(biases), keys))
    return fitted(flows).reshape(len(points), seeds).mean(axis=1)


def check_slopes(name, points):
    found = measured_slopes(name, [(math.sqrt(w), math.sqrt(b)) for w, b in points], SEEDS)
    for (w, b), slope in zip(points, found, strict=True):
        # The inputs have a second moment of 1.
        path = trajectory(name, depth=DEPTH, q=w + b, c=0.0, sigma_w2=w, sigma_b2=b)
        allowed = tolerance(name, 10 ** path.log10_second_moment[-1], SEEDS)
        assert allowed < 0.05
        # The head's place, which is left out.
        predicted = fitted(np.append(path.gradient_log10_second_moment, 0.0))
        assert slope == pytest.approx(predicted, abs=allowed), (name, w, b)


def test_gradients_of_wide_nets_follow_the_theory():
    # One that vanishes, and one that explodes; the slow test has more.
    check_slopes("tanh", [(0.8, 0.1), (3.0, 0.05)])


@pytest.mark.slow
@everyone
def test_gradients_of_every_activation_follow_the_theory(name):
    unit = 1 / float(response(name).moments(1.0).slope_second)
    check_slopes(name, [(0.7 * unit, 0.1), (unit, 0.0), (1.2 * unit, 0.05)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "batch"), [("relu", 8), ("relu", 32), ("relu", 128), ("tanh", 32), ("sigmoid", 32), ("elu", 32)]
)
def test_gradients_under_batch_norm_follow_the_theory(name, batch):
    seeds = 16
    slope = measured_slopes(name, [(1.0, 0.0)], seeds, norm="batch", batch=batch)[0]
    # Within 2 %, which four deviations stay below.
    assert 4 * math.sqrt(1.2 * step_variance(name, 1.0) / WIDTH / (DEPTH * seeds)) < 0.02
    assert -slope == pytest.approx(math.log(batch_norm_rate(name, batch=batch)), abs=0.02)


# Bad input.


@pytest.mark.parametrize(
    ("name", "sigma_w2", "sigma_b2", "words"),
    [
        (
            "relu",
            2.1,
            0.0,
            "q diverges: with relu, sigma_w2 = 2.1 .* for every sigma_w2 above 2. Use a smaller one",
        ),
        ("relu", 2.0, 0.1, "q diverges: .* above 2 and, with biases, at it"),
        (
            "relu",
            1.0,
            0.0,
            "q vanishes: with relu, .* by the factor 0.5 in each layer, .* every sigma_w2 below 2. Use that",
        ),
        ("gelu", 2.5, 0.01, "q diverges: with gelu, .* every sigma_w2 above 2"),
        ("tanh", 0.0, 0.1, "sigma_w2, fan_in times the variance of a kernel, must be positive; got 0.0"),
        ("tanh", 1.0, -0.1, "sigma_b2, the variance of the biases, must be 0 or positive; got -0.1"),
        ("tanh", math.nan, 0.0, "sigma_w2, .* must be positive; got nan"),
        (jax.nn.softmax, 1.0, 0.0, "'softmax' is not elementwise"),
    ],
)
def test_points_without_a_fixed_point(name, sigma_w2, sigma_b2, words):
    with pytest.raises(ValueError, match=words):
        mean_field(name, sigma_w2=sigma_w2, sigma_b2=sigma_b2)


@pytest.mark.parametrize(
    ("name", "sigma_b2", "words"),
    [
        (
            "relu",
            0.1,
            "relu has no critical line: it is critical at sigma_b2 = 0, sigma_w2 = 2 alone, got sigma_b2 = 0.1",
        ),
        ("gelu", 0.01, "gelu has no critical line at sigma_b2 = 0.01: at sigma_w2 = .* q is unstable"),
        (lambda x: x + 0.1 * jnp.sin(x), -1.0, "sigma_b2, the variance of the biases"),
    ],
)
def test_no_critical_line(name, sigma_b2, words):
    with pytest.raises(ValueError, match=words):
        critical_line(name, sigma_b2)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"depth": 0}, "depth must be 1 or more, got 0"),
        ({"q": 0.0}, "q, the second moment of the first layer's pre-activations, must be positive; got 0.0"),
        ({"c": 1.1}, "c, a correlation, lies between -1 and 1; got 1.1"),
    ],
)
def test_bad_trajectories(changed, words):
    with pytest.raises(ValueError, match=words):
        trajectory("tanh", **(dict(depth=3, q=1.0, c=0.0, sigma_w2=1.0, sigma_b2=0.0) | changed))


def test_other_bad_input():
    with pytest.raises(
        ValueError, match="batch must be 4 or more: the expected gradient of smaller ones is infinite; got 3"
    ):
        batch_norm_rate("tanh", batch=3)
    with pytest.raises(ValueError, match="layers, those of a branch, must be 1 or more; got 0"):
        residual_trajectory("relu", depth=2, q=1.0, c=0.0, alpha=1.0, sigma_w2=2.0, sigma_b2=0.0, layers=0)
    with pytest.raises(ValueError, match="size must be positive"):
        zero_padding_factor(0)
