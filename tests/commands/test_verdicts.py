"""Verdicts in the terminal: `cnnjax run` and `cnnjax report`."""

import json
import shutil

import pytest

from cnnjax.cli import main
from cnnjax.commands.cells import verdict_table
from cnnjax.study import read_verdicts
from cnnjax.study.claims import Verdict

FILE = """
from cnnjax.study import Study
from cnnjax.study.claims import Claim, Where, level

STUDY = Study(
    name="claimed",
    question="Which depth?",
    model="mlp",
    options={"width": 4},
    grid={"depth": [3, 4]},
    seeds=3,
    steps=2,
    record_every=1,
    batch_size=8,
    subset=60,
    quick={"seeds": 1},
    claims=[
        Claim(
            name="slope",
            statement="The gradient changes by less than 9 decades a layer.",
            source="Somebody 2001 [p. 3]",
            rule=level("gradient_slope", {"depth": 4}, at_least=-9, at_most=9),
            printed=0.25,
        ),
        Claim(
            name="steep",
            statement="It changes by more.",
            source="Nobody 2000",
            rule=level("gradient_slope", {"depth": 4}, at_least=LEAST),
        ),
        Claim(
            name="deep",
            statement="It trains.",
            source="Nobody 2000",
            rule=level("test_accuracy", {"depth": 3}, at_least=0.5),
            where=Where(at_least={"steps": 100}),
        ),
    ],
)
"""


@pytest.fixture(scope="module")
def claimed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("claimed")
    (folder / "claimed.py").write_text(FILE.replace("LEAST", "9"))
    assert main(["run", str(folder / "claimed.py"), "--out", str(folder / "out"), "--quiet"]) == 0
    return folder


@pytest.fixture
def copied(claimed, tmp_path):
    return shutil.copytree(claimed, tmp_path / "claimed")


def check_table(output):
    assert "3 claims: 1 agree, 1 disagree, 1 not tested" in output
    table = output[output.index("3 claims") :]
    for words in (("claim", "verdict", "ours", "printed", "source"), ("slope", "✓ agree", "0.25", "[p. 3]")):
        positions = [table.index(word) for word in words]
        assert positions == sorted(positions)
    assert "n = 3" in table and "✗ disagree" in table and "○ not tested: other scale" in table


def test_a_finding_is_no_failure(copied, capsys):
    # The second run finds the study finished, and judges it anew.
    (copied / "out" / "verdicts.json").unlink()
    assert main(["run", str(copied / "claimed.py"), "--out", str(copied / "out")]) == 0
    check_table(capsys.readouterr().out)


def test_the_report_needs_no_file_of_the_study(copied, capsys):
    (copied / "claimed.py").unlink()
    assert main(["report", str(copied / "out")]) == 0
    check_table(capsys.readouterr().out)
    page = (copied / "out" / "report" / "index.html").read_text()
    assert page.index("3 claims: 1 agree") < page.index('class="answer"')
    assert (copied / "out" / "report" / "tables" / "verdicts.csv").exists()


def test_claims_may_change_and_the_tables_stay(copied, capsys):
    tables = {path: path.stat().st_mtime_ns for path in (copied / "out").glob("*.parquet")}
    (copied / "claimed.py").write_text(FILE.replace("LEAST", "-9"))
    assert main(["run", str(copied / "claimed.py"), "--out", str(copied / "out")]) == 0
    assert "3 claims: 2 agree, 1 not tested" in capsys.readouterr().out
    assert tables == {path: path.stat().st_mtime_ns for path in (copied / "out").glob("*.parquet")}
    assert [verdict.verdict for verdict in read_verdicts(copied / "out")] == ["agree", "agree", "not tested"]


def test_a_smaller_version_is_not_tested(claimed, tmp_path, capsys):
    args = ["run", str(claimed / "claimed.py"), "--depths", "3", "--quick", "--out", str(tmp_path), "--quiet"]
    assert main(args) == 0
    assert "3 claims: 3 not tested" in capsys.readouterr().out
    slope, _, deep = read_verdicts(tmp_path)
    assert "unknown value of the axis depth '4'" in slope.note
    assert deep.note.startswith("too few seeds: 1, tested with 3 or more; other scale: steps = 2")


def test_claims_that_do_not_fit_are_errors_of_the_file(tmp_path, capsys):
    (tmp_path / "study.py").write_text(
        FILE.replace("LEAST", "9").replace('"gradient_slope"', '"gradient_slop"')
    )
    assert main(["run", str(tmp_path / "study.py"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert (
        "study.py, line 5: claim 'slope': unknown column of numbers in the table of runs 'gradient_slop'"
        in error
    )
    assert "did you mean 'gradient_slope'?" in error
    assert not (tmp_path / "out").exists()


def test_damaged_verdicts_are_named(copied, capsys):
    (copied / "out" / "verdicts.json").write_text("[")
    assert main(["report", str(copied / "out")]) == 2
    assert "verdicts.json is damaged" in capsys.readouterr().err


def test_studies_without_claims_have_no_verdicts(finished, capsys):
    assert main(["report", str(finished.folder)]) == 0
    assert "claim" not in capsys.readouterr().out
    assert not (finished.folder / "verdicts.json").exists()
    assert "verdicts" not in json.loads((finished.folder / "study.json").read_text())


def test_brackets_are_no_markup():
    verdict = Verdict(
        name="[bold]", statement="s", source="[1]", printed=None, verdict="not tested", note="[x]"
    )
    table = verdict_table([verdict])
    cells = {column.header: [str(cell) for cell in column.cells] for column in table.columns}
    assert cells == {
        "claim": ["[bold]"],
        "verdict": ["○ not tested: [x]"],
        "ours": ["–"],
        "printed": ["–"],
        "source": ["[1]"],
    }
