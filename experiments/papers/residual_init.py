"""Fixup (Zhang et al. 2019, arXiv:1901.09321), SkipInit (De & Smith 2020), ReZero: does a small start replace the norm?

Claim as published: residual networks without normalization train at hundreds and thousands of layers if their branches
start small: with the last kernel at 0 and the others scaled by L^(-1/2) (Fixup, up to 10,000 layers), multiplied by a
learned number that starts at 0 (SkipInit, arXiv:2002.10444; ReZero, Bachlechner et al. 2020, arXiv:2003.04887), or by
1 / sqrt(L). With branches of full size (alpha = 1) the signal doubles from block to block, and deep networks fail.
Settings: pre-activation residual networks, He's initializer, no norm, SGD with momentum 0.9, the best learning rate for
each cell. L is the number of blocks, with two convolutions each. SkipInit and ReZero are one here.
Smaller here: digits of 8x8 instead of CIFAR-10 and ImageNet, 8 channels, 288 steps of 16 images (4 epochs) on a cosine
schedule, up to 362 layers. Fixup has biases in its convolutions in the place of scalar ones, learns all numbers at one
rate, and does not start its classifier at 0. Blocks divided by sqrt(2), which fail in the second paper, too, are left
out. A first run of 180 steps at constant rates was too short to tell, at 20 layers, too; the settings were then chosen by
networks of 20 layers from other seeds.
Command: `cnnjax reproduce residual_init`; `--tier full` takes CIFAR-10 at width 32 (WRN-d-2), for a GPU (1e19
multiply-adds, 12 days at an assumed 1e13 a second; never run).
Found: at 362 layers SkipInit trains (train accuracy 0.988 [0.985, 0.992], 3 seeds), 1 / sqrt(L) does (0.989 [0.985,
0.994]), alpha = 1 diverges after a step (at 20 layers it reaches 0.96). Fixup disagrees: 0.81 [0.43, 1.18], 0.63 to
0.91, its loss still falling; at 20 layers it trains (0.985). 2026-11-22, JAX 0.10.2; 4 min 51 s on two cores. At 500
layers the verdicts were the same on the day before (Fixup 0.66, 0.28 to 0.87; with 360 steps 0.60 to 0.94).
"""

from cnnjax.cli import main_of_study
from cnnjax.study import Study
from cnnjax.study.claims import Claim, ErrorRate, Where, level, near

BRANCHES = {
    "alpha 1": {"branch_scale": None},
    "1/sqrt(L)": {"branch_scale": "inverse_sqrt"},
    "SkipInit": {"branch_scale": "skipinit"},
    "Fixup": {"branch_scale": "fixup"},
}
DEEPEST = 362
HERE = Where(seeds=3, data=["digits", "cifar10"], at_least={"steps": 288, "width": 8}, exactly={"norm": None})


def trains(branch: str, source: str) -> Claim:
    """The deepest network trains from some start of its branches."""
    return Claim(
        name=f"{branch} trains",
        statement=f"A network of {DEEPEST} layers without norm trains with {branch}.",
        source=source,
        printed="1,000 layers and more",
        rule=level("train_accuracy", {"branch": branch, "depth": DEEPEST}, at_least=0.95, diverged=0.1),
        where=HERE,
    )


STUDY = Study(
    name="residual_init",
    question="Do residual networks train without normalization at any depth if their branches start small?",
    papers=[
        "Zhang et al. 2019, arXiv:1901.09321",
        "De & Smith 2020, arXiv:2002.10444",
        "Bachlechner et al. 2020, arXiv:2003.04887",
    ],
    model="cifar_preact_resnet",
    options={"width": 8, "norm": None},
    grid={"branch": BRANCHES, "depth": [20, DEEPEST]},
    learning_rates=[0.03, 0.01],
    schedule="cosine",
    seeds=3,
    steps=288,
    record_every=72,
    batch_size=16,
    claims=[
        trains("Fixup", "Zhang et al. 2019, section 4.1"),
        trains("SkipInit", "De & Smith 2020, table 1; Bachlechner et al. 2020"),
        trains("1/sqrt(L)", "De & Smith 2020, table 1"),
        Claim(
            name="alpha 1 does not train",
            statement="Deep networks without norm do not train with branches of full size.",
            source="De & Smith 2020, table 1",
            rule=level("train_accuracy", {"branch": "alpha 1", "depth": DEEPEST}, at_most=0.2, diverged=0.1),
            where=HERE,
        ),
        Claim(
            name="Fixup on ImageNet",
            statement="ResNet-50 has 27.6 % test error on ImageNet with Fixup, where batch norm gives 23.6 %.",
            source="Zhang et al. 2019, table 2",
            printed=27.6,
            rule=near(ErrorRate(), {"branch": "Fixup"}, 27.6, within=0.02),
            where=Where(seeds=1, data=["imagenet2012"]),
        ),
    ],
    quick={
        "grid": {"branch": BRANCHES, "depth": [8]},
        "seeds": 1,
        "steps": 10,
        "record_every": 5,
        "learning_rates": [0.01],
    },
)
FULL = STUDY.replace(
    name="residual_init-full",
    data="cifar10",
    options={"width": 32, "norm": None},
    grid={"branch": BRANCHES, "depth": [20, 98, DEEPEST, 998]},
    learning_rates=[0.1, 0.03, 0.01, 0.003],
    batch_size=128,
    steps=40_000,
    record_every=1000,
)

if __name__ == "__main__":
    main_of_study(STUDY)
