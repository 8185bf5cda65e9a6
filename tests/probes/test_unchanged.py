"""Probes change nothing of a pass: in convolutional nets, in bfloat16, however a stack runs, under vmap.

Bit by bit where the compiler keeps to the arithmetic that it is given. Its optimizer fuses what the probes read in other
ways, and fused multiplications and additions round once instead of twice: then the last bits may differ.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import functional as F
from cnnjax import models, nn
from cnnjax.probes import Recorder

from ..drawn import images, variables

pytestmark = pytest.mark.slow

IMAGES, LABELS = images(6, 8, 8, 3), jnp.arange(6) % 5
NETS = {
    "plain": models.create("plain", depth=7, width=4, num_classes=5, norm="batch"),
    "cifar_resnet": models.create("cifar_resnet", depth=8, width=4, num_classes=5),
}
WAYS = {
    "scanned": {},
    "unrolled": {"scan": False},
    "checkpointed": {"remat": True},
    "unrolled and checkpointed": {"scan": False, "remat": True},
    "bfloat16": {"dtype": jnp.bfloat16},
    "bfloat16, unrolled": {"dtype": jnp.bfloat16, "scan": False},
    "bfloat16, checkpointed": {"dtype": jnp.bfloat16, "remat": True},
}


CASES = [("plain", way) for way in WAYS]
CASES += [("cifar_resnet", way) for way in ("scanned", "unrolled", "checkpointed", "bfloat16")]
VMAPPED = [
    ("plain", "scanned"),
    ("plain", "checkpointed"),
    ("plain", "bfloat16"),
    ("cifar_resnet", "scanned"),
]
EXACT = {"xla_backend_optimization_level": 0}
OPTIMIZED = {"xla_backend_optimization_level": 2}


def passes(model, made, options, *, probed, vmapped):
    """Loss, gradients with respect to parameters and images, logits and new statistics; and what the probes saw."""
    rest = {name: tree for name, tree in made.items() if name != "params"}
    slots = Recorder.of(model, made, IMAGES).new_slots() if probed else {}
    mutable = ["batch_stats", *([nn.RECORD] if probed else [])]

    def objective(params, x, slots, rest):
        collections = {"params": params, **rest, **({nn.SLOTS: slots} if probed else {})}
        logits, state = model.apply(collections, x, train=True, mutable=mutable)
        loss = jnp.mean(F.cross_entropy(jnp.asarray(logits), LABELS))
        return loss, (logits, state.get("batch_stats"), state.get(nn.RECORD))

    def differentiate(params, rest):
        outcome = jax.value_and_grad(objective, (0, 1, 2), has_aux=True)(params, IMAGES, slots, rest)
        (loss, (logits, statistics, record)), (gradients, to_images, to_slots) = outcome
        return (loss, logits, statistics, gradients, to_images), (record, to_slots)

    if not vmapped:
        return jax.device_get(jax.jit(differentiate, compiler_options=options)(made["params"], rest))
    twice = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), (made["params"], rest))
    return jax.device_get(jax.jit(jax.vmap(differentiate), compiler_options=options)(*twice))


def with_and_without(model, options, *, vmapped=False):
    """What a pass gives with probes, and without; the probes have seen something, and there is something to change."""
    made = variables(model, IMAGES)
    (bare, _), (probed, seen) = (
        passes(model, made, options, probed=probed, vmapped=vmapped) for probed in (False, True)
    )
    assert all(np.any(leaf) for leaf in jax.tree.leaves((seen, bare[0], bare[-1])))
    return probed, bare


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("name", "way"), CASES)
def test_a_pass_with_probes_is_the_pass_without(name, way):
    jax.tree.map(np.testing.assert_array_equal, *with_and_without(NETS[name].clone(**WAYS[way]), EXACT))


@pytest.mark.parametrize(("name", "way"), VMAPPED)
def test_under_vmap_too(name, way):
    model = NETS[name].clone(**WAYS[way])
    jax.tree.map(np.testing.assert_array_equal, *with_and_without(model, EXACT, vmapped=True))


@pytest.mark.parametrize(("name", "vmapped"), [("plain", False), ("plain", True), ("cifar_resnet", False)])
def test_optimized_the_passes_differ_by_rounding_at_most(name, vmapped):
    jax.tree.map(close, *with_and_without(NETS[name], OPTIMIZED, vmapped=vmapped))
