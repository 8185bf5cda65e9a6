from functools import partial

import jax
import numpy as np
import pytest

from cnnjax import functional as F
from cnnjax import nn

from ..drawn import images, shapes, variables

GATES = {"sigmoid": lambda z: 1 / (1 + np.exp(-z)), "hard_sigmoid": lambda z: np.clip(z / 6 + 0.5, 0, 1)}


@pytest.mark.parametrize("gate", ["sigmoid", F.HARD_SIGMOID], ids=GATES)
@pytest.mark.parametrize("spatial", [(5,), (3, 4), (2, 3, 2)])
def test_channels_are_multiplied_by_gates_of_their_means(gate, spatial):
    x = images(2, *spatial, 6)
    module = nn.SqueezeExcite(4, act=partial(nn.Activation, "tanh"), gate=gate)
    made = variables(module, x, gain=3)
    p = jax.tree.map(partial(np.asarray, dtype=np.float64), made["params"])
    means = np.asarray(x, np.float64).reshape(2, -1, 6).mean(1)
    h = np.tanh(means @ p["reduce"]["linear"]["kernel"].reshape(6, 4) + p["reduce"]["linear"]["bias"])
    z = h @ p["expand"]["linear"]["kernel"].reshape(4, 6) + p["expand"]["linear"]["bias"]
    gates = GATES[gate if isinstance(gate, str) else gate.name](z).reshape(2, *(1 for _ in spatial), 6)
    np.testing.assert_allclose(jax.jit(module.apply)(made, x), x * gates, rtol=1e-4, atol=1e-5)


def test_it_has_two_1x1_kernels_with_biases():
    made = shapes(nn.SqueezeExcite(4), images(1, 3, 3, 6))["params"]
    found = {name: {k: v.shape for k, v in layer["linear"].items()} for name, layer in made.items()}
    assert found == {
        "reduce": {"kernel": (1, 1, 6, 4), "bias": (4,)},
        "expand": {"kernel": (1, 1, 4, 6), "bias": (6,)},
    }
