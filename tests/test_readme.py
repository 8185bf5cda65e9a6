"""The README's Python runs as it stands there."""

import re
from pathlib import Path

import jax
import pytest

from cnnjax import models
from cnnjax.commands.options import RunOptions
from cnnjax.commands.run import load_study
from cnnjax.study import plan

TEXT = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize(
    ("block", "printed"),
    zip(
        BLOCKS[:6],
        [
            "",
            "stack[47]/layer",
            "ordered",
            "Difference(shared=269722",
            "linear probe: accuracy",
            "validation_accuracy",
        ],
        strict=True,
    ),
    ids=["layer", "probe", "theory", "architecture", "weights", "training"],
)
def test_a_block_runs_by_itself(block, printed, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # As a newcomer's process, without this suite's strictness.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(compile(block, "README.md", "exec"), {})
    assert printed in capsys.readouterr().out
    assert (tmp_path / "correlation.png").exists() == (printed == "ordered")


def test_the_study_can_be_planned_whole_and_quick(tmp_path):
    file = tmp_path / "my_study.py"
    file.write_text(BLOCKS[6])
    study = load_study(file)
    assert len(BLOCKS) == 8 and len(plan(study)) == 8
    assert RunOptions(quick=True).apply(study).steps == 4
    options = RunOptions(
        axis=(("activation", "tanh", "gelu"), ("skip", "no")), depths=(10, 20), data="cifar10"
    )
    assert options.apply(study).grid == {"activation": ["tanh", "gelu"], "skip": [False], "depth": [10, 20]}
    exec(compile(BLOCKS[7], "README.md", "exec"), names := {})
    remedies = plan(study.replace(grid=names["grid"]))
    assert [program.optimizer.clip for program in remedies] == ["none", "norm", "none"]


def test_it_counts_the_models():
    assert f"{len(models.VARIANTS)} models by name" in TEXT
