"""What does each normalization do to the gradient of a plain ReLU network, and how much does it need a large batch?

None, batch, group and layer norm at batch sizes 2 to 64, 20 layers.

Papers: Ioffe & Szegedy 2015; Ba et al. 2016; Wu & He 2018; Yang et al. 2019.
Command: `cnnjax run experiments/normalization.py`, or `python experiments/normalization.py --quick`
Cost: 144 runs of 200 steps in 24 programs: 8 minutes of processor time (2 CPU cores, JAX 0.10.2) and 1.5 GiB.
Expected: at initialization batch norm makes the gradient's second moment grow toward the input by 1.40 a layer, group
norm by 1.3, layer norm by 1.07; without norm it shrinks by 0.84. No factor depends on the batch size, batch norm's
neither: its statistics are taken over 8x8 positions, too, 128 values for a batch of 2. (The theory of wide networks
without zero padding says pi / (pi - 1) = 1.467 for batch norm and 1 for none.) After 200 steps all lose accuracy with
the batch size, since they have seen fewer images; that batch norm loses more than group norm, as Wu & He saw on
ImageNet, does not show on this little data set.
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
