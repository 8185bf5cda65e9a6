import jax
import numpy as np

from cnnjax import functional as F
from cnnjax import models

from ..drawn import images, variables
from .traced import inputs, output_shapes, parameters_of


def test_the_stages_have_the_sizes_of_the_resnet():
    found, other = (
        output_shapes(models.create(name), inputs(name)) for name in ("preact_resnet50", "resnet50")
    )
    assert {part: found[part] for part in other} == other
    assert found["final_act"] == (7, 7, 2048)


def test_the_norms_stand_in_front_of_the_convolutions():
    made = parameters_of(models.create("preact_resnet50"), inputs("preact_resnet50"))
    kernels = {path.removesuffix("/linear/kernel"): s for path, s in made.items() if path.endswith("kernel")}
    norms = {path.removesuffix("/norm/scale"): s for path, s in made.items() if path.endswith("norm/scale")}
    # None in front of what comes first, since the stem has one behind it, and none in shortcuts.
    bare = {"head", "stage1_down/layer1", *(f"stage{i}_down/shortcut" for i in (1, 2, 3, 4))}
    assert set(kernels) - set(norms) == bare
    assert all(norms[layer][-1] == kernels[layer][-2] for layer in norms if layer.startswith("stage"))
    assert made["final_norm/scale"] == (2048,)


def test_the_network_is_what_its_parts_compose_to():
    """He et al. 2016b, equation 3 and the appendix: activated once behind the stem, and once behind the last addition."""
    model = models.create("preact_resnet18", depths=(1, 1), width=4, num_classes=5)
    x = images(2, 32, 32, 3)
    made = variables(model, x)

    def parts(tree, *path):
        for name in path:
            tree = tree[name]
        return tree

    def activate(x, *path):
        p, s = (parts(made[kind], *path) for kind in ("params", "batch_stats"))
        arrays = (s["mean"], s["variance"], p["scale"], p["bias"])
        return F.relu(F.batch_norm(x, *arrays, train=False)[0])

    def conv(x, *path, stride=1):
        kernel = parts(made["params"], *path)["linear"]["kernel"]
        return F.conv(x, kernel, stride=stride, padding=(kernel.shape[0] - 1) // 2)

    @jax.jit
    def compute():
        h = activate(conv(x, "stem", stride=2), "stem", "norm")
        h = F.max_pool(h, 3, stride=2, padding=1)
        first = activate(conv(h, "stage1_first", "layer1"), "stage1_first", "layer2", "norm")
        h = h + conv(first, "stage1_first", "layer2")
        a = activate(h, "stage2_down", "layer1", "norm")
        second = activate(conv(a, "stage2_down", "layer1", stride=2), "stage2_down", "layer2", "norm")
        h = conv(a, "stage2_down", "shortcut", stride=2) + conv(second, "stage2_down", "layer2")
        features = activate(h, "final_norm").mean((1, 2))
        head = made["params"]["head"]["linear"]
        return features @ head["kernel"] + head["bias"].reshape(1, -1), model.apply(made, x)

    expected, actual = compute()
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
