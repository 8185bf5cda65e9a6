"""What does each normalization do to the gradient of a plain ReLU network, and how much does it need a large batch?

None, batch, group and layer norm at batch sizes 2 to 64, 20 layers.

Papers: Ioffe & Szegedy 2015; Ba et al. 2016; Wu & He 2018; Yang et al. 2019.
Command: `cnnjax run experiments/normalization.py`, or `python experiments/normalization.py --quick`
Cost: 144 runs of 200 steps in 24 programs.
Expected: at initialization batch norm makes the gradient grow toward the input, by pi / (pi - 1) = 1.467 in second moment a
layer for a large batch and by more for a small one; at batch size 2 it is at its worst. Group and layer norm grow less and
do not depend on the batch. That batch norm loses accuracy at small batches does not show on this little data set (Wu & He
saw it on ImageNet).
"""

from cnnjax.cli import main_of_study
from cnnjax.study import Study

STUDY = Study(
    name="normalization",
    question="What does each normalization do to the gradient, and how much does it need a large batch?",
    papers=[
        "Ioffe & Szegedy 2015, arXiv:1502.03167",
        "Ba et al. 2016, arXiv:1607.06450",
        "Wu & He 2018, arXiv:1803.08494",
        "Yang et al. 2019, arXiv:1902.08129",
    ],
    model="plain",
    options={"width": 16, "depth": 20, "activation": "relu", "initializer": "he_normal"},
    grid={"norm": [None, "batch", "group", "layer"], "batch_size": [2, 4, 8, 16, 32, 64]},
    learning_rates=[0.01, 0.001],
    seeds=3,
    steps=200,
    record_every=25,
    quick={
        "grid": {"norm": ["batch", "group"], "batch_size": [4, 16]},
        "options": {"width": 8, "depth": 4},
        "seeds": 1,
        "steps": 4,
        "record_every": 2,
    },
)

if __name__ == "__main__":
    main_of_study(STUDY)
