"""Killing a run on purpose, at toy size."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "torture_resume.py"


@pytest.mark.slow
def test_a_run_survives_what_is_done_to_it(tmp_path):
    options = ["--kills", "3", "--terms", "1", "--damages", "1", "--steps", "400", "--out", tmp_path / "out"]
    done = subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if re.match(r"\| \d", line)]
    assert [row[0] for row in rows] == ["| 1", "| 2", "| 3", "| 4"]
    assert sum(row[1].startswith("SIGKILL") for row in rows) == 3 and "SIGTERM" in {row[1] for row in rows}
    assert done.stdout.endswith("equal in the end, bit for bit\n")


def test_what_is_not_equal_is_named(tmp_path):
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import torture_resume
    finally:
        sys.path.remove(str(SCRIPT.parent))
    log = tmp_path / "log.jsonl"
    log.write_text(
        '{"step": 10, "loss": NaN, "seconds": 1.5}\n{"step": 20, "loss": 0.5, "input_wait": 0.1}\n'
    )
    assert torture_resume.timeless(log) == [{"step": "10", "loss": "nan"}, {"step": "20", "loss": "0.5"}]
