"""The grid that `bench_grid.py` trains on every side, and the data: NumPy only, for the sides share no other package."""

import numpy as np

ACTIVATIONS = ("relu", "tanh", "softsign")
INITIALIZERS = ("xavier_normal", "he_normal")
SEEDS = 3
RUNS = len(ACTIVATIONS) * len(INITIALIZERS) * SEEDS
DEPTH, WIDTH, BATCH = 20, 16, 32
CLASSES = 10
RATE, MOMENTUM = 0.05, 0.9
# The shape of scikit-learn's digits.
EXAMPLES, SIZE = 1437, 8
# Steps of one measurement of training networks that are ready, and of the whole grid from nothing.
SEGMENT, WHOLE = 25, 100

STEADY = f"a run's step, {SEGMENT} steps of a compiled grid"
FROM_NOTHING = f"a run's step, {WHOLE} steps of the grid from nothing, compiling included"


def data() -> tuple[np.ndarray, np.ndarray]:
    """uint8 images `(examples, 8, 8, 1)` and their labels."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (EXAMPLES, SIZE, SIZE, 1), dtype=np.uint8)
    return images, rng.integers(0, CLASSES, EXAMPLES, dtype=np.int32)


def batches(seed: int, steps: int) -> np.ndarray:
    """The rows of the batches of a run, `(steps, batch)`."""
    return np.random.default_rng(seed).integers(0, EXAMPLES, (steps, BATCH), dtype=np.int32)
