import jax
import numpy as np
import pytest
from PIL import Image

from cnnjax import explain, interop, models
from cnnjax.cli import main
from cnnjax.commands.explain import load_weights

from ..drawn import images, variables

OPTIONS = ["depth=4", "width=3", "num_classes=7"]
MOMENTS = ["--mean", "0.5", "0.4", "0.3", "--std", "0.25", "0.2", "0.3"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Weights and a picture."""
    folder = tmp_path_factory.mktemp("explain")
    model = models.create("plain", depth=4, width=3, num_classes=7)
    made = variables(model, images(1, 8, 8, 3))
    interop.save_variables(folder / "weights.safetensors", made)
    levels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(levels).save(folder / "cat.png")
    return model, made, levels, folder


def arguments(folder, *more):
    given = ["explain", "--model", "plain", "--weights", str(folder / "weights.safetensors")]
    return [
        *given,
        "--image",
        str(folder / "cat.png"),
        "--size",
        "8",
        "8",
        "--option",
        *OPTIONS,
        *MOMENTS,
        *more,
    ]


def test_the_classes_and_the_overlay(files, capsys, monkeypatch):
    model, made, levels, folder = files
    monkeypatch.chdir(folder)
    assert main(arguments(folder)) == 0
    lines = capsys.readouterr().out.splitlines()
    x = (levels[None] / 255 - np.array([0.5, 0.4, 0.3])) / np.array([0.25, 0.2, 0.3])
    x = x.astype(np.float32)
    probabilities = np.asarray(jax.nn.softmax(model.apply(made, x)[0]))
    best = np.argsort(-probabilities)[:5]
    assert lines[:5] == [f"class {i}: {probabilities[i]:.1%}" for i in best]
    assert lines[5:] == [f"gradcam of class {best[0]} at stack", "overlay: cat-gradcam.png"]
    heat = explain.grad_cam(model, made, x, layer="stack[1]/layer")[0]
    expected = explain.overlay(explain.enlarge(levels), explain.enlarge(np.asarray(heat)))
    written = np.asarray(Image.open(folder / "cat-gradcam.png"))
    assert written.shape == (448, 448, 3)
    # An eighth bit may round the other way.
    assert np.abs(written.astype(int) - expected).max() <= 1 and np.ptp(written, axis=-1).max() > 50


def test_numbers_beside_the_picture(files, capsys):
    folder = files[-1]
    out = folder / "new" / "overlay.png"
    args = ["--method", "integrated_gradients", "--target", "3", "--faithfulness", "--out", str(out)]
    assert main(arguments(folder, *args)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[5] == "integrated_gradients of class 3"
    assert lines[6].startswith("completeness error ") and " of a score difference of " in lines[6]
    assert abs(float(lines[6].split()[2])) < 0.1 * abs(float(lines[6].split()[-1]))
    for line, name in zip(lines[7:9], ("deletion", "insertion"), strict=True):
        assert line.startswith(f"area under the {name} curve ") and 0 < float(line.split()[-1]) < 1
    assert lines[9] == f"overlay: {out}" and out.exists()


def test_weights_of_torchvision_are_read(tmp_path):
    model = models.create("resnet18", depths=(1, 1, 1, 1), width=4, num_classes=3)
    made = variables(model, images(1, 32, 32, 3))
    interop.torchvision.save(tmp_path / "theirs.pth", made, model)
    interop.save_variables(tmp_path / "ours.safetensors", made)
    for name in ("theirs.pth", "ours.safetensors"):
        jax.tree.map(np.testing.assert_array_equal, load_weights(tmp_path / name, model, (32, 32, 3)), made)
    (tmp_path / "cut.pth").write_bytes((tmp_path / "theirs.pth").read_bytes()[:500])
    with pytest.raises(ValueError, match="cut.pth"):
        load_weights(tmp_path / "cut.pth", model, (32, 32, 3))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--model", "plian"], "unknown model 'plian'; did you mean 'plain'?"),
        (["--option", "dpth=3"], "unknown option of plain 'dpth'; did you mean 'depth'?"),
        (["--option", "depth"], "--option takes NAME=VALUE, as in depth=50; got 'depth'"),
        (["--weights", "nothing"], "there is no file nothing"),
        (["--weights", "{folder}/cat.png"], "cat.png is no whole safetensors file"),
        (
            ["--image", "{folder}/weights.safetensors"],
            "weights.safetensors is no picture that Pillow can read",
        ),
        (["--image", "dog.jpg"], "there is no file dog.jpg: name a picture, as in cat.jpg"),
        (["--method", "gradcan"], "unknown method 'gradcan'; did you mean 'gradcam'?"),
        (["--layer", "stack[2]/layer"], "unknown layer 'stack[2]/layer'; did you mean 'stack[1]/layer'?"),
        (["--layer", "head"], "Grad-CAM takes a layer with spatial maps; 'head' puts out shape (7,)"),
        (["--target", "7"], "target must be a class from 0 to 6, as the model has 7; got 7"),
        (["--size", "0", "8"], "--size takes a height and a width of 1 or more; got 0 8"),
        (["--size", "16", "16"], "params/head/linear/kernel (192, 7) for (768, 7)"),
        (["--mean", "0.5"], "--mean takes a number for each of 3 channels; got 1"),
        (["--std", "0", "1", "1"], "--std takes positive numbers; got 0.0"),
        (["--out", "cat.txt"], "Pillow writes no files that end in '.txt'"),
    ],
)
def test_errors_in_one_line(more, words, files, capsys, monkeypatch, tmp_path):
    folder = files[-1]
    monkeypatch.chdir(tmp_path)
    args = arguments(folder)
    name, *values = (word.format(folder=folder) for word in more)
    start = args.index(name) if name in args and name != "--option" else len(args)
    end = next((i for i in range(start + 1, len(args)) if args[i].startswith("--")), len(args))
    args[start:end] = [name, *values]
    assert main(args) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("cnnjax: ") and captured.err.count("\n") == 1
    assert words in captured.err and captured.out == ""
    assert not list(tmp_path.iterdir())


def test_models_of_other_data_than_imagenet_need_its_moments(files, capsys):
    args = arguments(files[-1])
    assert main(args[: args.index("--mean")]) == 2
    assert (
        "plain is no model of ImageNet: give --mean and --std of its training data" in capsys.readouterr().err
    )
