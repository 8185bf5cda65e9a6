import functools
import math
import re

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import print_saved_residuals

from cnnjax import models, nn
from cnnjax.models.densenet import DenseBlock, DenseLayer

from ..drawn import images, variables
from .traced import inputs, output_shapes, parameters

SMALL = {"depths": (2, 2), "growth": 3, "width": 4, "num_classes": 5}


def count(found):
    return sum(map(math.prod, found.values()))


def test_the_name_counts_the_layers_with_weights():
    assert sum(path.endswith("kernel") for path in parameters("densenet121")) == 121
    # One or two a layer, the stem, a transition between blocks, and the head.
    names = [name for name in models.names() if name.startswith("densenet")]
    for name in names:
        chosen = models.options(name)
        depths = chosen["depths"]
        depth = int(re.search(r"net(?:_bc)?(\d+)", name)[1])
        assert (1 + chosen["bottleneck"]) * sum(depths) + len(depths) + 1 == depth
    assert len(names) == 6


def test_sizes_are_those_of_table_1():
    found = output_shapes(models.create("densenet121"), inputs("densenet121"))
    names = (
        "stem",
        "stem_pool",
        "denseblock1",
        "transition1",
        "transition1_pool",
        "denseblock2",
        "denseblock3",
        "denseblock4",
    )
    assert [found[name] for name in names] == [
        (112, 112, 64),
        (56, 56, 64),
        (56, 56, 256),
        (56, 56, 128),
        (28, 28, 128),
        (28, 28, 512),
        (14, 14, 1024),
        (7, 7, 1024),
    ]


def test_without_skips_the_layers_keep_their_outputs():
    dense, plain = parameters("densenet121"), parameters("densenet121", skip=False)
    kernels = {path for path in dense if path.endswith("kernel")}
    assert set(plain) == set(dense)
    assert all(plain[path][:2] == dense[path][:2] for path in kernels if len(dense[path]) == 4)
    assert all(plain[path][-1] == dense[path][-1] for path in kernels)
    # Each sees the growth of the one before; the first of a block what it saw with skips.
    first = plain["denseblock2/denselayer1/layer1/linear/kernel"]
    second = plain["denseblock2/denselayer2/layer1/linear/kernel"]
    assert first == dense["denseblock2/denselayer1/layer1/linear/kernel"] == (1, 1, 128, 128)
    assert second == (1, 1, 32, 128)
    assert plain["transition2/linear/kernel"] == (1, 1, 32, 256)
    assert plain["final_norm/scale"] == (32,) and plain["head/linear/kernel"] == (32, 1000)
    # 1x1 layers on k channels, but the first of each block; 3x3 layers as they were; 2 for each channel of a norm.
    seen = [64, 128, 256, 512]
    ones = sum(
        (inputs + (depth - 1) * 32) * (128 + 2) for inputs, depth in zip(seen, (6, 12, 24, 16), strict=True)
    )
    threes = 58 * (2 * 128 + 9 * 128 * 32)
    transitions = sum(32 * (out + 2) for out in seen[1:])
    assert count(plain) == 147 * 64 + 2 * 64 + ones + threes + transitions + 2 * 32 + 33 * 1000


def test_the_twin_without_norms_has_biases():
    normed, plain = (parameters("densenet_bc100_12", depths=(2, 2), norm=norm) for norm in ("batch", None))
    kernels = {path for path in normed if path.endswith("kernel")}
    assert set(plain) == kernels | {path.replace("kernel", "bias") for path in kernels}
    assert {path for path in normed if path.endswith("linear/bias")} == {"head/linear/bias"}


@pytest.mark.parametrize("skip", [True, False])
def test_a_layer_sees_all_outputs_before_it(skip):
    layer, x = functools.partial(DenseLayer, 3, norm=nn.BatchNorm), images(2, 4, 4, 5)
    block = DenseBlock(layer, 2, skip)
    made = variables(block, x)

    @jax.jit
    def compute(x):
        def run(name, seen):
            own = {collection: tree[name] for collection, tree in made.items()}
            return layer().apply(own, jnp.concatenate(seen, axis=-1))

        first = run("denselayer1", [x])
        second = run("denselayer2", [x, first] if skip else [first])
        return block.apply(made, x), jnp.concatenate([x, first, second] if skip else [second], axis=-1)

    actual, expected = compute(x)
    assert actual.shape[-1] == (5 + 2 * 3 if skip else 3)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def saved_bytes(capsys, model, made, x):
    """What the backward pass keeps, parameters and the input left out."""
    capsys.readouterr()
    print_saved_residuals(lambda params: model.apply({"params": params}, x).sum(), made["params"])
    lines = [line for line in capsys.readouterr().out.splitlines() if "from the argument" not in line]
    shapes = [line.split("[")[1].split("]")[0] for line in lines if line.startswith("f32[")]
    return 4 * sum(math.prod(map(int, shape.split(","))) for shape in shapes if shape)


def test_remat_keeps_less(capsys):
    def kept(remat):
        model = models.create("densenet_bc100_12", norm=None, remat=remat, **{**SMALL, "depths": (6, 1)})
        return saved_bytes(capsys, model, variables(model, x), x)

    x = images(2, 8, 8, 3)
    assert kept(True) < 0.5 * kept(False)


def test_remat_computes_the_same():
    block = DenseBlock(functools.partial(DenseLayer, 3), 2)
    x = images(2, 4, 4, 5)
    made = variables(block, x)

    @jax.jit
    def gradients(made):
        def objective(made, remat):
            return jnp.sum(jnp.sin(block.clone(remat=remat).apply(made, x)))

        return [jax.grad(objective)(made, remat) for remat in (False, True)]

    plain, again = gradients(made)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), plain, again)


def test_dropout_follows_every_convolution_but_the_first():
    def rates(**options):
        model = models.create("densenet_bc100_12", dropout=0.2, **{**SMALL, **options})
        found = []

        def note(next_function, args, kwargs, context):
            if isinstance(context.module, nn.Dropout):
                found.append(context.module.rate)
            return next_function(*args, **kwargs)

        with linen.intercept_methods(note):
            jax.eval_shape(model.init, jax.random.key(0), inputs("densenet_bc100_12"))
        return found

    # Two in each of four layers, and one in the transition.
    assert rates() == [0.2] * 9 and rates(bottleneck=False) == [0.2] * 5


@pytest.mark.parametrize(
    "options, text",
    [
        ({"compression": 0}, r"compression is the share of channels kept and must lie in \(0, 1\]; got 0"),
        ({"compression": "half"}, r"must lie in \(0, 1\]; got 'half'"),
        ({"stem": "mnist"}, "unknown stem 'mnist'. Known: cifar, imagenet"),
        ({"depths": 6}, "depths must be a tuple of positive integers such as .*; got 6"),
        ({"dropout": 1}, "dropout is a probability of dropping"),
    ],
)
def test_options_that_do_not_fit(options, text):
    with pytest.raises(ValueError, match=text):
        models.create("densenet121", **options)


def test_images_that_are_too_small():
    x = jax.ShapeDtypeStruct((1, 28, 28, 3), "float32")
    # torchvision's least size is 29.
    with pytest.raises(ValueError, match="in layer transition3_pool: .*window larger than the padded input"):
        jax.eval_shape(models.create("densenet121", depths=(1, 1, 1, 1)).init, jax.random.key(0), x)
