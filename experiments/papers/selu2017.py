"""Self-Normalizing Neural Networks (Klambauer et al. 2017, arXiv:1706.02515): do activations stay normalized?

Claim as published (theorem 1): with SELU and weights of mean 0 and variance 1 / n, activations converge to mean 0 and
variance 1 from layer to layer, and do not leave [-0.1, 0.1] and [0.8, 1.5] on the way. (Abstract): so deep networks
train, and vanishing and exploding gradients are impossible; fully connected SELU networks outperform ReLU networks.
Settings: fully connected, 32 hidden layers of 256 units, SGD with batches of 64, the best of four learning rates for
each cell; SELU's constants are 1.0507009873554805 and 1.6732632423543772. The theorem is about expectations, so means
over seeds are judged.
Smaller here: digits instead of the 121 tasks of UCI, 180 steps (10 epochs), no dropout. What is fixed is the forward
moment; the gradient's factor is E[phi'^2] = 1.0716 a layer, not 1: tenfold over 32 layers.
Command: `cnnjax reproduce selu2017`; `--tier full` takes MNIST (118 times the multiply-adds of the small one; never
run).
Found: in the 32nd layer mean -0.007 [-0.027, 0.013] and log10 of the second moment -0.005 [-0.017, 0.008]; the gradient
grows by 1.0755 a layer [1.0692, 1.0817] (10 seeds). SELU's test error is 19.7 points below ReLU's [10.6, 28.9]: 4.7
against 24.5 %, but ReLU has not come to its end in 180 steps (train accuracy 0.78, SELU 1.00). 2026-11-21, JAX 0.10.2;
4 minutes of processor time.
"""

import math

from cnnjax.cli import main_of_study
from cnnjax.probes import mean_field
from cnnjax.study import Study
from cnnjax.study.claims import AtLayer, Claim, ErrorRate, Rate, Where, difference, equivalent, level, near

SELU, RELU = {"activation": "selu"}, {"activation": "relu"}
FACTOR = mean_field("selu", sigma_w2=1.0, sigma_b2=0.0).chi_1
START = Where(seeds=5, at_least={"depth": 33, "width": 256}, exactly={"norm": None})
SIZE = {"depth": 33, "width": 256, "steps": 180}

STUDY = Study(
    name="selu2017",
    question="Do activations of deep SELU networks keep mean 0 and variance 1, and does it help?",
    papers=["Klambauer et al. 2017, arXiv:1706.02515"],
    model="mlp",
    options={"depth": 33, "width": 256, "initializer": "he_normal"},
    grid={"activation": ["relu", "selu"]},
    learning_rates=[0.03, 0.01, 0.003, 0.001],
    optimizer="sgd",
    seeds=10,
    steps=180,
    record_every=18,
    claims=[
        Claim(
            name="mean 0",
            statement="The activations of the 32nd hidden layer have mean 0, within 0.1.",
            source="Klambauer et al. 2017, theorem 1",
            printed=0,
            rule=level(AtLayer("output_mean", -2), SELU, at_least=-0.1, at_most=0.1, by="interval"),
            where=START,
        ),
        Claim(
            name="variance 1",
            statement="Their second moment is 1, between 0.8 and 1.5 (log10: -0.097 and 0.176).",
            source="Klambauer et al. 2017, theorem 1",
            printed="1 (log10: 0)",
            rule=level(
                AtLayer("output_log10_second_moment", -2),
                SELU,
                at_least=math.log10(0.8),
                at_most=math.log10(1.5),
                by="interval",
            ),
            where=START,
        ),
        Claim(
            name="gradient",
            statement=f"The gradient's second moment grows by {FACTOR:.4f} a layer toward the input, within 3 %.",
            source="mean field, E[phi'^2]; Klambauer et al. 2017: neither vanishing nor exploding",
            rule=near(Rate("gradient_log10_second_moment"), SELU, FACTOR, within=0.03, by="mean"),
            where=START,
        ),
        Claim(
            name="smaller error",
            statement="The test error of a deep SELU network is smaller than that of a ReLU network.",
            source="Klambauer et al. 2017, experiments: 121 tasks of UCI",
            rule=difference(ErrorRate(), SELU, RELU, below=0, diverged=90),
            where=Where(seeds=5, data=["digits", "mnist"], at_least=SIZE),
        ),
        Claim(
            name="less than a point apart",
            statement="At this scale the test errors differ by less than one percentage point.",
            source="not of the paper: what a study of this size can exclude",
            rule=equivalent(ErrorRate(), SELU, RELU, margin=1.0, diverged=90),
            where=Where(seeds=5, data=["digits"], at_least=SIZE),
        ),
    ],
    quick={"seeds": 1, "steps": 10, "record_every": 5, "learning_rates": [0.03]},
)
FULL = STUDY.replace(name="selu2017-full", data="mnist", steps=20_000, record_every=500)

if __name__ == "__main__":
    main_of_study(STUDY)
