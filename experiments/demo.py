"""Which activation, initializer, normalization, skip connection and depth keeps the gradient alive?

The small tour of the project: plain convolutional networks of 10 and 30 layers on real handwritten digits (8x8), with
one thing changed at a time.

Papers: Glorot & Bengio 2010; He et al. 2015; Ioffe & Szegedy 2015; He et al. 2016; Yang et al. 2019.
Command: scripts/demo, or `cnnjax run experiments/demo.py`
Cost: 288 runs of 48 steps in 24 programs: 3 minutes and 1.3 GB on 2 CPU cores (JAX 0.10.2).
Expected: sigmoid vanishes in every plain network, by 36 orders of magnitude under Xavier at depth 30, and stays at
chance. ReLU under Xavier loses half of the gradient's second moment per layer and stays at chance when deep; under He
it keeps it. Batch norm makes the gradient of a plain ReLU network GROW toward the input at initialization, by 4
orders at depth 30, and yet the network trains, if slowly; with a skip connection besides it grows less than half as
fast. A skip connection alone makes ReLU's gradient explode, by 5 and 8 orders, and does not save the sigmoid, which
stands behind the addition. Mean-field theory, dashed in the figures, lies on the plain networks within an order or so
in 36, and fails for the sigmoid with batch norm.
"""

from cnnjax.cli import main_of_study
from cnnjax.study import Study

STUDY = Study(
    name="demo",
    question="Which activation, initializer, normalization, skip connection and depth keeps the gradient alive?",
    description=(
        "Plain convolutional networks on 8x8 digits, one thing changed at a time. Maps this small lose signal through "
        "their zero padding: a wide He-initialized ReLU network keeps 0.921 of the gradient's second moment per layer, not "
        "1, and one of 16 channels somewhat less."
    ),
    papers=[
        "Glorot & Bengio 2010",
        "He et al. 2015, arXiv:1502.01852",
        "Ioffe & Szegedy 2015, arXiv:1502.03167",
        "He et al. 2016, arXiv:1512.03385",
        "Yang et al. 2019, arXiv:1902.08129",
    ],
    model="plain",
    options={"width": 16},
    grid={
        "activation": ["sigmoid", "tanh", "relu"],
        "architecture": {
            "plain": {"norm": None, "skip": False},
            "skip": {"norm": None, "skip": True},
            "batch norm": {"norm": "batch", "skip": False},
            "skip + batch norm": {"norm": "batch", "skip": True},
        },
        "initializer": ["xavier_normal", "he_normal"],
        "depth": [10, 30],
    },
    learning_rates=[0.02, 0.004],
    seeds=3,
    steps=48,
    record_every=16,
    batch_size=32,
    quick={
        "seeds": 2,
        "steps": 4,
        "record_every": 2,
        "grid": {
            "activation": ["sigmoid", "relu"],
            "architecture": {
                "plain": {"norm": None, "skip": False},
                "batch norm": {"norm": "batch", "skip": False},
            },
            "initializer": ["xavier_normal"],
            "depth": [4],
        },
        "options": {"width": 4},
    },
)

if __name__ == "__main__":
    main_of_study(STUDY)
