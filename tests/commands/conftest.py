"""A tiny study in a file, and the folder of its run, made by the command itself."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from cnnjax.cli import main

FILE = """
from cnnjax.cli import main_of_study
from cnnjax.study import Study

STUDY = Study(
    name="tiny",
    question="Which initializer?",
    model="mlp",
    options={"width": 4},
    grid={"initializer": ["he_normal", "xavier_normal"], "depth": [3]},
    learning_rates=[0.1, 0.01],
    seeds=2,
    steps=4,
    record_every=2,
    batch_size=8,
    subset=60,
    quick={"seeds": 1, "learning_rates": [0.1], "grid": {"depth": [3]}},
)

if __name__ == "__main__":
    main_of_study(STUDY)
"""


@pytest.fixture(scope="session")
def study_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("study") / "tiny.py"
    file.write_text(FILE)
    return file


@pytest.fixture(scope="session")
def finished(study_file: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The folder of the whole study, and the arguments that made it."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    args = ["run", str(study_file), "--out", str(folder), "--quiet"]
    assert main(args) == 0
    return SimpleNamespace(folder=folder, args=args)
