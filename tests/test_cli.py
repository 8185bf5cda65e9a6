import subprocess
import sys

import pytest

from cnnjax.cli import main


@pytest.mark.parametrize("args", [[], ["--help"]])
def test_help_lists_the_commands(args, capsys):
    with pytest.raises(SystemExit) as exit:
        main(args)
    assert exit.value.code == 0
    output = capsys.readouterr().out
    assert "usage: cnnjax" in output
    assert all(f"• {command} " in output for command in ("run", "report", "data", "summary", "doctor"))


@pytest.mark.parametrize(
    ("args", "match"),
    [
        (["runn", "x.py"], "Available subcommands: run, reproduce, report, data, summary, doctor"),
        (["run", "x.py", "--batch-sizee", "3"], "--batch-size N"),
        (["run"], "FILE"),
        (["run", "x.py", "--seeds", "many"], "invalid literal|INT|int"),
        (["data", "remove", "mnist"], "prepare"),
    ],
)
def test_mistyped_arguments(args, match, capsys):
    with pytest.raises(SystemExit) as exit:
        main(args)
    assert exit.value.code == 2
    output = capsys.readouterr().err
    assert "Traceback" not in output
    assert any(text in output for text in match.split("|"))


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
