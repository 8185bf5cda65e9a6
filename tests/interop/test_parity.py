"""Our models against torchvision's, with the same random weights, where torch and torchvision can be imported.

    pip install -e '.[test,peers]'
    pytest tests/interop/test_parity.py -m ""

Largest difference of a logit over the largest logit, measured with torch 2.13.0+cpu and torchvision 0.28.0 (JAX 0.10.2, Python
3.11.7, 2026-11-21): DIFFERENCES.
"""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax import interop, models, nn

torch = pytest.importorskip("torch", reason="pip install -e '.[test,peers]'")



def imported():
    """torchvision, and what must live as long as it does.

    Beside a torch of another build its compiled operators do not load, and it cannot be imported unless two of them are at
    least declared.
    """
    try:
        return pytest.importorskip("torchvision", reason="pip install -e '.[test,peers]'"), None
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return importlib.import_module("torchvision"), library


torchvision, _library = imported()

SIZES = {
    "alexnet": (64, 64),
    "vgg11": (32, 32),
    "vgg11_bn": (32, 32),
    # Windows that reach over the end.
    "squeezenet1_0": (65, 65),
    "squeezenet1_1": (65, 65),
    "googlenet": (64, 64),
    "inception_v3": (91, 91),
    "resnet18": (64, 64),
    "resnet50": (64, 64),
    "resnext50_32x4d": (64, 64),
    "densenet121": (64, 64),
    "mobilenet_v2": (64, 64),
    "mobilenet_v3_large": (64, 64),
    "mobilenet_v3_small": (64, 64),
    "shufflenet_v2_x0_5": (64, 64),
    "efficientnet_b0": (64, 64),
    "efficientnet_v2_s": (64, 64),
    "convnext_tiny": (64, 64),
    "r3d_18": (8, 32, 32),
}
CLASSES, HIDDEN = 10, 64


def drawn(net):
    """The same network with random weights and running statistics; no two layers alike."""
    generator = torch.Generator().manual_seed(0)
    # Without norms signals must not fade; behind running variances near 1 they must not grow.
    gain = 1 if any("running_var" in name for name in net.state_dict()) else 2
    with torch.no_grad():
        for name, value in net.state_dict().items():
            leaf = name.rsplit(".", 1)[-1]
            if leaf in ("running_var", "layer_scale") or (leaf == "weight" and value.ndim == 1):
                value.uniform_(0.5, 1.5, generator=generator)
            elif leaf == "weight":
                value.normal_(0, (gain / value[0].numel()) ** 0.5, generator=generator)
            elif leaf != "num_batches_tracked":
                value.normal_(0, 0.1, generator=generator)
    return net


def theirs(name, **options):
    if name in ("googlenet", "inception_v3"):
        options = {"init_weights": False, **options}
    if name == "googlenet":
        options = {"aux_logits": False, **options}
    get = torchvision.models.get_model
    if name != "alexnet" and not name.startswith("vgg"):
        return drawn(get(name, weights=None, num_classes=CLASSES, **options))
    # Narrower dense layers: they are nearly all of the 61 and 133 million parameters.
    with torch.device("meta"):
        net = get(name, weights=None, num_classes=CLASSES)
    for i, layer in enumerate(net.classifier):
        if isinstance(layer, torch.nn.Linear):
            outputs = CLASSES if i == 6 else HIDDEN
            inputs = HIDDEN if layer.in_features == 4096 else layer.in_features
            net.classifier[i] = torch.nn.Linear(inputs, outputs, device="meta")
    return drawn(net.to_empty(device="cpu"))


def ours(name, **options):
    hidden = {"hidden": HIDDEN} if name == "alexnet" or name.startswith("vgg") else {}
    return models.create(name, num_classes=CLASSES, **hidden, **options)


def batch(*sizes, number=2):
    """Noise, and a color of its own for each image, which outlasts the averaging."""
    draw = functools.partial(torch.randn, generator=torch.Generator().manual_seed(1))
    return draw(number, 3, *sizes) + draw(number, 3, *[1] * len(sizes))


def channels_last(x):
    return jnp.asarray(x.movedim(1, -1).numpy())


def loaded(net, model, folder):
    torch.save(net.state_dict(), folder / "weights.pth")
    return interop.torchvision.load(folder / "weights.pth", model)


def difference(found, expected):
    expected = np.asarray(expected.detach())
    assert found.shape == expected.shape
    return float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", SIZES)
def test_logits(name, tmp_path):
    net, model, x = theirs(name).eval(), ours(name), batch(*SIZES[name])
    with torch.no_grad():
        expected = net(x)
    assert float(expected.std(0).max()) > 0.01 * float(expected.abs().max())
    variables = loaded(net, model, tmp_path)
    found = difference(jax.jit(model.apply)(variables, channels_last(x)), expected)
    print(f"{name}: {found:.1e}")
    assert found < 1e-4
