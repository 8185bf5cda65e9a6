"""A small study, and how the tables of two studies are compared."""

import pandas as pd

from cnnjax.frame import Frame
from cnnjax.study import Store, Study

TABLES = ("runs", "curves", "layers")
STUDY = Study(
    name="small",
    question="?",
    model="mlp",
    options={"width": 6, "depth": 3, "norm": "batch"},
    grid={"initializer": ["he_normal", "xavier_normal"]},
    learning_rates=[0.1, 0.01],
    seeds=2,
    steps=6,
    record_every=2,
    batch_size=16,
    subset=100,
)

Tables = dict[str, Frame]


def tables(store: Store) -> Tables:
    return {name: store.table(name) for name in TABLES}


def assert_same(one: Tables, other: Tables) -> None:
    for name in TABLES:
        pd.testing.assert_frame_equal(one[name], other[name], check_exact=True)


def assert_close(one: Tables, other: Tables) -> None:
    """The same rows in the same order, and the same numbers up to rounding."""
    for name in TABLES:
        pd.testing.assert_frame_equal(one[name], other[name], rtol=1e-4, atol=1e-5)
