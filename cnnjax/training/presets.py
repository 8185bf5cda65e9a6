"""Recipes by name: those of papers and tutorials, and a small one for a look."""

from collections.abc import Mapping
from types import MappingProxyType

from cnnjax.optim import Optimizer, Schedule
from cnnjax.training.augmentation import Augmentation
from cnnjax.training.recipe import Recipe

_NESTEROV = {"momentum": 0.9, "nesterov": True}

PRESETS: Mapping[str, Recipe] = MappingProxyType(
    {
        # Seconds on a laptop, with nothing to download.
        "digits-smoke": Recipe(
            model="cifar_resnet",
            options={"depth": 8, "width": 8},
            data="digits",
            duration="8 epochs",
            batch_size=64,
            learning_rate=0.1,
            schedule=Schedule(name="cosine", warmup="1 epoch"),
            optimizer=Optimizer(name="sgd", options={"momentum": 0.9}, weight_decay=1e-4, decay="l2"),
            augmentation=Augmentation(crop=1),
            record_every="1 epoch",
            probe_every="2 epochs",
        ),
        # LeCun et al. 1998 reach 0.95 % error on MNIST in 20 passes, with tanh. ReLU, Adam, one cycle and averages: three.
        "mnist-lenet5": Recipe(
            model="lenet5",
            options={"padding": "SAME", "activation": "relu"},
            data="mnist",
            validation=1 / 12,
            duration="3 epochs",
            batch_size=32,
            learning_rate=0.002,
            schedule=Schedule(name="one_cycle"),
            optimizer=Optimizer(name="adam"),
            augmentation=Augmentation(crop=1),
            averaging=0.999,
        ),
        # The small network of the TensorFlow tutorial on CIFAR-10: Adam at 0.001, 10 epochs, batch size 32.
        "cifar10-keras": Recipe(
            model="keras_cifar_cnn",
            data="cifar10",
            validation=0.1,
            duration="10 epochs",
            batch_size=32,
            learning_rate=0.001,
            optimizer=Optimizer(name="adam", options={"eps": 1e-7}),
            record_every=200,
        ),
        # He et al. 2016, section 4.2: 45,000 images for training and 5,000 for validation.
        "cifar10-resnet20": Recipe(
            model="cifar_resnet20",
            data="cifar10",
            validation=0.1,
            duration=64_000,
            batch_size=128,
            learning_rate=0.1,
            schedule=Schedule(name="step", boundaries=(32_000, 48_000), factor=0.1),
            optimizer=Optimizer(name="sgd", options={"momentum": 0.9}, weight_decay=1e-4, decay="l2"),
            augmentation=Augmentation(crop=4, flip=True),
            checkpoint_every="5 epochs",
        ),
        # Jordan 2024, airbench94_muon.py. Its rates of the head, 0.67, and of biases, 0.053, are for sums over 2,000
        # losses, and its head, drawn with deviation 1, is divided by 256: a rate of 0.67 * 2000 * (9 / 256)^2 = 1.656 for
        # one divided by 9.
        "cifar10-fast": Recipe(
            model="airbench94",
            data="cifar10",
            validation=0.0,
            duration="8 epochs",
            batch_size=2000,
            learning_rate=0.24,
            schedule=Schedule(name="linear"),
            optimizer=Optimizer(
                name="muon",
                options={"beta": 0.6, "ns_steps": 3, "rest": "sgd", "momentum": 0.85},
                # A step takes 0.004 of each, whatever its rate.
                weight_decay=0.004 / 0.24,
                decay="l2",
                decays={"group*/**/kernel": 0.0, "head": 0.24 / 1.656, "**/bias": 0.24 / 106},
                rates={
                    "whiten/linear/kernel": 0.0,
                    "**/norm/scale": 0.0,
                    "**/bias": 106 / 0.24,
                    "head": 1.656 / 0.24,
                },
                normalize=True,
            ),
            augmentation=Augmentation(crop=2, crop_mode="reflect", flip="alternating"),
            label_smoothing=0.2,
            precision="bfloat16",
            views="flip_shift",
        ),
        # Zagoruyko & Komodakis 2016, section 3: 200 epochs, the rate times 0.2 at 60, 120 and 160.
        "cifar10-wrn28-10": Recipe(
            model="wide_resnet28_10",
            data="cifar10",
            validation=0.0,
            duration="200 epochs",
            batch_size=128,
            learning_rate=0.1,
            schedule=Schedule(name="step", boundaries=("60 epochs", "120 epochs", "160 epochs"), factor=0.2),
            optimizer=Optimizer(name="sgd", options=_NESTEROV, weight_decay=5e-4, decay="l2"),
            augmentation=Augmentation(crop=4, crop_mode="reflect", flip=True),
            checkpoint_every="2 epochs",
        ),
        # Goyal et al. 2017, section 5.1: 0.1 for each 256 images, 5 epochs of warm-up, 90 in all.
        "imagenet-resnet50": Recipe(
            model="resnet50",
            data="imagenet2012",
            image_size=224,
            validation=0.0,
            duration="90 epochs",
            batch_size=256,
            learning_rate=0.1,
            schedule=Schedule(
                name="step", warmup="5 epochs", boundaries=("30 epochs", "60 epochs", "80 epochs"), factor=0.1
            ),
            optimizer=Optimizer(name="sgd", options=_NESTEROV, weight_decay=1e-4, decay="l2"),
            augmentation=Augmentation(flip=True, brightness=0.4, contrast=0.4, saturation=0.4),
            precision="bfloat16",
        ),
        # Tan & Le 2019, section 5.2: RMSProp at 0.256 for 4,096 images, times 0.97 every 2.4 epochs, averages at 0.9999.
        "imagenet-efficientnet-b0": Recipe(
            model="efficientnet_b0",
            data="imagenet2012",
            image_size=224,
            validation=0.0,
            duration="350 epochs",
            batch_size=256,
            learning_rate=0.016,
            schedule=Schedule(name="exponential", warmup="5 epochs", factor=0.97 ** (345 / 2.4)),
            optimizer=Optimizer(
                name="rmsprop",
                options={"decay": 0.9, "momentum": 0.9, "eps": 1e-3},
                weight_decay=1e-5,
                decay="l2",
            ),
            augmentation=Augmentation(flip=True, rand_augment=2, magnitude=9.0),
            label_smoothing=0.1,
            averaging=0.9999,
            precision="bfloat16",
        ),
    }
)
"""The presets of `cnnjax train`."""
