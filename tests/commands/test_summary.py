import json

import pytest

from cnnjax import models
from cnnjax.cli import main


def row(output, layer):
    found = next(line for line in output.splitlines() if f" {layer} " in line)
    return [cell.strip() for cell in found.strip("│ ").split("│")]


def test_resnet20(capsys):
    assert main(["summary", "cifar_resnet", "--option", "depth=20", "--batch", "4"]) == 0
    output = capsys.readouterr().out
    assert "resnet, depth=20, images 32x32x3" in output
    # 2 blocks of 3x3x32x32 at 16x16; its outputs, its norm's and its activation's, of 4 images.
    assert row(output, "stage2[0..1]/layer2") == [
        "stage2[0..1]/layer2", "2", "16x16x32", "3x3x32x32", "29 … 37", "18,560", "4,718,592", "9,437,184", "768.0 KiB",
    ]  # fmt: skip
    text = " ".join(output.split())
    # Back: twice as many, but for the stem's 442,368.
    assert (
        "269,722 parameters, 40,551,040 multiply-adds forward and 80,659,712 back, 8.6 MiB of activations"
        in text
    )
    assert "Twin 'no skip': 269,722 parameters stay, 0 go, 0 come" in text
    assert "at batch size 4" in text


def test_options_and_input(capsys):
    options = ["--option", "depth=4", "width=2", "--option", "norm=none"]
    assert main(["summary", "plain", "--input", "8,1", *options]) == 0
    output = capsys.readouterr().out
    assert "plain, depth=4, width=2, norm=None, images 8x1" in output
    # 1-D: 3x1x2 + 2, twice 3x2x2 + 2, and 16x10 + 10.
    assert f"{8 + 2 * 14 + 170} parameters" in output


def test_the_papers_input_is_the_default(capsys):
    assert main(["summary", "lenet5"]) == 0
    assert "lenet5, images 32x32x1" in capsys.readouterr().out


def test_the_predicted_gradient(capsys):
    options = ["depth=12", "initializer=xavier_normal", "padding=CIRCULAR", "width=64"]
    assert main(["summary", "plain", "--input", "8,8,64", "--option", *options]) == 0
    # Xavier halves it in each of the 10 layers between the first and the last hidden one.
    assert "first layer's mean squared gradient is 10^-3.01 of" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_parts_that_run_in_training_only(capsys):
    options = ["aux=true", "num_classes=7", "depths=(1,4,1)", "width=8", "stem=cifar"]
    assert main(["summary", "googlenet", "--input", "32,32,3", "--json", "--option", *options]) == 0
    totals = json.loads(capsys.readouterr().out)["totals"]
    model = models.create("googlenet", aux=True, num_classes=7, depths=(1, 4, 1), width=8, stem="cifar")
    whole = models.difference(model, model, (32, 32, 3)).shared
    assert totals["parameters_of_training_only"] > 0
    assert totals["parameters"] + totals["parameters_of_training_only"] == whole


def test_json_and_folded_layers(capsys):
    assert main(["summary", "cifar_resnet20", "--json", "--depth", "1"]) == 0
    content = json.loads(capsys.readouterr().out)
    names = ["stem", "stage1[0..2]", "stage2_down", "stage2[0..1]", "stage3_down", "stage3[0..1]", "head"]
    assert [layer["name"] for layer in content["layers"]] == names
    assert (
        sum(layer["parameters"] for layer in content["layers"]) == content["totals"]["parameters"] == 269_722
    )
    assert content["twins"]["no norm"]["removed"] == 2 * (16 * 7 + 32 * 6 + 64 * 6)


def test_models_are_listed(capsys):
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    named = [cells[2].strip() for cells in (line.split("│") for line in lines) if len(cells) > 3]
    assert sorted(name for name in named if name) == models.names()
    assert any("11,689,512" in line and "resnet18" in line for line in lines)


def test_the_options_of_a_model_are_listed(capsys):
    assert main(["models", "cifar_resnet56"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "depth=56" in lines and "skip=True" in lines


@pytest.mark.parametrize(
    ("args", "match"),
    [
        (["cifar_rsnet"], "unknown model 'cifar_rsnet'; did you mean 'cifar_resnet'?"),
        (
            ["cifar_resnet", "--option", "dpth=20"],
            "unknown option of cifar_resnet 'dpth'; did you mean 'depth'?",
        ),
        (["cifar_resnet", "--option", "depth"], "--option takes NAME=VALUE, as in depth=50; got 'depth'"),
        (["cifar_resnet", "--option", "depth=21"], "a CIFAR ResNet has depth 6n + 2"),
        (["lenet5", "--input", "4,4,1"], "in layer c1/linear: kernel larger than the padded input"),
        (
            ["plain", "--input", "0,0,0"],
            "--input takes the size of each axis and the channels, as in 32,32,3; got '0,0,0'",
        ),
        (["plain", "--batch", "0"], "--batch must be 1 or more; got 0"),
    ],
)
def test_errors(args, match, capsys):
    assert main(["summary", *args]) == 2
    assert match in capsys.readouterr().err
