import subprocess
import sys

import pytest

from cnnjax.cli import main
from cnnjax.commands.usage import flattened


@pytest.mark.parametrize("args", [[], ["--help"]])
def test_help_lists_the_commands(args, capsys):
    with pytest.raises(SystemExit) as exit:
        main(args)
    assert exit.value.code == 0
    output = capsys.readouterr().out
    assert "usage: cnnjax" in output
    assert all(
        f"• {command} " in output
        for command in ("run", "report", "train", "resume", "runs", "data", "models", "explain", "doctor")
    )


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            ["runn", "x.py"],
            "Available subcommands: run, reproduce, report, train, resume, runs, evaluate, predict, export, data",
        ),
        (["run", "x.py", "--batch-sizee", "3"], "Perhaps you meant: --batch-size N"),
        (["run"], "Missing from cnnjax run: FILE"),
        (["run", "x.py", "--seeds", "many"], "Error parsing --seeds"),
        (["data", "remove", "mnist"], "prepare"),
        (["reproduce", "he2015", "--tier", "smal"], "Expected one of ('small', 'full')"),
    ],
)
def test_mistyped_arguments_are_named_in_one_line(args, words, capsys):
    with pytest.raises(SystemExit) as exit:
        main(args)
    assert exit.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("cnnjax: ") and captured.err.count("\n") == 1
    assert words in captured.err and "│" not in captured.err and "helptext" in captured.err


RULE = "-" * 20


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("something\n  is wrong.\n", "something is wrong"),
        (
            f" Value error\n {RULE}\n  it is\n  wrong.\n\n  Got errors:\n  - many\n {RULE}\n  see --help\n",
            "it is wrong; see --help",
        ),
        (f"╭─ Value error ─╮\n│ it is\n│ wrong.\n│ {RULE}\n│ see --help\n╰───╯", "it is wrong; see --help"),
    ],
    ids=["no box", "ASCII", "box"],
)
def test_boxes_become_one_line(text, line):
    assert flattened(text) == line


def test_an_error_is_one_line(capsys):
    assert main(["run", "nothing.py"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    expected = "cnnjax: there is no file nothing.py: name a Python file with a STUDY, as in experiments/\n"
    assert captured.err == expected


@pytest.mark.parametrize("before", [True, False])
def test_debug_shows_the_traceback(before):
    args = ["run", "nothing.py"]
    with pytest.raises(FileNotFoundError, match="nothing.py"):
        main(["--debug", *args] if before else [*args, "--debug"])


def test_the_environment_asks_for_the_traceback(monkeypatch):
    monkeypatch.setenv("CNNJAX_DEBUG", "1")
    with pytest.raises(FileNotFoundError, match="nothing.py"):
        main(["run", "nothing.py"])
    monkeypatch.setenv("CNNJAX_DEBUG", "0")
    assert main(["run", "nothing.py"]) == 2


def test_importing_the_command_line_imports_nothing_heavy():
    code = (
        "import sys, cnnjax.cli; "
        "print([m for m in ('jax', 'flax', 'pandas', 'matplotlib', 'sklearn') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout == "[]\n"
