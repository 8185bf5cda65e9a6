import json

import pytest

from cnnjax.cli import main
from cnnjax.commands import selftest
from cnnjax.commands.doctor import prepared


def test_all_well(capsys, monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "all well"
    topics = [line.split()[0] for line in lines[:-1] if not line.startswith(" ")]
    assert topics == ["devices", "versions", "precision", "convolutions", "memory", "data"]
    text = "\n".join(lines)
    assert "8 x cpu (cpu)" in text
    assert "right, largest error against NumPy" in text
    assert "digits: 1150 + 288 + 359 images" in text


def test_what_is_wrong_is_the_last_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nowhere"))
    finding = selftest.Finding("dense", "in a loop", "output", 0.5)
    monkeypatch.setattr(selftest, "check", lambda: iter([finding]))
    assert main(["doctor"]) == 1
    wrong = capsys.readouterr().out.splitlines()[-1]
    assert wrong.startswith("convolution (dense, in a loop): output is off by 5.0e-01; TFDS_DATA_DIR names ")


def test_prepared_sets(tmp_path):
    for folder in ("mnist/3.0.1", "emnist/letters/3.1.0"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "dataset_info.json").write_text(json.dumps({}))
    assert prepared(tmp_path) == ["emnist/letters", "mnist"]
    assert prepared(tmp_path / "nowhere") == []


@pytest.mark.parametrize("value", [float("nan"), 1e-4])
def test_errors_above_the_tolerance_are_wrong(value):
    assert not selftest.Finding("dense", "plain", "output", value).right
