"""What theory costs: every prediction for every activation, a prediction of ten thousand layers, and the map to test it.

    python scripts/bench_theory.py [--only TEXT] [--json FILE]

Each measurement is a fresh process; the time of a prediction counts from when everything is imported, so that what JAX
compiles counts, too; that of the map (20 x 20 cells of depth and sigma_w^2, 2 seeds) from the start of Python to its page.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from bench_demo import whole
from benchmarking import Bench, Row, jax_device, main

from cnnjax import functional as F
from cnnjax import models, probes

ALL = "seconds for every prediction for every activation"
SECONDS = 2.0
DEEP = "seconds to predict 10,000 layers, zero padding"
DEEP_SECONDS = 5.0
MAP = "seconds for the map of 20 x 20 cells, 2 seeds, page included"
MAP_SECONDS = 600.0


def every_prediction() -> None:
    """Fixed points in both phases, critical lines, trajectories of 100 layers, constants, rates, for the whole table."""
    for name, row in F.ACTIVATIONS.items():
        unit = row.gain**2
        for sigma_w2 in (0.5 * unit, 0.8 * unit):
            probes.mean_field(name, sigma_w2=sigma_w2, sigma_b2=0.05)
        chaotic = dict(sigma_w2=1.5 * unit, sigma_b2=0.05)
        if name in ("tanh", "sigmoid", "softsign", "relu6"):
            probes.mean_field(name, **chaotic)
        _unless_missing(lambda name=name: probes.critical_line(name, 0.05))
        probes.trajectory(name, depth=100, q=1.0, c=0.3, **chaotic)
        probes.residual_trajectory(name, depth=100, q=1.0, c=0.3, alpha=0.1, sigma_w2=unit, sigma_b2=0.0)
        for batch in (None, 32):
            probes.batch_norm_rate(name, batch=batch)
        probes.normalizer_free_gain(name)
    for size in (4, 8, 32):
        probes.zero_padding_factor(size)


def ten_thousand_layers() -> None:
    """A plain tanh net near its critical line."""
    model = models.create("plain", depth=10_000, activation="tanh", initializer="gaussian", bias_std=0.005)
    probes.predict(model, (8, 8, 1))


CASES: dict[str, tuple[Callable[[], None], float]] = {
    ALL: (every_prediction, SECONDS),
    DEEP: (ten_thousand_layers, DEEP_SECONDS),
}


def measure(bench: Bench) -> None:
    """Both predictions, the median of five fresh processes, and the map once."""
    bench.devices.append(jax_device())
    for case, (_, limit) in CASES.items():
        if not bench.wants(case):
            continue
        runs = [_fresh(case) for _ in range(5)]
        seconds = statistics.median(runs)
        bench.add(Row(case, seconds, None, None, f"<= {limit:g}", seconds <= limit))
    if bench.wants(MAP):
        seconds, _, _ = whole("trainability")
        bench.add(Row(MAP, seconds, None, None, f"<= {MAP_SECONDS:g}", seconds <= MAP_SECONDS))


def _fresh(case: str) -> float:
    done = subprocess.run(
        [sys.executable, __file__, "--fresh", case], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def _unless_missing(compute: Callable[[], object]) -> None:
    """Some activations have no critical line."""
    try:
        compute()
    except ValueError as error:
        if "no critical line" not in str(error):
            raise


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fresh"]:
        jax_device()
        start = time.perf_counter()
        CASES[sys.argv[2]][0]()
        print(time.perf_counter() - start)
    else:
        main(__doc__, {}, measure)
