"""The README's table of papers says what the kept results say."""

import runpy
from pathlib import Path

import pytest

from cnnjax.study import Study, run
from cnnjax.study.claims import Claim, level

ROOT = Path(__file__).parents[1]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "verdicts.py"))
STUDY = Study(
    name="bare2026",
    question="?",
    grid={"depth": [4]},
    options={"width": 2},
    steps=0,
    claims=[
        Claim(
            name="stable",
            statement="The gradient stays | there.",
            source="nobody",
            printed=0.5,
            rule=level("gradient_ratio_log10", {"depth": 4}, at_least=-9),
        )
    ],
)


def test_the_readme_shows_what_is_kept():
    text = (ROOT / "README.md").read_text()
    assert SCRIPT["with_table"](text, SCRIPT["table"](SCRIPT["read_results"]())) == text


def test_every_kept_result_is_that_of_a_paper_of_this_repository():
    papers = {file.stem for file in (ROOT / "experiments" / "papers").glob("*.py")}
    assert {result["name"] for result in SCRIPT["read_results"]()} <= papers


def test_a_finished_study_becomes_rows(tmp_path):
    command = f"cnnjax reproduce bare2026 --out {tmp_path}"
    run(STUDY, tmp_path, quiet=True, command=command)
    result = SCRIPT["kept"](tmp_path)
    assert result["command"] == "cnnjax reproduce bare2026" and str(tmp_path) not in str(result)
    row = SCRIPT["table"]([result]).splitlines()[2]
    assert row.startswith(
        r"| `bare2026` | The gradient stays \| there. | gradient_ratio_log10 ≥ -9 in every run | 0.5 |"
    )
    assert row.endswith("| 3 | agree |")


def test_a_study_without_claims_or_end_is_not_kept(tmp_path):
    run(STUDY.replace(claims=()), tmp_path, quiet=True)
    with pytest.raises(ValueError, match="holds no finished study with claims"):
        SCRIPT["kept"](tmp_path)
