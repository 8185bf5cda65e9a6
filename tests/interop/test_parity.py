"""Our models against torchvision's, with the same random weights, where torch and torchvision can be imported.

    pip install -e '.[test,peers]'
    pytest tests/interop/test_parity.py

Measured with torch 2.13.0+cpu and torchvision 0.28.0 (JAX 0.10.2, Python 3.11.7, 2026-11-22): the largest difference of a
logit over the largest logit was 1.3e-5 (inception_v3; googlenet 1.2e-5, all others below 6e-6), of a running statistic's
step 1.8e-5, and of a parameter's two steps of SGD 9.3e-5. Computed in float64, all of these models agree to 5.3e-8, the
rounding of our logits, which are float32 always.
"""

import functools
import importlib
import json
from hashlib import sha256
from pathlib import Path

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
    "inception_v3": (107, 107),
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


def drawn(net, x):
    """The same network with random weights, and the running statistics of images `x`.

    With others signals would grow, or fade until the images do not matter. Scales are small and most biases positive: deep
    networks of larger ones are chaotic, and torch's own float32 logits then differ from its float64 logits by up to 0.4.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            leaf = name.rsplit(".", 1)[-1]
            if leaf in ("running_var", "layer_scale") or (leaf == "weight" and value.ndim == 1):
                value.uniform_(0.2, 0.6, generator=generator)
            elif leaf == "weight":
                value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
            elif leaf != "num_batches_tracked":
                value.uniform_(-0.1, 0.5, generator=generator)
        norms = [m for m in net.eval().modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.train().momentum = 1.0
        net(x)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.eval().momentum = momentum
    return net


def theirs(name, **options):
    if name in ("googlenet", "inception_v3"):
        options = {"init_weights": False, **options}
    if name == "googlenet":
        options = {"aux_logits": False, **options}
    get, x = torchvision.models.get_model, batch(*SIZES[name], number=4)
    if name != "alexnet" and not name.startswith("vgg"):
        return drawn(get(name, weights=None, num_classes=CLASSES, **options), x)
    # Narrower dense layers: they are nearly all of the 61 and 133 million parameters.
    with torch.device("meta"):
        net = get(name, weights=None, num_classes=CLASSES)
    for i, layer in enumerate(net.classifier):
        if isinstance(layer, torch.nn.Linear):
            outputs = CLASSES if i == 6 else HIDDEN
            inputs = HIDDEN if layer.in_features == 4096 else layer.in_features
            net.classifier[i] = torch.nn.Linear(inputs, outputs, device="meta")
    return drawn(net.to_empty(device="cpu"), x)


def ours(name, **options):
    hidden = {"hidden": HIDDEN} if name == "alexnet" or name.startswith("vgg") else {}
    return models.create(name, num_classes=CLASSES, **hidden, **options)


def batch(*sizes, number=2):
    """Noise, and a color of its own for each image, which outlasts the averaging."""
    draw = functools.partial(torch.randn, generator=torch.Generator().manual_seed(1))
    return (draw(4, 3, *sizes) + draw(4, 3, *[1] * len(sizes)))[:number]


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
    net, model, x = theirs(name), ours(name), batch(*SIZES[name])
    with torch.no_grad():
        expected = net(x)
    assert float(expected.std(0).max()) > 0.01 * float(expected.abs().max())
    variables = loaded(net, model, tmp_path)
    found = difference(jax.jit(model.apply)(variables, channels_last(x)), expected)
    print(f"{name}: {found:.1e}")
    assert found < 1e-4


def stored():
    """The content of state_dicts.json."""
    states = {name: state_lines(name) for name in shared_names()}
    return {
        "source": f"torchvision {torchvision.__version__.split('+')[0]}: state_dict() of torchvision.models.get_model(name, "
        "weights=None), names and shapes",
        "tensors": {name: states[name] for name in SIZES},
        "digests": {name: sha256("\n".join(lines).encode()).hexdigest() for name, lines in states.items()},
    }


def shared_names():
    return [name for name in models.names() if name in torchvision.models.list_models()]


def without_weights(name):
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device("meta"):
        return torchvision.models.get_model(name, weights=None, **options)


def state_lines(name):
    state = without_weights(name).state_dict()
    return sorted(f"{key} {'x'.join(map(str, value.shape))}".strip() for key, value in state.items())


def test_the_stored_names_are_torchvisions():
    found = json.loads(Path(__file__).with_name("state_dicts.json").read_text())
    expected = stored()
    assert found["tensors"] == expected["tensors"]
    assert found["digests"] == expected["digests"]


def test_norms_have_torchvisions_epsilon_and_momentum():
    found = 0
    for name in shared_names():
        options = models.options(name)
        for module in without_weights(name).modules():
            if hasattr(module, "eps"):
                assert module.eps == options["norm_epsilon"], name
                found += 1
            if hasattr(module, "momentum"):
                assert 1 - module.momentum == pytest.approx(options["norm_momentum"]), name
    assert found > 1000


UNBIASED = functools.partial(nn.BatchNorm, unbiased=True)


def largest(found, expected):
    """Over all tensors of a state, the largest difference of an entry over the largest entry."""
    differences = jax.tree.map(lambda a, b: float(np.abs(a - b).max() / np.abs(b).max()), found, expected)
    return max(jax.tree.leaves(differences))


def test_batch_statistics(tmp_path):
    net, model, x = theirs("resnet18"), ours("resnet18", norm=UNBIASED), batch(64, 64, number=4).abs()
    variables = loaded(net, model, tmp_path)
    expected = net.train()(x)
    train = jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))
    found, state = train(variables, channels_last(x))
    after = loaded(net, model, tmp_path)["batch_stats"]
    moved = jax.tree.map(lambda new, old: new - old, after, variables["batch_stats"])
    mine = jax.tree.map(lambda new, old: new - old, state["batch_stats"], variables["batch_stats"])
    print(f"train: {difference(found, expected):.1e}, running: {largest(mine, moved):.1e}")
    assert difference(found, expected) < 1e-4
    assert largest(mine, moved) < 1e-4


def test_steps_of_sgd(tmp_path):
    net, model, x = theirs("resnet18"), ours("resnet18", norm=UNBIASED), batch(64, 64, number=4)
    variables = loaded(net, model, tmp_path)
    rate, momentum, labels = 0.01, 0.9, [3, 1, 4, 1]
    optimizer = torch.optim.SGD(net.train().parameters(), lr=rate, momentum=momentum)
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), torch.tensor(labels)).backward()
        optimizer.step()
    sgd = optax.sgd(rate, momentum=momentum)

    def loss(params, stats):
        inputs = {"params": params, "batch_stats": stats}
        logits, state = model.apply(inputs, channels_last(x), train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(labels)).mean(), state

    @jax.jit
    def step(params, stats, momenta):
        gradients, state = jax.grad(loss, has_aux=True)(params, stats)
        updates, momenta = sgd.update(gradients, momenta)
        return optax.apply_updates(params, updates), state["batch_stats"], momenta

    params, stats, momenta = variables["params"], variables["batch_stats"], sgd.init(variables["params"])
    for _ in range(2):
        params, stats, momenta = step(params, stats, momenta)
    after = loaded(net, model, tmp_path)["params"]
    moved = jax.tree.map(lambda new, old: new - old, after, variables["params"])
    mine = jax.tree.map(lambda new, old: new - old, params, variables["params"])
    print(f"steps: {largest(mine, moved):.1e}")
    assert largest(mine, moved) < 1e-3


def test_auxiliary_logits(tmp_path):
    net, model, x = theirs("googlenet", aux_logits=True), ours("googlenet", aux=True), batch(64, 64)
    variables = loaded(net, model, tmp_path)
    # Its parts stay in the mode for evaluation: neither dropout nor statistics of the batch.
    net.training = True
    with torch.no_grad():
        expected, second, first = net(x)
    apply = jax.jit(functools.partial(model.apply, method="with_auxiliary"))
    found, auxiliary = apply(variables, channels_last(x))
    for mine, other in zip((found, *auxiliary), (expected, first, second), strict=True):
        assert difference(mine, other) < 1e-4


def test_what_we_write_is_read_by_torch(tmp_path):
    net, model = theirs("mobilenet_v3_small"), ours("mobilenet_v3_small")
    variables = loaded(net, model, tmp_path)
    interop.torchvision.save(tmp_path / "ours.pth", variables, model)
    state = torch.load(tmp_path / "ours.pth", weights_only=True)
    assert state.keys() == net.state_dict().keys()
    for name, value in net.state_dict().items():
        assert state[name].dtype == value.dtype
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(state[name], value)


def test_the_format_before_torch_1_6(tmp_path):
    net, model = theirs("mobilenet_v3_small"), ours("mobilenet_v3_small")
    expected = loaded(net, model, tmp_path)
    torch.save(net.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    found = interop.torchvision.load(tmp_path / "old.pth", model)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
