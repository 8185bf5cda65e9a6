import jax
import numpy as np
import pytest

from cnnjax import models, nn

from ..drawn import images, variables
from .traced import inputs, output_shapes, parameters


@pytest.mark.parametrize(
    "name, pools, last",
    [
        ("m3", [2000, 500], ("stage1", (2000, 256))),
        ("m5", [2000, 500, 125, 32], ("stage3", (125, 512))),
        ("m11", [2000, 500, 125, 32], ("stage4", (32, 512))),
        ("m34_res", [2000, 500, 125, 32], ("stage4", (32, 384))),
    ],
)
def test_sizes_are_those_of_table_1(name, pools, last):
    found = output_shapes(models.create(name), inputs(name))
    assert found["stem"][0] == 8000
    assert [shape[0] for part, shape in found.items() if part.startswith("pool")] == pools
    assert found[last[0]] == last[1]


@pytest.mark.parametrize("name, layers", [("m3", 3), ("m5", 5), ("m11", 11), ("m18", 18), ("m34_res", 34)])
def test_a_network_has_the_layers_that_it_is_named_for(name, layers):
    found = parameters(name)
    kernels = {path: shape for path, shape in found.items() if path.endswith("kernel")}
    assert sum(shape[0] if "/block/" in path else 1 for path, shape in kernels.items()) == layers


def test_without_skips_the_parameters_are_the_same():
    assert parameters("m34_res") == parameters("m34_res", skip=False)
    assert "skip" not in models.options("m18")


def test_scanned_and_written_out_agree():
    x = images(2, 40, 1)
    model = models.create("m34_res", stem_width=4, widths=(4, 6), depths=(2, 1))
    made = variables(model, x)
    scanned, unrolled = jax.jit(
        lambda made: (model.apply(made, x), model.clone(scan=False).apply(nn.unstack(made), x))
    )(made)
    np.testing.assert_allclose(unrolled, scanned, rtol=1e-4, atol=1e-5)


def test_stages_without_depths():
    with pytest.raises(ValueError, match=r"an entry a stage; got depths=\(1,\) and widths=\(128, 256, 512\)"):
        models.create("m5", depths=(1,))
