"""Which remedies of the optimizer help a deep network whose gradient vanishes or explodes?

A plain ReLU network of 20 layers without norm or skip, begun with kernels of 0.7, 1 and 1.5 times He's deviation, so that
the signal and its gradient fall, stay or grow by a constant factor a layer.

Papers: see `papers` below.
Command: `cnnjax run experiments/remedies.py`, or `python experiments/remedies.py --quick`
Cost: 162 runs of 200 steps in 6 programs: 11 minutes of processor time (2 CPU cores that were shared, JAX 0.10.2).
Expected: with momentum alone test accuracies of 12, 92 and 10 %; of the nine runs whose gradient explodes eight diverge.
Clipping by the norm cures what explodes (85 %) and leaves what vanishes as it is (12 %): it can only shrink a gradient.
Adaptive clipping, by each kernel's own norm, keeps those runs finite and does not train them (12 %); nor does a warm-up of
20 steps (20 %). Adam and Muon, whose steps do not depend on the size of a gradient, train all three: 91, 94 and 80 %; 62, 94
and 84 % (with Muon one of three seeds at a gain of 0.7 stays at chance).
"""

from cnnjax.cli import main_of_study
from cnnjax.optim import Optimizer, Schedule
from cnnjax.study import Study

MOMENTUM = {"momentum": 0.9}
REMEDIES = {
    "none": {"optimizer": Optimizer(options=MOMENTUM)},
    "clipped": {"optimizer": Optimizer(options=MOMENTUM, clip="norm", clip_at=1.0)},
    "adaptively clipped": {"optimizer": Optimizer(options=MOMENTUM, clip="adaptive", clip_at=0.01)},
    "warm-up": {"schedule": Schedule(warmup="10 %")},
    "adam": {"optimizer": "adam"},
    "muon": {"optimizer": "muon"},
}

STUDY = Study(
    name="remedies",
    question="Which remedies of the optimizer help where the gradient vanishes, and which where it explodes?",
    papers=[
        "Pascanu et al. 2013, arXiv:1211.5063 (clipping by the norm)",
        "Brock et al. 2021, arXiv:2102.06171 (adaptive clipping)",
        "Goyal et al. 2017, arXiv:1706.02677 (warm-up)",
        "Kingma & Ba 2015, arXiv:1412.6980 (Adam)",
        "Jordan et al. 2024 (Muon)",
    ],
    model="plain",
    options={"width": 16, "depth": 20, "activation": "relu", "initializer": "he_normal"},
    grid={"remedy": REMEDIES, "gain": [0.7, 1.0, 1.5]},
    learning_rates=[0.1, 0.01, 0.001],
    seeds=3,
    steps=200,
    record_every=25,
    quick={
        "grid": {"remedy": {name: REMEDIES[name] for name in ("none", "clipped")}, "gain": [0.7, 1.5]},
        "options": {"width": 8, "depth": 4, "activation": "relu", "initializer": "he_normal"},
        "learning_rates": [0.1],
        "seeds": 1,
        "steps": 4,
        "record_every": 2,
    },
)

if __name__ == "__main__":
    main_of_study(STUDY)
