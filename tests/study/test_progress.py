"""What a study says of its progress, and that the engine counts every step once."""

import io
import re

import jax
import pandas as pd
import pytest
from rich.console import Console

from cnnjax.study import execute, plan, progress, run, tables
from cnnjax.study.chunk import Chunk
from cnnjax.study.progress import Progress

from .small import STUDY

FIRST, SECOND = plan(STUDY.replace(grid={"activation": ["relu", "leaky_relu"]}))


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def terminal(monkeypatch, width):
    """The text that a terminal of this width gets."""
    file = io.StringIO()
    monkeypatch.setattr(
        progress,
        "Console",
        lambda stderr, quiet: Console(
            file=file, width=width, force_terminal=True, color_system=None, quiet=quiet
        ),
    )
    return file


def completed(shown):
    return shown._bar.tasks[0].completed


def test_without_a_terminal_every_program_is_one_plain_line(capsys):
    with Progress(8, 6) as shown:
        shown.program(FIRST, FIRST.runs)
        shown.advance(4 * 6)
        shown.finished(4)
        shown.program(SECOND, SECOND.runs[:2])
        shown.finished(2)
    output = capsys.readouterr()
    assert output.out == ""
    lines = output.err.splitlines()
    assert lines[:2] == [
        f"0/8 runs done; now 4 of {FIRST.title}",
        f"4/8 runs done; now 2 of {SECOND.title}",
    ]
    assert "36/48 steps, 6/8 runs" in lines[-1]
    assert "\x1b" not in output.err


def test_a_long_title_is_not_broken_without_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    with Progress(8, 6) as shown:
        shown.program(SECOND, SECOND.runs)
    assert len(SECOND.title) > 40
    assert capsys.readouterr().err.splitlines()[0].endswith(SECOND.title)


def test_quiet_shows_nothing(capsys):
    with Progress(8, 6, quiet=True) as shown:
        shown.program(FIRST, FIRST.runs)
        shown.advance(12)
        shown.finished(4)
    assert capsys.readouterr() == ("", "")
    assert completed(shown) == 4 * 6


@pytest.mark.parametrize("width", [60, 80, 200])
def test_in_a_terminal_the_title_gives_way_and_no_number_does(monkeypatch, width):
    file = terminal(monkeypatch, width)
    with Progress(432, 200) as shown:
        shown.program(SECOND, SECOND.runs)
        shown.finished(123)
        shown.advance(45)
    frames = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", file.getvalue()).replace("\r", "\n").split("\n")
    last = [frame for frame in frames if frame.strip()][-1]
    assert "24645/86400 steps, 123/432 runs left " in last
    assert re.search(r"left +(\d+:\d\d|-:--)", last)
    assert len(last.rstrip()) <= width
    assert last.startswith(SECOND.title[:60] if width == 200 else "mlp")
    assert "runs done; now" not in file.getvalue()


def test_steps_are_counted_once():
    shown = Progress(8, 6, quiet=True)
    shown.advance(4 * 2)
    shown.advance(4 * 4)
    shown.finished(4)
    assert completed(shown) == 24
    # Runs that were finished before, or never fitted into memory, have had no step counted.
    shown.finished(4)
    assert completed(shown) == 48


class Watched(Progress):
    """Remembers every count."""

    counts: list[float] = []

    def advance(self, steps):
        super().advance(steps)
        self.counts.append(completed(self))

    def finished(self, runs):
        super().finished(runs)
        self.counts.append(completed(self))


@pytest.fixture
def counts(monkeypatch):
    """The counts of the engine, whose segments compute nothing."""

    def prepare(self):
        self._done, self._curves, self._layers = 0, [pd.DataFrame()], [pd.DataFrame()]
        return self

    def segment(self):
        self._done += self.study.record_every

    def finish(self, curves, layers, test):
        self.part.finish({"runs": tables.run_rows(self.runs, "finished")})

    monkeypatch.setattr(Chunk, "prepare", prepare)
    monkeypatch.setattr(Chunk, "_segment", segment)
    monkeypatch.setattr(Chunk, "_score", lambda self, blocks: None)
    monkeypatch.setattr(Chunk, "_finish", finish)
    monkeypatch.setattr(execute, "Progress", Watched)
    monkeypatch.setattr(Watched, "counts", [])
    return Watched.counts


TOTAL = 8 * STUDY.steps


def refuse(monkeypatch, fitting, *, done):
    """Lets memory run out after so many steps wherever more runs are together than fit."""
    segment = Chunk._segment

    def limited(self):
        if len(self.runs) > fitting and self._done == done:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte")
        segment(self)

    monkeypatch.setattr(Chunk, "_segment", limited)


def test_a_study_counts_up_to_its_total(counts, tmp_path):
    run(STUDY, tmp_path, quiet=True)
    assert counts == [0, 16, 32, TOTAL, TOTAL]


def test_a_study_that_goes_on_counts_what_was_done_and_ends_at_its_total(counts, tmp_path, monkeypatch):
    prepare = Chunk.prepare

    def resumed(self):
        prepare(self)._done = 4
        return self

    monkeypatch.setattr(Chunk, "prepare", resumed)
    run(STUDY, tmp_path, quiet=True)
    assert counts == [32, TOTAL, TOTAL]


def stopped_at_the_second(shown, program, runs):
    if program.number == 1:
        raise KeyboardInterrupt


def test_a_study_with_finished_parts_ends_at_its_total(counts, tmp_path, monkeypatch):
    study = STUDY.replace(grid={"activation": ["relu", "tanh"]})
    with monkeypatch.context() as patch:
        patch.setattr(Watched, "program", stopped_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            run(study, tmp_path, quiet=True)
    counts.clear()
    run(study, tmp_path, quiet=True)
    assert counts == [24, 24, 32, 40, TOTAL, TOTAL]


@pytest.mark.parametrize("fitting", [2, 0])
def test_runs_that_are_split_before_they_start_end_at_the_total(counts, tmp_path, monkeypatch, fitting):
    refuse(monkeypatch, fitting, done=0)
    run(STUDY, tmp_path, quiet=True)
    assert counts == sorted(counts) and counts[-1] == TOTAL


def test_runs_that_are_split_after_a_segment_do_not_count_it_twice(counts, tmp_path, monkeypatch):
    refuse(monkeypatch, 2, done=2)
    run(STUDY, tmp_path, quiet=True)
    assert max(counts) == counts[-1] == TOTAL
