"""How deep does each initializer carry a plain tanh network, and how exact must its gain be?

Gaussian and orthogonal kernels, and delta-orthogonal ones, which are isometries of a circular convolution, with gains from
0.8 to 1.6, up to 200 layers without norm and without skip.

Papers: Glorot & Bengio 2010; He et al. 2015; Saxe et al. 2014 (orthogonal); Xiao et al. 2018 (delta-orthogonal).
Command: `cnnjax run experiments/initializers.py`, or `python experiments/initializers.py --quick`
Cost: 240 runs of 100 steps in 3 programs.
Expected: at 10 layers most gains train. At 200 layers delta-orthogonal kernels with a gain just above 1 are the only ones
whose gradient keeps its size; Gaussian kernels of the same gain spread the singular values of the Jacobian and train
worse or not at all. Gains of 0.8 vanish and of 1.6 are chaotic. (Circular padding: zeros would leak signal from 8x8 maps.)
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
