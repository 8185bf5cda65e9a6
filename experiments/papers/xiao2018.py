"""Mean Field Theory of CNNs (Xiao et al. 2018, arXiv:1806.05393): can thousands of plain layers be trained?

Claim as published (figure 1 and experiments): vanilla tanh convolutional networks of up to 10,000 layers train from
delta-orthogonal kernels on the critical line, where Gaussian kernels of the same variance fail at such depths.
Settings: circular padding, neither norm nor skip, (sigma_w^2, sigma_b^2) = (1.05, 2e-5), SGD with momentum 0.9.
Smaller here: digits instead of MNIST, 16 channels, up to 500 layers, 80 steps. Statistics at 10,000 layers are in
experiments/depth.py. The learning rate falls about as 1 / depth; lower precision (bf16, TF32) breaks it.
Command: `cnnjax reproduce xiao2018`; `--tier full` takes MNIST at 1,000 to 10,000 layers, for a GPU (7e16
multiply-adds, 2 hours at an assumed 1e13 a second; never run).
Found: at 500 layers delta-orthogonal kernels reach 0.881 [0.788, 0.974] on the validation split (3 seeds, lowest
0.854), Gaussian ones stay at chance (0.104), 0.78 [0.67, 0.88] behind; at 100 layers 0.911 and 0.741. The first layer's
mean squared gradient is 3.3 times the last hidden one's (0.52 [0.28, 0.75] orders of magnitude). Gaussian kernels lose
1.1 orders there (mean over seeds, at most 1.3), too little to explain by itself why they fail. 2026-11-21, JAX 0.10.2,
Python 3.11.7; 7 minutes of processor time.
"""

import math

from cnnjax.cli import main_of_study
from cnnjax.study import Study
from cnnjax.study.claims import Claim, Where, difference, level

SOURCE = "Xiao et al. 2018, figure 1 and experiments"
DEEPEST = 500
HERE = Where(seeds=3, data=["digits", "mnist"], at_least={"steps": 80}, exactly={"padding": "CIRCULAR"})

STUDY = Study(
    name="xiao2018",
    question="Do delta-orthogonal kernels make hundreds of plain layers trainable?",
    papers=["Xiao et al. 2018, arXiv:1806.05393"],
    model="plain",
    options={
        "width": 16,
        "activation": "tanh",
        "padding": "CIRCULAR",
        "gain": math.sqrt(1.05),
        "bias_std": math.sqrt(2e-5),
    },
    grid={"initializer": ["gaussian", "delta_orthogonal"], "depth": [100, DEEPEST]},
    learning_rates=[0.003, 0.0006],
    seeds=3,
    steps=80,
    record_every=20,
    batch_size=32,
    claims=[
        Claim(
            name="delta-orthogonal trains",
            statement="Vanilla tanh networks of hundreds of layers train from delta-orthogonal kernels.",
            source=SOURCE,
            printed="10,000 layers",
            rule=level(
                "validation_accuracy", {"initializer": "delta_orthogonal", "depth": DEEPEST}, at_least=0.8
            ),
            where=HERE,
        ),
        Claim(
            name="Gaussian falls behind",
            statement="Gaussian kernels at the same point fail at that depth.",
            source=SOURCE,
            rule=difference(
                "validation_accuracy",
                {"initializer": "delta_orthogonal", "depth": DEEPEST},
                {"initializer": "gaussian", "depth": DEEPEST},
                above=0.3,
                diverged=0.1,
            ),
            where=HERE,
        ),
        Claim(
            name="delta-orthogonal keeps the gradient",
            statement="Delta-orthogonal kernels carry the gradient through all layers within one order of magnitude.",
            source="Xiao et al. 2018, section 3",
            rule=level(
                "gradient_ratio_log10",
                {"initializer": "delta_orthogonal", "depth": DEEPEST},
                at_least=-1,
                at_most=1,
            ),
            where=Where(seeds=3),
        ),
    ],
    quick={"grid": {"initializer": ["gaussian", "delta_orthogonal"], "depth": [20]}, "seeds": 1, "steps": 20},
)
FULL = STUDY.replace(
    name="xiao2018-full",
    data="mnist",
    grid={"initializer": ["gaussian", "delta_orthogonal"], "depth": [DEEPEST, 1000, 10_000]},
    learning_rates=[0.0006, 0.0002, 0.00003],
    steps=2000,
    record_every=100,
)

if __name__ == "__main__":
    main_of_study(STUDY)
