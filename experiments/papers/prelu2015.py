"""Delving Deep into Rectifiers (He, Zhang, Ren, Sun 2015, arXiv:1502.01852): is a learned slope better than none?

Claim as published (section 2.1, table 2; section 4): a parametric ReLU, whose slope for negative inputs is learned
for each channel, fits better than ReLU at nearly no cost: 32.64 against 33.82 % top-1 error on ImageNet (14 layers).
Settings: plain convolutional networks of 14 layers, He's initializer with the gain of each activation, momentum 0.9,
no weight decay on the slopes (nor on anything), the best of three learning rates for each cell.
Smaller here: digits of 8x8 instead of ImageNet, 16 channels, 225 steps. A network that makes ten mistakes in 359 test
images has little to gain, and one of them is 0.28 points: a difference as small as the paper's takes more data.
Command: `cnnjax reproduce prelu2015`; `--tier full` takes CIFAR-10 at width 64, for a GPU (2e17 multiply-adds, 6 hours
at an assumed 1e13 a second; never run).
Found: PReLU fits better, with a training loss 0.028 below ReLU's [0.018, 0.038] (0.005 and 0.033; 10 seeds). The test
errors, 4.2 and 4.8 %, differ by -0.7 points [-2.1, 0.7], which shows neither a gain nor that there is less than a point
to gain: that would take 70 seeds or more. 2026-11-21, JAX 0.10.2; 3 minutes of processor time.
"""

from cnnjax.cli import main_of_study
from cnnjax.study import Study
from cnnjax.study.claims import Claim, ErrorRate, Where, difference, equivalent

PRELU, RELU = {"activation": "prelu"}, {"activation": "relu"}
HERE = Where(seeds=5, data=["digits", "mnist", "cifar10"], at_least={"depth": 14, "steps": 225})

STUDY = Study(
    name="prelu2015",
    question="Is a ReLU with a learned slope better than one without?",
    papers=["He et al. 2015, arXiv:1502.01852"],
    model="plain",
    options={"depth": 14, "width": 16, "initializer": "he_normal"},
    grid={"activation": ["relu", "prelu"]},
    learning_rates=[0.03, 0.01, 0.003],
    seeds=10,
    steps=225,
    record_every=45,
    claims=[
        Claim(
            name="smaller error",
            statement="PReLU's test error is smaller than ReLU's.",
            source="He et al. 2015, section 2.1",
            rule=difference(ErrorRate(), PRELU, RELU, below=0),
            where=HERE,
        ),
        Claim(
            name="better fit",
            statement="PReLU's training loss is smaller than ReLU's after the same number of steps.",
            source="He et al. 2015, section 2.1",
            rule=difference("train_loss", PRELU, RELU, below=0),
            where=HERE,
        ),
        Claim(
            name="less than a point apart",
            statement="At this scale the test errors differ by less than one percentage point.",
            source="not of the paper: what a study of this size can exclude",
            rule=equivalent(ErrorRate(), PRELU, RELU, margin=1.0),
            where=Where(seeds=5, data=["digits"], at_least={"depth": 14, "steps": 225}),
        ),
        Claim(
            name="the gain on ImageNet",
            statement="PReLU lowers the top-1 error on ImageNet by 1.18 points.",
            source="He et al. 2015, table 2",
            printed="32.64 and 33.82 % error",
            rule=difference(ErrorRate(), PRELU, RELU, above=-1.68, below=-0.68),
            where=Where(seeds=5, data=["imagenet2012"]),
        ),
    ],
    quick={"seeds": 1, "steps": 10, "record_every": 5, "learning_rates": [0.03]},
)
FULL = STUDY.replace(
    name="prelu2015-full",
    data="cifar10",
    options={**STUDY.options, "width": 64},
    batch_size=128,
    steps=20_000,
    record_every=500,
)

if __name__ == "__main__":
    main_of_study(STUDY)
