"""How deep can a plain network be and still train, for every scale of its kernels?

The map of Schoenholz et al. 2017 (figure 5) for tanh: training accuracy over depth and sigma_w^2, 20 x 20 cells, with
the line that theory draws, six times the depth over which the correlation of two inputs decays (6 xi_c). Depth is the
only axis that needs a program of its own.

Papers: Poole et al. 2016; Schoenholz et al. 2017.
Command: `cnnjax run experiments/trainability.py`
Cost: 1,600 runs of 160 steps in 20 programs: 9 min 51 s on two cores, 18 minutes of processor time (JAX 0.10.2).
Expected: the border of the cells that train follows 6 xi_c on the ordered side (sigma_w^2 below 1.76) and stays a fifth
to a third below it on the chaotic one. At the critical line, where theory has no border, so few steps train 74 layers and
not 89; 140 steps of 64 images, which take 10 min 56 s, come a cell nearer to the line.
"""

import math

import numpy as np

from cnnjax.cli import main_of_study
from cnnjax.study import Study

SIGMA_B2 = 0.05

STUDY = Study(
    name="trainability",
    question="How deep can a plain tanh network be and still train, for every scale of its kernels?",
    description=(
        "Fully connected tanh networks on digits. On the critical line, sigma_w^2 = 1.76, signals travel through any "
        "depth; away from it two images become alike, or unlike, over a depth scale that theory predicts."
    ),
    papers=["Poole et al. 2016, arXiv:1606.05340", "Schoenholz et al. 2017, arXiv:1611.01232"],
    model="mlp",
    options={
        "width": 100,
        "activation": "tanh",
        "initializer": "gaussian",
        "bias_std": math.sqrt(SIGMA_B2),
    },
    grid={
        "sigma_w2": {
            f"{value:g}": {"gain": math.sqrt(value)} for value in np.linspace(0.6, 4.4, 20).round(3)
        },
        "depth": [round(depth) for depth in np.geomspace(4, 128, 20)],
    },
    learning_rates=[0.01, 0.0015],
    seeds=2,
    steps=160,
    record_every=80,
    batch_size=32,
    quick={
        "grid": {
            "sigma_w2": {f"{value:g}": {"gain": math.sqrt(value)} for value in (0.6, 1.8)},
            "depth": [4, 8],
        },
        "seeds": 1,
        "steps": 4,
        "record_every": 2,
        "learning_rates": [0.01],
    },
)

if __name__ == "__main__":
    main_of_study(STUDY)
