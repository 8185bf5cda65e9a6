"""Delving Deep into Rectifiers (He, Zhang, Ren, Sun 2015, arXiv:1502.01852): which initializer lets a deep ReLU net train?

Claim as published (section 2.2, figures 2 and 3): a 22-layer ReLU network trains from Xavier's and from He's
initializer, sooner from He's; a 30-layer one trains from He's only, while Xavier's stalls. He's initializer gives no
better accuracy where both train (ImageNet, top-1 error 33.82 and 33.90 %).
Settings: plain ReLU networks without norm or skip; momentum 0.9; the best of five learning rates for each cell.
Smaller here: digits of 8x8 instead of ImageNet, 16 channels, 225 steps. At 22 layers Xavier trains from some seeds
and not from others, so nothing is claimed there. SGD only: Adam partly rescues Xavier's scale.
Command: `cnnjax reproduce he2015`; `--tier full` takes CIFAR-10 at width 64, for a GPU (8e17 multiply-adds, 23 hours at
an assumed 1e13 a second; never run).
Found: at 10 layers both train (train accuracy 0.98 or more), at 30 He's does (0.957 [0.932, 0.982], 3 seeds) and
Xavier's stays at chance (0.100), with 1e-10 of the gradient. 2026-11-22, JAX 0.10.2; 5 min 21 s on two cores.
"""

from cnnjax.cli import main_of_study
from cnnjax.study import Study
from cnnjax.study.claims import Claim, Where, difference, level

SOURCE = "He et al. 2015, section 2.2, figure 3"
HERE = Where(seeds=3, data=["digits", "cifar10"], at_least={"steps": 225, "width": 16})

STUDY = Study(
    name="he2015",
    question="Does a 30-layer ReLU network train from He's initializer where Xavier's stalls?",
    papers=["He et al. 2015, arXiv:1502.01852", "Glorot & Bengio 2010"],
    model="plain",
    options={"width": 16, "activation": "relu"},
    grid={"initializer": ["xavier_normal", "he_normal"], "depth": [10, 22, 30]},
    learning_rates=[0.1, 0.03, 0.01, 0.003, 0.001],
    seeds=3,
    steps=225,
    record_every=45,
    claims=[
        Claim(
            name="both train at 10",
            statement="At 10 layers networks train from either initializer.",
            source=SOURCE,
            rule=level("train_accuracy", {"depth": 10}, at_least=0.97),
            where=HERE,
        ),
        Claim(
            name="He trains at 30",
            statement="A 30-layer network trains from He's initializer.",
            source=SOURCE,
            rule=level("train_accuracy", {"initializer": "he_normal", "depth": 30}, at_least=0.9),
            where=HERE,
        ),
        Claim(
            name="Xavier stalls at 30",
            statement="A 30-layer network does not train from Xavier's initializer.",
            source=SOURCE,
            rule=level(
                "train_accuracy", {"initializer": "xavier_normal", "depth": 30}, at_most=0.2, diverged=0.1
            ),
            where=HERE,
        ),
        Claim(
            name="Xavier loses the gradient",
            statement="Xavier's scale loses the gradient of a 30-layer network: less than 1e-6 of it arrives.",
            source="He et al. 2015, section 2.2: a factor of 1/2 a layer",
            rule=level("gradient_ratio_log10", {"initializer": "xavier_normal", "depth": 30}, at_most=-6),
            where=Where(seeds=3),
        ),
        Claim(
            name="no better where both train",
            statement="Where both train, He's initializer gives no better accuracy.",
            source="He et al. 2015, section 2.2: 14 layers, ImageNet",
            printed="33.82 and 33.90 % error",
            rule=difference(
                "test_accuracy",
                {"initializer": "he_normal", "depth": 10},
                {"initializer": "xavier_normal", "depth": 10},
                below=0.01,
            ),
            where=Where(seeds=3, data=["imagenet2012"]),
        ),
    ],
    quick={"grid": {"initializer": ["xavier_normal", "he_normal"], "depth": [10]}, "seeds": 1, "steps": 45},
)
FULL = STUDY.replace(
    name="he2015-full",
    data="cifar10",
    options={"width": 64, "activation": "relu"},
    seeds=5,
    batch_size=128,
    steps=20_000,
    record_every=500,
)

if __name__ == "__main__":
    main_of_study(STUDY)
