import datetime
import json
import shutil

import pytest

from cnnjax.commands.runs import Runs, described, run_folders, table
from cnnjax.files import locked
from cnnjax.training import journal

from ..made_up_run import make_run

BRIEF = {"look_every": 0, "layers": 3}


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A folder as the working directory, with runs in every state that there is."""
    monkeypatch.chdir(tmp_path)
    top = tmp_path / "runs"
    make_run(top / "done", **BRIEF)
    make_run(top / "deep" / "stopped[1]", until=1500, state="stopped", evaluated=(), **BRIEF)
    make_run(top / "gone", until=700, state="running", evaluated=(), **BRIEF)
    make_run(top / "nan", until=800, state="failed", error="not finite in step 801", evaluated=(), **BRIEF)
    make_run(top / "half", **BRIEF)
    (top / "half" / "run.json").write_text('{"format": 1, "na')
    for name, when in (("done", "10:00"), ("deep/stopped[1]", "12:00"), ("gone", "11:00"), ("nan", "09:00")):
        path = top / name / "status.json"
        status = json.loads(path.read_text()) | {"updated": f"2026-01-05T{when}:00+00:00"}
        path.write_text(json.dumps(status))
    return top


def test_every_run_has_a_row(runs, capsys):
    assert Runs()("cnnjax runs") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "5 runs"
    rows = [line.split() for line in lines[3:-2]]
    by_folder = {row[0]: row for row in rows}
    assert list(by_folder) == [f"runs/{name}" for name in ("deep/stopped[1]", "gone", "done", "nan", "half")]
    done = by_folder["runs/done"]
    best = journal.read_log(runs / "done")["validation_accuracy"].max()
    assert done[1:6] == ["cifar_resnet20", "cifar10", "finished", "6,400/6,400", "18.2"]
    assert done[6] == f"{100 * best:.2f}" and done[7] == "91.35" and done[8] == "0:01:57"
    assert done[10:] == ["d", "ago"]
    assert by_folder["runs/gone"][3:5] == ["killed", "700/6,400"] and by_folder["runs/gone"][7] == "–"
    assert by_folder["runs/half"][1:] == ["–", "–", "damaged", *["–"] * 6]
    assert lines[-2:] == [
        "runs/nan: not finite in step 801",
        "runs/half: runs/half/run.json is no whole JSON file (Unterminated string starting at: line 1 column 15 (char 14))",
    ]


def test_sorted_by_the_best(runs, capsys):
    assert Runs(sort="best", json=True)("cnnjax runs") == 0
    found = json.loads(capsys.readouterr().out)
    best = [run["best"] for run in found]
    assert best[:4] == sorted(best[:4], reverse=True) and best[4] is None
    assert found[0]["folder"] == "runs/done" and found[4]["folder"] == "runs/half"


def test_json_has_the_same(runs, capsys):
    assert Runs(runs, json=True)("cnnjax runs") == 0
    found = {run["folder"]: run for run in json.loads(capsys.readouterr().out)}
    done = found[str(runs / "done")]
    assert (done["state"], done["step"], done["steps"], done["error"]) == ("finished", 6400, 6400, None)
    assert done["test"] == journal.read_evaluation(runs / "done")["test"]["accuracy"]
    assert done["best"] == journal.read_log(runs / "done")["validation_accuracy"].max()
    assert found[str(runs / "half")]["state"] == "damaged"
    assert "no whole JSON file" in found[str(runs / "half")]["error"]
    assert {tuple(run) for run in found.values()} == {tuple(done)}


def test_who_holds_the_folder_is_at_work(runs):
    assert described(runs / "gone")["state"] == "killed"
    with locked(runs / "gone"):
        assert described(runs / "gone")["state"] == "running"


def test_a_run_that_has_just_begun(tmp_path):
    run = make_run(tmp_path / "new", until=0, state="running", evaluated=(), **BRIEF)
    for name in ("log.jsonl", "status.json"):
        (run / name).unlink(missing_ok=True)
    with locked(run):
        found = described(run)
    assert (found["state"], found["step"], found["best"], found["error"]) == ("running", 0, None, None)
    now = datetime.datetime(2026, 1, 5, 10, 0, 59, tzinfo=datetime.UTC)
    assert list(table([found], now).columns[-1].cells)[0].plain == "just now"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "just now"), (59, "just now"), (60, "1 min ago"), (7199, "1 h ago"), (86400 * 3, "3 d ago")],
)
def test_how_long_ago(runs, seconds, text):
    found = described(runs / "done")
    now = datetime.datetime.fromisoformat(found["updated"]) + datetime.timedelta(seconds=seconds)
    drawn = table([found], now)
    assert list(drawn.columns[-1].cells)[0].plain == text
    assert drawn.title == "1 run"


def test_studies_and_what_lies_in_runs_are_left_out(runs):
    study = runs / "study"
    study.mkdir()
    (study / "study.json").write_text("{}")
    make_run(study / "part", **BRIEF)
    shutil.copytree(runs / "nan", runs / "done" / "checkpoints" / "copy")
    names = [str(folder.relative_to(runs)) for folder in run_folders(runs)]
    assert names == ["deep/stopped[1]", "done", "gone", "half", "nan"]
    assert list(run_folders(runs / "done")) == [runs / "done"]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("run.json", '{"format": 1}', "it lacks 'name'"),
        ("run.json", '{"format": 1, "name": "a", "recipe": 3, "data": {}}', "subscriptable"),
        ("run.json", '{"format": 9}', "has format 9"),
        (
            "run.json",
            '{"format": 1, "name": "a", "recipe": {"model": "b"}, "data": {"name": "c"}, "steps": "many"}',
            "invalid literal for int",
        ),
        ("status.json", "[]", "holds list where an object is expected"),
        ("evaluation.json", "{", "is no whole JSON file"),
    ],
)
def test_damaged_runs_say_so(runs, capsys, name, text, reason):
    (runs / "done" / name).write_text(text)
    assert Runs()("cnnjax runs") == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("runs/done: "))
    assert reason in line
    assert described(runs / "done")["state"] == "damaged"


def test_an_empty_folder(tmp_path, capsys):
    assert Runs(tmp_path)("cnnjax runs") == 0
    assert capsys.readouterr().out == f"{tmp_path} holds no training run: `cnnjax train` makes one there\n"
    assert Runs(tmp_path, json=True)("cnnjax runs") == 0
    assert capsys.readouterr().out == "[]\n"


def test_no_folder(tmp_path):
    with pytest.raises(ValueError, match="there is no folder .*/none: name one that holds runs, as `cnnjax"):
        Runs(tmp_path / "none")("cnnjax runs")
