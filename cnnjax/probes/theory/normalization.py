"""Gradients under batch normalization, and the constants of networks that do without it."""

import math

from cnnjax.probes.quadrature import Elementwise, Response, response
from cnnjax.probes.rules import pair_rule


def batch_norm_rate(activation: Elementwise, *, batch: int | None = None) -> float:
    """The factor on the gradient's second moment, a layer further from the output, of a plain net with batch norm.

    linear - batch norm - activation, wide and deep, of any kernel scale. For a large batch it is
    E[phi'^2] / Var[phi] (Yang et al. 2019, theorem 3.9 and its corollaries): above 1 for every activation but the identity.

    For a batch of B the normalized pre-activations of a unit are uniform on the sphere |y|^2 = B, sum(y) = 0, in B - 1
    dimensions, independent of the norm n that they were divided by, and the layer's inputs have the covariance
    a I + b (Yang et al. 2019, section 3). With G the projection off the mean, P the one off y as well, D = diag(phi'(y)),

        rate = B / ((B - 1) (B - 3)) E[tr(P D G D)] / (E[phi(y_1)^2] - E[phi(y_1) phi(y_2)]),

    1 / (B - 3) being the mean of 1 / n^2. All expectations are over one or two coordinates of y, two-dimensional projections
    of the sphere. It agrees with the closed forms for ReLU and for the identity, (B - 2) / (B - 3).

    Args:
      activation: a name, an `Activation`, or an elementwise function of JAX arrays.
      batch: number of entries that statistics are taken over: examples, for a dense layer; 4 or more. None for the limit of
        many. The positions of a convolution count, too, but only approximately, since neighbors share their inputs.

    Raises:
      ValueError: a batch below 4, whose expected gradient is infinite, or an activation that is not elementwise.
    """
    phi = response(activation)
    if batch is None:
        found = phi.moments(1.0)
        return float(found.slope_second / (found.second - found.mean**2))
    if batch < 4:
        raise ValueError(
            f"batch must be 4 or more: the expected gradient of smaller ones is infinite; got {batch}"
        )
    own, slope_own, pulled_own = _sphere_means(phi, batch, 1.0)
    pair, slope_pair, pulled_pair = _sphere_means(phi, batch, -1 / (batch - 1))
    # tr(G D G D) = (1 - 2/B) sum D_i^2 + (sum D_i)^2 / B^2
    projected = (batch - 2) * slope_own + slope_own / batch + (batch - 1) / batch * slope_pair
    # y^T D G D y / B = sum(y_i^2 D_i^2) / B - (sum y_i D_i)^2 / B^2
    along = pulled_own - (pulled_own + (batch - 1) * pulled_pair) / batch
    return batch / ((batch - 1) * (batch - 3)) * (projected - along) / (own - pair)


def normalizer_free_gain(activation: Elementwise) -> float:
    """1 / sqrt(Var[phi(z)]), z standard normal: the activation times this has variance 1 (Brock et al. 2021, section 4.3).

    For use with weights whose fans have mean 0 and variance 1 / fan_in; sqrt(2 / (1 - 1 / pi)) for ReLU. Published tables
    of it are Monte Carlo.

    Raises:
      ValueError: an activation that is not elementwise.
    """
    found = response(activation).moments(1.0)
    return float(1 / math.sqrt(found.second - found.mean**2))


def _sphere_means(phi: Response, batch: int, correlation: float) -> tuple[float, float, float]:
    """E[phi phi], E[phi' phi'] and E[y phi' y phi'] of two coordinates of the sphere, or of one with itself."""
    rule = pair_rule(correlation, kinks=phi.kinks, dimension=batch - 1)
    (a, b), (slope_a, slope_b) = phi.at_pair(rule, 1.0)
    return rule.mean(a, b), rule.mean(slope_a, slope_b), rule.mean(rule.u * slope_a, rule.v * slope_b)
