import sys

import pytest

from cnnjax.cli import main


def test_a_set_that_is_there_is_left_alone(tmp_path, capsys):
    folder = tmp_path / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    (folder / "mnist-train.array_record-00000-of-00001").touch()
    assert main(["data", "prepare", "mnist", "--data-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"mnist is ready in {folder}\n"


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("digits", "digits is part of scikit-learn: it needs no preparation"),
        ("mnist", "preparing mnist needs TensorFlow, which cannot be imported"),
    ],
)
def test_errors(name, match, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert main(["data", "prepare", name, "--data-dir", str(tmp_path)]) == 2
    assert match in capsys.readouterr().err
