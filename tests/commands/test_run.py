import json
import os
import signal
import subprocess
import sys

import pandas as pd
import pytest

from cnnjax import study
from cnnjax.cli import main
from cnnjax.commands.run import load_study


def modified(folder):
    return {path: path.stat().st_mtime_ns for path in folder.glob("[!.]*.*")}


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


# Processes in the background of a shell, those of the tests perhaps among them, ignore SIGINT, and so would their children.
LISTENING = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_control_c_is_answered_at_once_and_the_study_goes_on(study_file, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-c", LISTENING, str(study_file), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "now" in line:
            process.send_signal(signal.SIGINT)
            break
    _, error = process.communicate(timeout=300)
    assert process.returncode == 130, error
    answer, farewell = error.index("stopping as soon as"), error.index("stopped: the same command goes on")
    assert answer < farewell and "Traceback" not in error
    assert (pd.read_parquet(out / "runs.parquet")["status"] == "unfinished").any()
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    assert set(pd.read_parquet(out / "runs.parquet")["status"]) == {"finished"}


def test_a_file_is_no_folder_for_a_study(study_file, tmp_path, capsys):
    (tmp_path / "afile").write_text("x")
    for out in ("afile", "afile/below"):
        assert main(["run", str(study_file), "--out", str(tmp_path / out)]) == 2
        assert capsys.readouterr().err.endswith("afile is a file: choose another folder with --out\n")


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
        (
            "x = 1\nimport nowhere_to_be_found",
            ValueError,
            r"study.py, line 2: ModuleNotFoundError: No module",
        ),
        ("def f():\n    return y\nf()", ValueError, r"study.py, line 2: NameError: name 'y' is not defined"),
        (
            "from cnnjax.study import Study\nSTUDY = Study(name='n', question='?', grid={})",
            ValueError,
            r"study.py, line 2: the grid of study 'n' is empty",
        ),
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
