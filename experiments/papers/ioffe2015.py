"""Batch Normalization (Ioffe & Szegedy 2015, arXiv:1502.03167): does it make a sigmoid network trainable?

Claim as published (section 4.2.2): Inception with sigmoids stays at the accuracy of guessing without batch norm and
reaches 69.8 % with it (ImageNet, top-1). (Section 4.1, figure 1): a network of three layers of 100 sigmoids on MNIST
learns faster with it.
Settings: sigmoid convolutions, SGD with momentum, the best of three learning rates for each cell.
Smaller here: digits of 8x8, 4 to 16 layers of 16 channels, 160 steps of 64 images. A larger initial scale (a gain of
16) rescues the 4 layers without batch norm, too: what kills the gradient is the derivative of the sigmoid, at most
1/4.
Command: `cnnjax reproduce ioffe2015`; `--tier full` takes MNIST, as the paper's figure 1 (255 times the multiply-adds
of the small one; never run).
Found: without batch norm 8 and 16 layers stay at chance (test accuracy 0.099), with it all train (0.946 [0.924,
0.967], 3 seeds). 2026-11-21, JAX 0.10.2; 3 minutes of processor time.
"""

from cnnjax.cli import main_of_study
from cnnjax.study import Study
from cnnjax.study.claims import Claim, Where, level

HERE = Where(seeds=3, data=["digits", "mnist"], at_least={"steps": 160})

STUDY = Study(
    name="ioffe2015",
    question="Does batch norm make a sigmoid network trainable?",
    papers=["Ioffe & Szegedy 2015, arXiv:1502.03167"],
    model="plain",
    options={"width": 16, "activation": "sigmoid", "initializer": "xavier_normal"},
    grid={"norm": [None, "batch"], "depth": [4, 8, 16]},
    learning_rates=[0.3, 0.1, 0.03],
    seeds=3,
    steps=160,
    record_every=20,
    claims=[
        Claim(
            name="chance without batch norm",
            statement="A sigmoid network without batch norm stays at the accuracy of guessing.",
            source="Ioffe & Szegedy 2015, section 4.2.2",
            printed="never above 1/1000",
            rule=level("test_accuracy", {"norm": None, "depth": [8, 16]}, at_most=0.15, diverged=0.1),
            where=HERE,
        ),
        Claim(
            name="trains with batch norm",
            statement="The same network trains with batch norm.",
            source="Ioffe & Szegedy 2015, section 4.2.2",
            printed="69.8 % (ImageNet)",
            rule=level("test_accuracy", {"norm": "batch"}, at_least=0.9),
            where=HERE,
        ),
        Claim(
            name="the accuracy of ImageNet",
            statement="Inception with sigmoids and batch norm reaches 69.8 %.",
            source="Ioffe & Szegedy 2015, figure 3",
            printed=0.698,
            rule=level("test_accuracy", {"norm": "batch"}, at_least=0.693, at_most=0.703, by="interval"),
            where=Where(seeds=1, data=["imagenet2012"]),
        ),
    ],
    quick={"grid": {"norm": [None, "batch"], "depth": [4]}, "seeds": 1, "steps": 20},
)
FULL = STUDY.replace(name="ioffe2015-full", data="mnist", seeds=5, steps=2000, record_every=100)

if __name__ == "__main__":
    main_of_study(STUDY)
