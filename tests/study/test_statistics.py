import math

import numpy as np
import pytest
from scipy import stats

from cnnjax.study import statistics

# Student 1908, hours of sleep that ten patients gained through two drugs, as in R's data set `sleep`.
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_mean_of_students_sleep_data():
    # R's help page of t.test prints the paired comparison: mean of the differences 1.58, interval 0.7001142 to 2.4598858.
    estimate = statistics.mean(np.subtract(SECOND, FIRST))
    assert (estimate.value, estimate.n, estimate.method) == (pytest.approx(1.58), 10, "t")
    assert (estimate.low, estimate.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-7)


@pytest.mark.parametrize("statistic", [np.mean, np.var])
def test_bca_is_scipys(rng, statistic):
    sample = rng.exponential(size=25)
    ours = statistics.bca(sample, statistic, resamples=2000, seed=7)
    theirs = stats.bootstrap(
        (sample,), statistic, n_resamples=2000, method="BCa", rng=np.random.default_rng(7)
    ).confidence_interval
    assert (ours.low, ours.high) == (theirs.low, theirs.high)
    assert ours.method == "BCa" and ours.statistic == statistic.__name__
    assert ours == statistics.bca(sample, statistic, resamples=2000, seed=7)


@pytest.mark.parametrize("size", [7, 25])
def test_intervals_move_and_scale_with_the_sample(rng, size):
    sample = rng.exponential(size=size)
    for estimate in (statistics.mean, lambda x: statistics.bca(x, np.mean), statistics.median):
        before, after = estimate(sample), estimate(3 - 0.5 * sample)
        assert after.value == pytest.approx(3 - 0.5 * before.value)
        # A negative factor swaps the ends; so it does with the bootstrap's, up to its draws.
        accuracy = 0.02 if before.method == "BCa" else 1e-9
        assert after.low == pytest.approx(3 - 0.5 * before.high, abs=accuracy)
        assert after.high == pytest.approx(3 - 0.5 * before.low, abs=accuracy)
        moved = estimate(3 + 0.5 * sample)
        assert (moved.low, moved.high) == pytest.approx((3 + 0.5 * before.low, 3 + 0.5 * before.high))


def test_the_interval_of_a_mean_changes_to_the_bootstrap(rng):
    sample = rng.normal(size=statistics.BOOTSTRAP_FROM)
    assert statistics.mean(sample).method == "BCa"
    assert statistics.mean(sample[1:]).method == "t"
    assert statistics.mean(sample, method="t").method == "t"


def coverage(estimate, draw, truth, *, trials):
    found = [estimate(draw()) for _ in range(trials)]
    return np.mean([one.low <= truth <= one.high for one in found])


def test_a_t_interval_covers_as_it_says(rng):
    trials = 2000
    covered = coverage(statistics.mean, lambda: rng.normal(2, 3, size=5), 2, trials=trials)
    # Four standard deviations of a binomial share.
    assert covered == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / trials))


def test_a_bca_interval_covers_as_the_module_says(rng):
    trials = 300
    expected = 0.94
    covered = coverage(
        lambda x: statistics.bca(x, np.mean, resamples=999), lambda: rng.normal(size=30), 0, trials=trials
    )
    assert covered == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / trials))


@pytest.mark.parametrize(("n", "expected"), [(6, 1 - 2**-5), (9, 1 - 2 * 10 / 2**9), (20, 0.9586105)])
def test_the_median_covers_by_the_binomial(rng, n, expected):
    # 1 - 2 P(Binomial(n, 1/2) < k) from the ranks k = 1, 2 and 6.
    trials = 2000
    covered = coverage(statistics.median, lambda: rng.standard_cauchy(size=n), 0, trials=trials)
    assert covered == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / trials))


def test_the_median_is_scipys(rng):
    for n in (6, 7, 12, 31):
        sample = rng.normal(size=n)
        theirs = stats.quantile_test(sample, p=0.5).confidence_interval(0.95)
        ours = statistics.median(sample)
        assert (ours.low, ours.high) == (theirs.low, theirs.high)
        assert ours.value == np.median(sample)


def test_the_median_orders_infinities():
    estimate = statistics.median([-np.inf, -5.0, -4.0, -3.0, -2.0, -1.0])
    assert (estimate.value, estimate.low, estimate.high) == (-3.5, -np.inf, -1.0)
    assert statistics.median([-np.inf] * 3).value == -np.inf


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (lambda: statistics.mean([0.95, 0.97, 0.98, 0.99, 0.975]), "0.973 [0.955, 0.991] (n = 5)"),
        (lambda: statistics.mean([0.973]), "0.973 (n = 1, no interval)"),
        (lambda: statistics.mean([1.0, 2.0]), "1.5 [-4.9, 7.9] (n = 2)"),
        (lambda: statistics.mean([0.1, 0.1, 0.1]), "0.1 [0.1, 0.1] (n = 3, all equal)"),
        (
            lambda: statistics.mean([1.0, np.nan, 2.0], nan="omit"),
            "1.5 [-4.9, 7.9] (n = 2, 1 NaN left out)",
        ),
        (lambda: statistics.bca([1.0, 2.0], np.mean), "1.5 (n = 2, no interval)"),
        (lambda: statistics.bca([1.0, 1.0, 1.0], np.var), "0 [0, 0] (n = 3, all equal)"),
        (lambda: statistics.median([1.0, 2.0, 3.0, 4.0, 5.0]), "3 (n = 5, no interval)"),
        (lambda: statistics.mean([1e-9, 2e-9, 3e-9]), "2e-09 [-4.84e-10, 4.48e-09] (n = 3)"),
    ],
)
def test_small_and_constant_samples(estimate, text):
    assert str(estimate()) == text


def test_rounding_is_no_spread():
    # 0.3 - 0.2 is not 0.1, but as good as.
    assert statistics.mean([0.1, 0.3 - 0.2, 0.1]).note == "all equal"


def test_a_statistic_that_hardly_changes_has_no_interval():
    # Leaving out any one value keeps the maximum, so there is no acceleration.
    estimate = statistics.bca([1.0, 2.0, 3.0, 4.0, 4.0, 4.0], np.max)
    assert (estimate.low, estimate.note) == (None, "no interval")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: statistics.mean([]), r"a sample is one number a seed, at least one; got .* shape \(0,\)"),
        (lambda: statistics.mean([[1.0]]), r"got an array of shape \(1, 1\)"),
        (
            lambda: statistics.mean([1.0, np.nan]),
            "1 of 2 values are NaN: find out why, or leave them out with",
        ),
        (lambda: statistics.mean([np.nan], nan="omit"), "all 1 values are NaN: nothing is left to estimate"),
        (lambda: statistics.mean([1.0], nan="drop"), "nan must be 'error' or 'omit'; got 'drop'"),
        (lambda: statistics.mean([1.0, -np.inf]), "1 of 2 values are infinite: take the median instead"),
        (
            lambda: statistics.mean([1.0], confidence=95),
            "confidence must lie between 0 and 1, as 0.95; got 95",
        ),
        (lambda: statistics.mean([1.0], method="bca"), "method must be 'auto', 't' or 'BCa'; got 'bca'"),
        (
            lambda: statistics.paired([1.0], [1.0, 2.0]),
            r"pairs share their seeds, .* shapes \(1,\) and \(2,\)",
        ),
        (lambda: statistics.paired([np.nan], [1.0]), "1 of 1 values are NaN"),
        (lambda: statistics.sign_flip([1.0] * 41), "the exact test takes up to 40 differences, got 41"),
        (lambda: statistics.holm([0.1, 1.2]), r"p-values lie between 0 and 1; got \[0.1, 1.2\]"),
        (lambda: statistics.holm([0.1, np.nan]), "1 of 2 values are NaN"),
        (lambda: statistics.equivalence([1.0], [1.0], margin=1.0), "takes 2 pairs or more; got 1: run more"),
        (
            lambda: statistics.equivalence([1.0, 2.0], [1.0, 2.0], margin=0.0),
            "must be a positive number; got 0",
        ),
        (
            lambda: statistics.seeds_needed(0.0, deviation=1.0),
            "takes a difference other than 0 .* got 0.0 and 1.0",
        ),
        (lambda: statistics.seeds_needed(1.0, deviation=-1.0), "a deviation of 0 or more; got 1.0 and -1.0"),
        (lambda: statistics.seeds_needed(1.0, deviation=1.0, power=80), "power must lie between 0 and 1"),
        (lambda: statistics.seeds_needed(1e-6, deviation=1.0), "takes over 1000000 seeds"),
        (lambda: statistics.paired_power(1.0, deviation=0.0, n=3), "positive deviation and 2 pairs or more"),
    ],
)
def test_samples_that_do_not_fit(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("n", [2, 5, 9, 12])
def test_sign_flips_are_scipys_exact_permutation_test(rng, n):
    sample = np.round(rng.normal(0.3, size=n), 1)
    theirs = stats.permutation_test(
        (sample,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    # SciPy doubles the smaller tail, which is the same for a distribution that is its own mirror image.
    assert statistics.sign_flip(sample) == pytest.approx(min(theirs.pvalue, 1.0))


def test_sign_flip_of_darwins_maize():
    # Fisher 1935 (The Design of Experiments), section 21: 863 of 2^15 flips reach the sum of 314 eighths of an inch, 835
    # of them beyond it; and as many on the other side.
    differences = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    assert sum(differences) == 314
    assert statistics.sign_flip(differences) == 2 * 863 / 2**15


def test_sign_flips_with_zeros_and_many_pairs(rng):
    assert statistics.sign_flip([1.0, 1.0, 1.0, 0.0]) == 0.25
    assert statistics.sign_flip([0.0, 0.0]) == statistics.sign_flip([3.0]) == 1.0
    assert statistics.sign_flip(np.ones(40)) == 2.0**-39
    # A sum of 0.1, 0.2 and -0.3 in floating point is not 0.
    assert statistics.sign_flip([0.1, 0.2, -0.3]) == 1.0


def test_p_values_under_the_null_are_no_smaller_than_they_say(rng):
    trials = 1000
    p_values = np.array([statistics.sign_flip(rng.normal(size=8)) for _ in range(trials)])
    # 128 pairs of mirrored flips, so that p = 6/128 is the largest below 0.05.
    level = 6 / 128
    assert np.mean(p_values < 0.05) == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / trials))


def test_paired_comparison():
    comparison = statistics.paired(SECOND, FIRST)
    assert comparison.difference == statistics.mean(np.subtract(SECOND, FIRST))
    # All 10 differences but one, which is 0, are positive: two of the four flips that keep them so.
    assert comparison.p == 4 / 2**10 and comparison.smallest_p == 2 / 2**10
    assert str(comparison) == "1.58 [0.70, 2.46] (n = 10), p = 0.00391"
    few = statistics.paired([1.0, 2.0, 3.5], [0.0, 1.0, 2.0])
    assert str(few).endswith("(n = 3), p = 0.25, the least that 3 pairs can give")
    dropped = statistics.paired([1.0, np.nan, 3.0], [0.0, 1.0, np.nan], nan="omit")
    assert (dropped.difference.n, dropped.difference.omitted, dropped.smallest_p) == (1, 2, 1.0)


def test_holm_by_hand():
    # 4 x 0.005 = 0.02; 3 x 0.01 = 0.03; 2 x 0.03 = 0.06; 1 x 0.04 = 0.04, but no less than the one before.
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.4, 0.6, 0.9]).tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert statistics.holm([0.02]).tolist() == [0.02]


def test_equivalence_is_both_t_tests_and_the_interval(rng):
    first, second = rng.normal(size=12), rng.normal(size=12)
    result = statistics.equivalence(first, second, margin=0.8)
    difference = first - second
    lower = stats.ttest_1samp(difference, -0.8, alternative="greater").pvalue
    upper = stats.ttest_1samp(difference, 0.8, alternative="less").pvalue
    assert result.p == pytest.approx(max(lower, upper))
    assert result.difference.confidence == pytest.approx(0.9)
    low, high = result.difference.low, result.difference.high
    assert low is not None and high is not None
    for margin in np.linspace(0.1, 3, 30):
        inside = -margin < low and high < margin
        assert statistics.equivalence(first, second, margin=margin).equivalent == inside


@pytest.mark.parametrize(("shift", "equivalent"), [(0.0, True), (0.5, False)])
def test_equivalence_of_constant_differences(shift, equivalent):
    result = statistics.equivalence([1.0 + shift, 2.0 + shift], [1.0, 2.0], margin=0.5)
    assert result.equivalent == equivalent
    assert ("not shown to be equivalent within ±0.5" in str(result)) != equivalent


def test_power_and_seeds_against_published_numbers():
    # Dalgaard 2008 (Introductory Statistics with R), section 8.3: 19.96892 pairs for 10 at 10 sqrt(2) with power 0.85.
    deviation = 10 * math.sqrt(2)
    assert statistics.paired_power(10, deviation=deviation, n=19.96892) == pytest.approx(0.85, abs=1e-5)
    assert statistics.seeds_needed(10, deviation=deviation, power=0.85) == 20
    assert statistics.seeds_needed(-10, deviation=deviation, power=0.85) == 20


def test_power_by_simulation(rng):
    trials, n = 4000, 6
    found = stats.ttest_1samp(rng.normal(1.5, 1, size=(trials, n)), 0, axis=1).pvalue < 0.05
    expected = statistics.paired_power(1.5, deviation=1, n=n)
    assert np.mean(found) == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / trials))


@pytest.mark.parametrize("effect", [0.1, 0.7, 2.0, 1e6])
def test_the_seeds_needed_are_the_least_that_are_enough(effect):
    n = statistics.seeds_needed(effect, deviation=1.0)
    assert statistics.paired_power(effect, deviation=1.0, n=n) >= 0.8
    assert n == 2 or statistics.paired_power(effect, deviation=1.0, n=n - 1) < 0.8


def test_differences_without_spread_need_two_seeds():
    assert statistics.seeds_needed(0.1, deviation=0.0) == 2
