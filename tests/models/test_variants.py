"""Every registered variant: its parameters to the last one, its logits at the paper's resolution, its multiply-adds."""

import re

import jax
import pytest

from cnnjax import functional as F
from cnnjax import models
from cnnjax.commands.layers import rows

from .golden import GOLDEN, MAPS


def made(name, **options):
    """Logits and variables as shapes."""
    model, variant = models.create(name, **options), models.VARIANTS[name]
    inputs = jax.ShapeDtypeStruct((2, *variant.image), variant.dtype)
    return jax.eval_shape(model.init_with_output, jax.random.key(0), inputs)


# The larger and deeper variants of a family take long to trace.
LONG = re.compile(
    r"(densenet(161|169|201)|efficientnet_b[2-7]|convnext_(small|base)|vgg1[13].*|vgg.*_bn|.*net(101|152)_?.*"
    r"|resnext101.*|fixup.*(101|152|1202)|nf_.*(101|152|200|288)|shufflenet_v\d_.*x(0_5|1_5|2_0)|wide_resnet(22|40).*)"
)


def each(names):
    """Parameters of a test, those that take long marked as slow."""
    return [pytest.param(name, marks=[pytest.mark.slow] if LONG.fullmatch(name) else []) for name in names]


def test_the_counts_that_are_told_are_those_of_the_papers():
    assert models.PARAMETERS == {name: golden.parameters for name, golden in GOLDEN.items()}


@pytest.mark.parametrize("name", each(models.names()))
def test_parameters_and_logits(name):
    logits, variables = made(name)
    assert F.parameter_count(variables["params"]) == GOLDEN[name].parameters
    assert jax.tree.leaves(logits)[0].shape == (2, *MAPS.get(name, ()), models.options(name)["num_classes"])
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(variables)} == {"float32"}


@pytest.mark.parametrize("name", each(name for name in models.names() if GOLDEN[name].gmacs))
def test_multiply_adds(name):
    variant = models.VARIANTS[name]
    total = sum(row.flops for row in rows(models.create(name), variant.image, dtype=variant.dtype))
    # Published numbers are rounded to a million.
    assert total / 2e9 == pytest.approx(GOLDEN[name].gmacs, rel=0.01, abs=0.0005)
