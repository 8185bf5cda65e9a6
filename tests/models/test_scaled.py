import math

import jax
import numpy as np
import pytest

from cnnjax import models
from cnnjax.models.scaled import round_channels

from ..drawn import images, variables
from .traced import output_shapes


@pytest.mark.parametrize(
    "channels, rounded",
    [
        # EfficientNet-B3's stem and stages as TensorFlow's checkpoint has them: 1.2 times 32, 16, 24, 40, 80, 112, 192, 320.
        *zip((38.4, 19.2, 28.8, 48, 96, 134.4, 230.4, 384), (40, 24, 32, 48, 96, 136, 232, 384), strict=True),
        # 16 would be less than nine tenths.
        (18, 24),
        (1, 8),
        (12, 16),
    ],
)
def test_channels_are_rounded_to_multiples_of_8(channels, rounded):
    assert round_channels(channels) == rounded


def test_rounding_takes_away_a_tenth_at_most():
    for channels in np.linspace(1, 2000, 9999):
        rounded = round_channels(channels)
        assert rounded % 8 == 0 and 0.9 * channels <= rounded < channels + 8


EMPTY = {
    "mobilenet_v1": {"stages": ()},
    "mobilenet_v2": {"stages": ()},
    "mobilenet_v3_small": {"blocks": ()},
    "efficientnet_b0": {"stages": ()},
}


@pytest.mark.parametrize("name", EMPTY)
def test_the_stem_for_small_images_keeps_their_size(name):
    sizes = [
        output_shapes(
            models.create(name, **EMPTY[name], stem=stem), jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
        )
        for stem in ("imagenet", "cifar")
    ]
    assert [found["stem"][:2] for found in sizes] == [(16, 16), (32, 32)]


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small"])
def test_dropout_is_in_front_of_the_head(name):
    model = models.create(name, **EMPTY[name], dropout=0.25, norm=None, num_classes=5)
    x = images(8, 4, 4, 3)
    made = variables(model, x)

    @jax.jit
    def features(made):
        return [
            model.apply(
                made, x, train=train, rngs={"dropout": jax.random.key(0)}, capture_intermediates=True
            )[1]["intermediates"]["dropout"]["__call__"][0]
            for train in (True, False)
        ]

    dropped, whole = jax.device_get(features(made))
    kept = dropped != 0
    np.testing.assert_allclose(dropped[kept], whole[kept] / 0.75, rtol=1e-4)
    # ReLU6 and hard-swish have zeros of their own.
    count = np.sum(whole != 0)
    assert abs(kept.sum() / count - 0.75) < 4 * math.sqrt(0.25 * 0.75 / count)


@pytest.mark.parametrize(
    "name, options, error, text",
    [
        ("mobilenet_v1", {"width_multiplier": 0}, ValueError, "width_multiplier .* positive number; got 0"),
        (
            "mobilenet_v2",
            {"width_multiplier": "1"},
            ValueError,
            "width_multiplier .* positive number; got '1'",
        ),
        (
            "efficientnet_b0",
            {"depth_multiplier": -1.1},
            ValueError,
            "depth_multiplier .* positive number; got -1.1",
        ),
        ("efficientnet_b0", {"drop_path": 1}, ValueError, r"drop_path .* must lie in \[0, 1\); got 1"),
        ("mobilenet_v3_large", {"dropout": -0.1}, ValueError, r"dropout .* must lie in \[0, 1\); got -0.1"),
        ("mobilenet_v1", {"stem": "cifra"}, ValueError, "unknown stem 'cifra'; did you mean 'cifar'"),
        (
            "mobilenet_v1",
            {"stages": ((64, 1),)},
            ValueError,
            r"stages must be a sequence of \(channels: int, blocks: int, stride: int\).* got \(\(64, 1\),\)",
        ),
        (
            "mobilenet_v2",
            {"stages": ((6, 16, 0, 1),)},
            ValueError,
            r"stages must be .* positive; got \(\(6, 16, 0",
        ),
        ("mobilenet_v2", {"stages": 3}, ValueError, "stages must be a sequence of .* got 3"),
        (
            "mobilenet_v3_small",
            {"blocks": ((3, 16, 16, 1, "relu", 1),)},
            ValueError,
            r"blocks must be .* squeeze: bool, activation: str, stride: int\)",
        ),
        (
            "mobilenet_v3_small",
            {"blocks": ((3, 16, 16, True, "rleu", 1),)},
            ValueError,
            "did you mean 'relu'",
        ),
        ("mobilenet_v3_small", {"activation": "rleu"}, ValueError, "did you mean 'relu'"),
        (
            "efficientnet_b0",
            {"stages": ((1, 3, 1, 16, 1),)},
            ValueError,
            r"stages must be .* \(fused: bool, exp",
        ),
    ],
)
def test_options_that_do_not_fit(name, options, error, text):
    with pytest.raises(error, match=text):
        models.create(name, **options)
