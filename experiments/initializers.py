"""How deep does each initializer carry a plain tanh network, and how exact must its gain be?

Gaussian and orthogonal kernels, and delta-orthogonal ones, which are isometries of a circular convolution, with gains
from 0.8 to 1.6, up to 200 layers without norm and without skip.

Papers: Glorot & Bengio 2010; He et al. 2015; Saxe et al. 2014 (orthogonal); Xiao et al. 2018 (delta-orthogonal).
Command: `cnnjax run experiments/initializers.py`, or `python experiments/initializers.py --quick`
Cost: 240 runs of 100 steps in 3 programs: 24 minutes of processor time (2 CPU cores, JAX 0.10.2) and 2 GiB.
Expected: at 10 layers every gain trains (92 to 97 % test accuracy), at 50 all but 0.8 (1.6 badly). At 200 layers
delta-orthogonal kernels train with a gain of 1 to 1.2 (87, 91, 74 %). All others stay below them, Gaussian ones at 17
and 52 % even where their gradient keeps its size, with gains of 1 and 1.025: equal second moments hide a spread of
singular values. A gain of 0.8 loses 39 orders of magnitude there, one of 1.6 gains 13 to 15. (Circular padding: zeros
would leak signal from 8x8 maps.)
"""

from cnnjax.cli import main_of_study
from cnnjax.study import Study

STUDY = Study(
    name="initializers",
    question="How deep does each initializer carry a plain tanh network, and how exact must its gain be?",
    papers=[
        "Glorot & Bengio 2010",
        "He et al. 2015, arXiv:1502.01852",
        "Saxe et al. 2014, arXiv:1312.6120",
        "Xiao et al. 2018, arXiv:1806.05393",
    ],
    model="plain",
    options={"width": 16, "activation": "tanh", "padding": "CIRCULAR"},
    grid={
        "initializer": ["lecun_normal", "xavier_uniform", "orthogonal", "delta_orthogonal"],
        "gain": [0.8, 1.0, 1.025, 1.2, 1.6],
        "depth": [10, 50, 200],
    },
    learning_rates=[0.01, 0.001],
    seeds=2,
    steps=100,
    record_every=25,
    batch_size=32,
    quick={
        "grid": {"initializer": ["lecun_normal", "delta_orthogonal"], "gain": [0.8, 1.025], "depth": [6]},
        "options": {"width": 10, "activation": "tanh", "padding": "CIRCULAR"},
        "seeds": 1,
        "steps": 4,
        "record_every": 2,
        "batch_size": 16,
    },
)

if __name__ == "__main__":
    main_of_study(STUDY)
