import json

import pytest

from cnnjax.cli import main
from cnnjax.commands.reproduce import PAPERS, find_papers, listing

from .conftest import FILE


@pytest.fixture
def papers(tmp_path):
    folder = tmp_path / "papers"
    folder.mkdir()
    full = 'FULL = STUDY.replace(name="tiny-full", seeds=3)\n\nif __name__'
    (folder / "tiny2020.py").write_text(
        '"""A tiny paper: does it run?\n\nMore."""\n' + FILE.replace("if __name__", full)
    )
    (folder / "other2021.py").write_text('"""Another one."""\nSTUDY = 3\n')
    return folder


def test_papers_are_listed_by_the_first_line_of_their_files(papers, capsys):
    assert main(["reproduce", "--list", "--experiments", str(papers)]) == 0
    assert capsys.readouterr().out == "other2021  Another one.\ntiny2020   A tiny paper: does it run?\n"


@pytest.mark.parametrize(("tier", "seeds"), [("small", 2), pytest.param("full", 3, marks=pytest.mark.slow)])
def test_a_tier_is_run(papers, tmp_path, tier, seeds):
    args = ["reproduce", "tiny2020", "--tier", tier, "--experiments", str(papers)]
    assert main([*args, "--steps", "0", "--quiet", "--out", str(tmp_path / "out")]) == 0
    assert len(json.loads((tmp_path / "out" / "study.json").read_text())["seeds"]) == seeds


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["tiny202"], "unknown paper 'tiny202'; did you mean 'tiny2020'? Known: other2021, tiny2020"),
        ([], "name a paper (other2021, tiny2020), or see --list"),
        (["other2021", "--tier", "full"], "has no FULL: write FULL = "),
    ],
)
def test_papers_that_are_not_there(papers, capsys, args, message):
    assert main(["reproduce", *args, "--experiments", str(papers)]) == 2
    assert message in capsys.readouterr().err


def test_outside_of_a_working_copy(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "--list"]) == 2
    error = capsys.readouterr().err
    assert f"no papers in {tmp_path / PAPERS}: call it in a working copy" in error
    assert error.count("\n") == 1


def test_papers_of_this_repository():
    names = find_papers()
    assert "he2015" in names and len(list(listing(names))) == len(names)
