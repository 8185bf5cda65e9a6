import json
import os
import subprocess
import sys

import pandas as pd
import pytest

from cnnjax import study
from cnnjax.cli import main
from cnnjax.commands.run import load_study


def modified(folder):
    return {path: path.stat().st_mtime_ns for path in folder.glob("*.*")}


def test_a_study_is_run_and_reported(finished):
    runs = pd.read_parquet(finished.folder / "runs.parquet")
    # 2 initializers x 2 learning rates x 2 seeds.
    assert len(runs) == 8
    assert set(runs["status"]) == {"finished"}
    info = json.loads((finished.folder / "study.json").read_text())
    assert info["command"] == " ".join(["cnnjax", *finished.args])
    page = (finished.folder / "report" / "index.html").read_text()
    assert "Which initializer?" in page


def test_a_finished_study_is_not_computed_again(finished, capsys, monkeypatch):
    monkeypatch.setattr(study, "run", lambda *_, **__: pytest.fail("the study was run again"))
    before = modified(finished.folder)
    page = finished.folder / "report" / "index.html"
    page.unlink()
    assert main(finished.args) == 0
    assert page.exists()
    assert modified(finished.folder) == before
    output = capsys.readouterr().out
    assert "holds this study, finished: nothing is computed again" in output
    assert "tiny: all 2 cells" in output
    assert output.endswith(f"report: {page}\n")


def test_a_folder_of_another_configuration_is_an_error(finished, capsys):
    before = modified(finished.folder)
    assert main([*finished.args, "--batch-size", "9"]) == 2
    error = capsys.readouterr().err
    assert "holds a study of another configuration (batch_size: 8 there, 9 now)" in error
    assert error.count("\n") == 1
    assert modified(finished.folder) == before


def test_an_interruption_says_how_to_go_on(study_file, tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "run", interrupted)
    args = ["run", str(study_file), "--out", str(tmp_path / "out")]
    assert main(args) == 130
    expected = f"stopped: the same command goes on from here (cnnjax {' '.join(args)})\n"
    assert capsys.readouterr().err == expected


def test_quick_has_a_folder_of_its_own(study_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(study_file), "--quick", "--steps", "0", "--quiet"]) == 0
    info = json.loads((tmp_path / "runs" / "tiny-quick" / "study.json").read_text())
    assert (info["steps"], info["seeds"], info["learning_rates"]) == (0, [0], [0.1])
    output = capsys.readouterr().out
    assert "Nothing was trained" in output
    assert "accuracy %" not in output


def test_the_file_runs_by_itself_with_one_device_per_core(study_file, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, str(study_file), "--quick", "--steps", "0", "--out", str(tmp_path / "out")]
    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=300)
    info = json.loads((tmp_path / "out" / "study.json").read_text())
    assert info["device"]["count"] == len(os.sched_getaffinity(0))
    assert info["command"].startswith(f"python {study_file} --quick")


def test_the_file_by_itself_reports_errors_in_one_line(study_file, capsys):
    module = load_study(study_file)
    from cnnjax.cli import main_of_study

    with pytest.raises(SystemExit) as exit:
        main_of_study(module, ["--steps", "3"])
    assert exit.value.code == 2
    assert capsys.readouterr().err.startswith("cnnjax: steps=3 is not a multiple of record_every=2")


@pytest.mark.parametrize(
    ("content", "error", "match"),
    [
        ("x = 1", ValueError, r"study.py has no STUDY: write STUDY = "),
        ("STUDY = 3", TypeError, r"STUDY in .*study.py must be a cnnjax.study.Study, got int"),
        ("STUDY = (3", SyntaxError, r"was never closed"),
        ("import nowhere_to_be_found", ImportError, r"No module named 'nowhere_to_be_found'"),
    ],
)
def test_files_without_a_study(tmp_path, content, error, match):
    file = tmp_path / "study.py"
    file.write_text(content)
    with pytest.raises(error, match=match):
        load_study(file)


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nothing.py: name a Python file"):
        load_study(tmp_path / "nothing.py")
    (tmp_path / "study.txt").write_text("STUDY = 3")
    for path in (tmp_path / "study.txt", tmp_path):
        with pytest.raises(ValueError, match=r"is not a Python file"):
            load_study(path)


def test_a_file_may_import_its_neighbor(tmp_path):
    (tmp_path / "grid_beside.py").write_text("GRID = {'depth': [3]}")
    file = tmp_path / "study.py"
    file.write_text(
        "from grid_beside import GRID\nfrom cnnjax.study import Study\n"
        "STUDY = Study(name='n', question='?', grid=GRID)"
    )
    path = list(sys.path)
    assert load_study(file).grid == {"depth": [3]}
    assert sys.path == path
