import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.functional.conv import conv, conv_transpose
from cnnjax.functional.shapes import (
    ReceptiveField,
    WindowLayer,
    activation_bytes,
    ceil_padding,
    conv_flops,
    conv_parameters,
    dense_flops,
    dense_parameters,
    flops,
    output_size,
    parameter_count,
    receptive_field,
    same_padding,
    transposed_output_size,
)


@pytest.mark.parametrize("padding", ["VALID", "SAME", "FULL", "CIRCULAR", "same", 2, [(1, 3)]])
@pytest.mark.parametrize(
    ("size", "window", "stride", "dilation"), [(11, 3, 1, 2), (12, 4, 2, 1), (9, 2, 3, 2)]
)
def test_output_size_is_that_of_conv(size, window, stride, padding, dilation):
    options = dict(stride=stride, padding=padding, dilation=dilation)
    x, kernel = (
        jax.ShapeDtypeStruct((1, size, 1), jnp.float32),
        jax.ShapeDtypeStruct((window, 1, 1), jnp.float32),
    )
    y = jax.eval_shape(lambda x, kernel: conv(x, kernel, **options), x, kernel)
    assert output_size(size, window, **options) == y.shape[1]


@pytest.mark.parametrize("padding", ["VALID", "SAME", "same", 1, [(0, 1)]])
@pytest.mark.parametrize(("window", "stride", "dilation"), [(3, 1, 1), (4, 2, 1), (2, 3, 2), (2, 4, 1)])
def test_transposed_output_size_is_that_of_conv_transpose(window, stride, padding, dilation):
    options = dict(stride=stride, padding=padding, dilation=dilation)
    x, kernel = (
        jax.ShapeDtypeStruct((1, 5, 1), jnp.float32),
        jax.ShapeDtypeStruct((window, 1, 1), jnp.float32),
    )
    y = jax.eval_shape(lambda x, kernel: conv_transpose(x, kernel, **options), x, kernel)
    assert transposed_output_size(5, window, **options) == y.shape[1]


def test_sizes_per_axis():
    assert output_size((32, 28), 5) == (28, 24)
    assert output_size((32, 28, 9), (5, 3, 1), stride=(1, 2, 3), padding=((0, 0), (1, 1), (0, 0))) == (
        28,
        14,
        3,
    )
    assert transposed_output_size((4, 5), (2, 3), stride=(2, 1), padding="VALID") == (8, 7)


@pytest.mark.parametrize(("size", "window", "stride"), itertools.product((6, 7, 10), (1, 2, 3, 5), (1, 2, 3)))
def test_same_padding_gives_the_ceiling(size, window, stride):
    (pair,) = same_padding(size, window, stride=stride)
    assert 0 <= pair[1] - pair[0] <= 1
    assert output_size(size, window, stride=stride, padding=(pair,)) == -(-size // stride)


def test_same_padding_of_stride_two_on_an_even_size_is_at_the_high_end():
    # Flax 0.12 and TensorFlow; torch's padding=1 would be (1, 1).
    assert same_padding((32, 33), 3, stride=2) == ((0, 1), (1, 1))


def windows_of_torch(size, window, stride, padding):
    """Where the windows of a pooling with `ceil_mode` begin, by torch's rule (checked against torch 2.13 for each case).

    They go on while the one before has not reached the end of the padded input, and none begins behind the input.
    """
    starts = [-padding]
    while starts[-1] + window < size + padding and starts[-1] + stride < size:
        starts.append(starts[-1] + stride)
    return starts


def test_ceil_padding_holds_the_windows_of_torch():
    for size, window, stride, padding in itertools.product(range(1, 13), range(1, 6), range(1, 6), range(3)):
        # Torch's bounds: windows of half padding, and a least size.
        if padding > window // 2 or size + 2 * padding + stride <= window:
            continue
        (pair,) = ceil_padding(size, window, stride=stride, padding=padding)
        starts = windows_of_torch(size, window, stride, padding)
        assert output_size(size, window, stride=stride, padding=(pair,)) == len(starts)
        # No more than the last window needs.
        assert pair == (padding, max(padding, starts[-1] + window - size))


def test_ceil_padding_of_an_input_that_is_too_small():
    (pair,) = ceil_padding(1, 3, stride=2)
    with pytest.raises(ValueError, match="window larger than the padded input"):
        output_size(1, 3, stride=2, padding=(pair,))


LAYERS = [(3, 1, 1), (2, 2), (3, 1, [(2, 0)], 2), (4, 3, "FULL"), (3, 1, "SAME")]


def test_receptive_field_is_the_support_of_the_gradient():
    def network(x, center):
        for record in LAYERS:
            layer = WindowLayer(*record)
            kernel = jnp.ones((layer.window, 1, 1))
            x = conv(x, kernel, stride=layer.stride, padding=layer.padding, dilation=layer.dilation)
        return x[0, center, 0]

    gradients = [jax.grad(network)(jnp.ones((1, 120, 1)), unit)[0, :, 0] for unit in (4, 5)]
    (first, last), (next_first, _) = (np.flatnonzero(gradient)[[0, -1]] for gradient in gradients)
    field = receptive_field(LAYERS)[-1]
    assert field.size == last - first + 1
    assert field.jump == next_first - first
    assert field.start == (first + last) / 2 - 4 * field.jump


def test_receptive_field_of_strided_same_layers_follows_the_size():
    layers = [(3, 2, "SAME"), (3, 2, "SAME")]
    # 8 -> 4 pads (0, 1) twice; 7 -> 4 pads (1, 1), then (0, 1).
    assert receptive_field(layers, size=8)[-1] == ReceptiveField(size=7, jump=4, start=3.0)
    assert receptive_field(layers, size=7)[-1] == ReceptiveField(size=7, jump=4, start=2.0)
    with pytest.raises(
        ValueError, match="SAME padding with stride 2 depends on the size of the input: pass size="
    ):
        receptive_field(layers)


def test_receptive_field_of_no_layer_is_the_input():
    assert receptive_field([]) == [ReceptiveField(size=1, jump=1, start=0.0)]


def test_conv_parameters_count_the_kernel_of_conv():
    kernel, bias = jnp.ones((3, 5, 2, 12)), jnp.ones(12)
    assert conv_parameters((3, 5), 8, 12, groups=4) == parameter_count({"kernel": kernel, "bias": bias})
    assert conv_parameters((3, 5), 8, 12, groups=4, bias=False) == kernel.size
    assert conv_parameters(3, 8, 12, bias=False) == 3 * 8 * 12
    assert dense_parameters(7, 5) == 40 and dense_parameters(7, 5, bias=False) == 35


def test_parameter_count_needs_no_values():
    tree = {"a": [jax.ShapeDtypeStruct((3, 4), jnp.float32), np.ones(5)], "b": jnp.float32(1)}
    assert parameter_count(tree) == 18


def test_flops_are_those_of_the_network():
    # VGG-16, 224x224: 15.47 G multiply-adds, torchvision 0.28.0's figure.
    channels, size, by_hand, before = [64, 64, 128, 128, *[256] * 3, *[512] * 6], 224, 0, 3
    for index, width in enumerate(channels):
        size //= 2 if index in (2, 4, 7, 10) else 1
        by_hand += conv_flops((size, size), (3, 3), before, width)
        before = width
    by_hand += dense_flops(7 * 7 * 512, 4096) + dense_flops(4096, 4096) + dense_flops(4096, 1000)
    assert by_hand / 2e9 == pytest.approx(15.47, abs=0.005)
    pool, stages = (2, None, 2), [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]
    layers = [layer for width, depth in stages for layer in [(3, width, 1, "SAME")] * depth + [pool]]
    assert flops([*layers, (7, 4096), (1, 4096), (1, 1000)], size=(224, 224), channels=3) == by_hand


def test_flops_of_a_chain_follow_every_option():
    # 9 -> 4 with 3 -> 6 channels in 3 groups, -> 2 by pooling, -> 5 under FULL with a window of 2 spread to 4.
    layers = [(3, 6, 2, "VALID", 1, 3), (2, None, 2), (2, 4, 1, "FULL", 3)]
    assert flops(layers, size=9, channels=3) == 2 * (4 * 3 * 6 + 5 * 2 * 6 * 4)
    assert flops([], size=(4, 4), channels=3) == 0
    with pytest.raises(ValueError, match="window larger than the padded input along spatial axis 0"):
        flops([(3, 4), (3, 4)], size=4, channels=3)
    with pytest.raises(ValueError, match="out_channels must be positive, got 0"):
        flops([(3, 0)], size=4, channels=3)


def test_depthwise_flops():
    assert conv_flops((10, 10), (3, 3), 6, 6, groups=6) == 2 * 100 * 9 * 6


def test_activation_bytes():
    assert activation_bytes([(2, 3, 4), (5,), ()]) == 4 * (24 + 5 + 1)
    assert activation_bytes([(8, 8)], itemsize=2) == 128


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: conv_parameters((3, 3), -3, 4), "in_channels must be positive, got -3"),
        (lambda: conv_parameters((3, -3), 3, 4), r"window must be positive, got \(3, -3\)"),
        (lambda: conv_flops((8, -8), 3, 3, 4), "output must be positive"),
        (lambda: conv_flops(8, 3, 3, -4), "out_channels must be positive, got -4"),
        (lambda: dense_parameters(-1, 5), "n_in must be positive, got -1"),
        (lambda: dense_flops(1, -5), "n_out must be positive, got -5"),
        (lambda: activation_bytes([(2, 3), (4, -1)]), r"no negative sizes, got \(4, -1\)"),
        (lambda: activation_bytes([(2,)], itemsize=-4), "itemsize must be positive, got -4"),
        (lambda: output_size(-4, 1), "size must be positive, got -4"),
        (lambda: same_padding(4, -3), "window must be positive, got -3"),
        (lambda: receptive_field([(3, -1)]), "stride must be positive, got -1"),
    ],
)
def test_sizes_below_one(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_errors():
    with pytest.raises(ValueError, match="window larger than the padded input along spatial axis 0"):
        output_size(4, 5)
    with pytest.raises(ValueError, match=r"stride must have one entry per spatial axis \(2\)"):
        output_size((4, 4), 3, stride=(1, 2, 3))
    with pytest.raises(ValueError, match="3 input and 4 output channels do not divide into 2 groups"):
        conv_parameters((3, 3), 3, 4, groups=2)
    with pytest.raises(ValueError, match="takes SAME or VALID padding, an int or pairs, got 'FULL'"):
        transposed_output_size(4, 3, padding="FULL")
    with pytest.raises(ValueError, match=r"padding 3 crops all of the output: its size would be \(0,\)"):
        transposed_output_size(4, 3, padding=3)
