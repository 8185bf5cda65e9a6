import pytest

from cnnjax import models
from cnnjax.cli import main


def test_resnet20(capsys):
    assert main(["summary", "resnet", "--option", "depth=20"]) == 0
    output = capsys.readouterr().out
    assert "resnet, depth=20, images 32x32x3" in output
    row = next(line for line in output.splitlines() if "stage2[0..1]/layer2" in line)
    assert [cell.strip() for cell in row.strip("│ ").split("│")] == [
        "stage2[0..1]/layer2", "2", "16x16x32", "3x3x32x32", "29 … 37", "18,560", "9,437,184",
    ]  # fmt: skip
    assert "269,722 parameters, 81,102,080 FLOPs, 2.2 MiB of activations" in output
    assert "a multiply-add as 2" in " ".join(output.split())


def test_options_and_image(capsys):
    args = [
        "summary",
        "plain",
        "--image",
        "8",
        "1",
        "--option",
        "depth=4",
        "width=2",
        "--option",
        "norm=none",
    ]
    assert main(args) == 0
    output = capsys.readouterr().out
    assert "plain, depth=4, width=2, norm=None, images 8x1" in output
    # 1-D: 3x1x2 + 2, twice 3x2x2 + 2, and 16x10 + 10.
    assert f"{8 + 2 * 14 + 170} parameters" in output


@pytest.mark.parametrize("args", [["summary"], ["summary", "resnet", "--list"]])
def test_models_are_listed(args, capsys):
    assert main(args) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == models.names()
    assert "plain: num_classes=10, activation=relu" in "\n".join(lines)


@pytest.mark.parametrize(
    ("args", "match"),
    [
        (["rsnet"], "unknown model 'rsnet'; did you mean 'resnet'?"),
        (["resnet", "--option", "dpth=20"], "unknown option of resnet 'dpth'; did you mean 'depth'?"),
        (["resnet", "--option", "depth"], "--option takes NAME=VALUE, as in depth=50; got 'depth'"),
        (["resnet", "--option", "depth=21"], "a CIFAR ResNet has depth 6n + 2"),
        (["lenet5", "--image", "4", "4", "1"], "kernel larger than the padded input"),
        (
            ["plain", "--image", "0", "0", "0"],
            "--image takes the size of each axis and the channels, each 1 or more; got 0x0x0",
        ),
    ],
)
def test_errors(args, match, capsys):
    assert main(["summary", *args]) == 2
    assert match in capsys.readouterr().err
