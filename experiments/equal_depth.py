"""At equal depth, which architecture keeps the gradient alive?

A multilayer perceptron, a plain network with and without batch norm, a residual and a pre-activation residual network
with their no-skip twin, at 8, 20 and 32 layers; LeNet-5 (5 layers, padded to take 8x8 images) stands beside them.

Papers: LeCun et al. 1998; He et al. 2015; He et al. 2016 (arXiv:1512.03385); He et al. 2016b (arXiv:1603.05027).
Command: `cnnjax run experiments/equal_depth.py`, or `python experiments/equal_depth.py --quick`
Cost: 114 runs of 200 steps in 19 programs: 9 minutes of processor time (2 CPU cores, JAX 0.10.2) and 2.5 GiB.
Expected: the residual networks train at every depth (95 to 97 % test accuracy at 8, 20 and 32 layers). The plain ones and
the mlp without norm lose the gradient with depth under Xavier, by 11 orders at 32 layers, and stay at chance. With batch
norm plain networks do not lose it, and get harder to train all the same (98, 94, 84 %), as do residual networks without
their skips: this is degradation, not vanishing. On images of 8x8 the three stages of a ResNet end at 2x2.
"""

from cnnjax.cli import main_of_study
from cnnjax.study import Study

DEPTHS = (8, 20, 32)
FAMILIES = {
    "mlp": {"model": "mlp", "width": 64, "norm": None},
    "plain": {"model": "plain", "width": 16, "norm": None},
    "plain + bn": {"model": "plain", "width": 16, "norm": "batch"},
    "resnet no skip": {"model": "cifar_resnet", "width": 8, "skip": False},
    "resnet": {"model": "cifar_resnet", "width": 8},
    "pre-act resnet": {"model": "cifar_preact_resnet", "width": 8},
}
LENET = {"model": "lenet5", "padding": "SAME", "activation": "relu", "initializer": "xavier_normal"}

STUDY = Study(
    name="equal_depth",
    question="At equal depth, which architecture keeps the gradient alive?",
    papers=[
        "LeCun et al. 1998",
        "He et al. 2015, arXiv:1502.01852",
        "He et al. 2016, arXiv:1512.03385",
        "He et al. 2016b, arXiv:1603.05027",
    ],
    options={"activation": "relu", "initializer": "xavier_normal"},
    grid={
        "architecture": {"lenet5 (5)": LENET}
        | {
            f"{name} ({depth})": {**family, "depth": depth}
            for name, family in FAMILIES.items()
            for depth in DEPTHS
        }
    },
    learning_rates=[0.03, 0.003],
    seeds=3,
    steps=200,
    record_every=25,
    quick={
        "grid": {
            "architecture": {"lenet5 (5)": LENET}
            | {f"{name} (8)": {**FAMILIES[name], "width": 4, "depth": 8} for name in ("mlp", "resnet")}
        },
        "seeds": 1,
        "steps": 2,
        "record_every": 2,
        "batch_size": 16,
    },
)

if __name__ == "__main__":
    main_of_study(STUDY)
