import math
from pathlib import Path

import pandas as pd
import pytest

from cnnjax import report
from cnnjax.report import verdicts
from cnnjax.study import statistics
from cnnjax.study.claims import Verdict

from .synthetic import Study


def verdict(word: str, **fields) -> Verdict:
    words = {
        "name": f"a {word} one",
        "statement": "Deep nets train.",
        "source": "He 2015, <i>3</i>",
        "printed": None,
    }
    return Verdict(**{**words, "verdict": word, **fields})


AGREE = verdict("agree", printed=-0.25, estimate=statistics.mean([-0.1, -0.2, -0.3]), note="lowest -0.3")
DISAGREE = verdict(
    "disagree", printed="6.61 ± 0.16", estimate=statistics.median([-math.inf, 1.0, 2.0, 3.0, 4.0, 5.0])
)
OPEN = verdict("not tested", note="too few seeds: 1, tested with 3 or more")


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (AGREE, verdicts.Texts("✓", "−0.20 [−0.45, 0.05]", "n = 3", "−0.25", "lowest −0.3")),
        (DISAGREE, verdicts.Texts("✗", "2.5 [−inf, 5]", "median, n = 6", "6.61 ± 0.16", "")),
        (OPEN, verdicts.Texts("○", "–", "", "–", "too few seeds: 1, tested with 3 or more")),
    ],
)
def test_texts(one: Verdict, expected: verdicts.Texts) -> None:
    assert verdicts.texts(one) == expected


def test_what_is_no_mean_with_its_usual_interval_says_so() -> None:
    narrow = verdict("agree", estimate=statistics.mean([1.0, 2.0, 3.0], confidence=0.9))
    assert verdicts.texts(narrow).count == "90 % interval, n = 3"
    single = verdict("agree", estimate=statistics.mean([1.0], confidence=0.9))
    assert verdicts.texts(single).count == "n = 1, no interval"


def test_hyphens_stay_in_words_and_exponents() -> None:
    assert verdicts.texts(verdict("agree", note="a 3-layer net, 1e-05, 2020-2021, -4")).note == (
        "a 3-layer net, 1e-05, 2020-2021, −4"
    )


def test_marks_differ_by_shape() -> None:
    assert len(set(verdicts.MARKS.values())) == 3


@pytest.mark.parametrize(
    ("judged", "text"),
    [
        ([AGREE, OPEN, AGREE], "3 claims: 2 agree, 1 not tested"),
        ([DISAGREE], "1 claim: 1 disagree"),
        ([AGREE, DISAGREE, OPEN], "3 claims: 1 agree, 1 disagree, 1 not tested"),
    ],
)
def test_summary(judged: list[Verdict], text: str) -> None:
    assert verdicts.summary(judged) == text


def test_the_page_shows_verdicts_before_the_answer(small: Study, tmp_path: Path) -> None:
    text = report.write(*small, tmp_path, verdicts=[AGREE, DISAGREE, OPEN]).read_text()
    table = text[text.index('<table id="verdicts">') : text.index('class="answer"')]
    assert text.index("3 claims: 1 agree") < text.index('<table id="verdicts">')
    for word in ("agree", "disagree", "not tested"):
        assert f"{verdicts.MARKS[word]}</span>{word}</td>" in table
    assert '−0.20 [−0.45, 0.05]<span class="note">n = 3</span>' in table and "too few seeds: 1" in table
    assert "He 2015, &lt;i&gt;3" in table and "<i>" not in table
    assert table.count('<th scope="col">') == 5 and table.count("<caption>") == 1


def test_the_file_holds_the_numbers(small: Study, tmp_path: Path) -> None:
    report.write(*small, tmp_path, verdicts=[AGREE, DISAGREE, OPEN])
    table = pd.read_csv(tmp_path / "tables" / "verdicts.csv")
    assert list(table["verdict"]) == ["agree", "disagree", "not tested"]
    assert AGREE.estimate is not None
    assert table.loc[0, ["value", "low", "high"]].tolist() == pytest.approx(
        [AGREE.estimate.value, AGREE.estimate.low, AGREE.estimate.high]
    )
    assert table["n"].tolist()[:2] == [3, 6] and table.loc[2, ["value", "n"]].isna().all()
    assert table["low"][1] == -math.inf and table["statistic"][1] == "median"
    assert table["printed"].tolist()[:2] == ["-0.25", "6.61 ± 0.16"]


def test_a_page_without_claims_has_no_table(page: Path) -> None:
    assert 'id="verdicts"' not in page.read_text()
    assert not (page.parent / "tables" / "verdicts.csv").exists()
