"""Which of the well-known architectures keep the gradient alive, and is it their skips or their norms?

LeNet-5, AlexNet, VGG-11, GoogLeNet, ResNet-18, DenseNet, MobileNetV2 and EfficientNet-B0 at CIFAR scale, each as its
paper has it and as its twins: without shortcuts ("no skip"), without norm, and without both ("plain"). Each begins
with its own initializer and keeps its own activation, so that a twin differs from its model in one thing.

At CIFAR scale means for each, all by options of the model:
  lenet5           as it is: its images have 32x32
  alexnet          stem "cifar": a 3x3 window without a stride in the place of 11x11 with a stride of 4
  vgg11            head "cifar": the logits are linear in the last maps, of 1x1; with batch norm, its twin is the paper's
  googlenet        stem "cifar": a 3x3 window without a stride, and no pooling before stage 3
  resnet18         stem "cifar": a 3x3 window without a stride, and no pooling
  densenet40_12    made for CIFAR: three blocks; here of 6 layers each
  mobilenet_v2     stem "cifar": no stride in the first convolution; the last maps have 2x2
  efficientnet_b0  stem "cifar": the same
Channels are a quarter of the papers', LeNet-5's excepted (DenseNet: growth 6 instead of 12). Dropout and stochastic depth
are off, so that what is compared is the architecture.

Papers: see `papers` below.
Command: `cnnjax run experiments/architectures.py`, on CIFAR-10 itself: `--data cifar10 --steps 2000`
Cost: 132 runs of 150 steps in 22 programs: 55 minutes of processor time (on two cores that were shared, JAX 0.10.2).
Expected: with shortcuts and norm all train (test accuracy 85 to 96 %; DenseNet, at 56 %, fits its 84 % of training images
by statistics of the batch that its running ones lag behind). With the norm and without shortcuts gradients grow toward
the input (MobileNetV2: by 6 orders, 35 %); without both they fall (EfficientNet: by 20 orders, at chance). GoogLeNet
without norm keeps its gradient and does not train in so few steps: flow is not all. AlexNet stays at chance: its
paper's kernels, of deviation 0.01 whatever the width, are too small for a quarter of the channels, and 1e-11 of the
gradient arrives.
"""

from cnnjax.cli import main_of_study
from cnnjax.study import Study

TWINS = {
    "no skip": {"skip": False},
    "no norm": {"norm": None},
    "plain": {"skip": False, "norm": None},
}
STILL = {"dropout": 0.0}
FAMILIES = {
    "lenet5": ({"model": "lenet5"}, ()),
    "alexnet": (
        {"model": "alexnet", "stem": "cifar", "widths": (16, 48, 96, 64, 64), "hidden": 256, **STILL},
        (),
    ),
    "vgg11": ({"model": "vgg11_bn", "head": "cifar", "width": 16, **STILL}, ("no norm",)),
    "googlenet": ({"model": "googlenet", "stem": "cifar", "width": 16, **STILL}, ("no norm",)),
    "resnet18": ({"model": "resnet18", "stem": "cifar", "width": 16}, TWINS),
    "densenet": ({"model": "densenet40_12", "depths": (6, 6, 6), "growth": 6, "width": 8}, TWINS),
    "mobilenet_v2": (
        {"model": "mobilenet_v2", "stem": "cifar", "width_multiplier": 0.25, **STILL},
        TWINS,
    ),
    "efficientnet_b0": (
        {
            "model": "efficientnet_b0",
            "stem": "cifar",
            "width_multiplier": 0.25,
            "drop_path": 0.0,
            **STILL,
        },
        TWINS,
    ),
}
ARCHITECTURES = {
    f"{name}{suffix}": {**options, **change}
    for name, (options, twins) in FAMILIES.items()
    for suffix, change in [("", {}), *((f" {twin}", TWINS[twin]) for twin in twins)]
}

STUDY = Study(
    name="architectures",
    question="Which of the well-known architectures keep the gradient alive, and is it their skips or their norms?",
    papers=[
        "LeCun et al. 1998 (LeNet-5)",
        "Krizhevsky 2014, arXiv:1404.5997 (AlexNet)",
        "Simonyan & Zisserman 2015, arXiv:1409.1556 (VGG)",
        "Szegedy et al. 2015, arXiv:1409.4842 (GoogLeNet)",
        "He et al. 2016, arXiv:1512.03385 (ResNet)",
        "Huang et al. 2017, arXiv:1608.06993 (DenseNet)",
        "Sandler et al. 2018, arXiv:1801.04381 (MobileNetV2)",
        "Tan & Le 2019, arXiv:1905.11946 (EfficientNet)",
    ],
    data="digits32",
    grid={"architecture": ARCHITECTURES},
    learning_rates=[0.03, 0.003],
    seeds=3,
    steps=150,
    record_every=50,
    batch_size=16,
    quick={
        "grid": {
            "architecture": {
                "lenet5": ARCHITECTURES["lenet5"],
                **{
                    f"resnet18{suffix}": {**ARCHITECTURES[f"resnet18{suffix}"], "width": 4}
                    for suffix in ("", " no skip")
                },
            }
        },
        "seeds": 1,
        "steps": 2,
        "record_every": 2,
        "learning_rates": [0.03],
    },
)

if __name__ == "__main__":
    main_of_study(STUDY)
