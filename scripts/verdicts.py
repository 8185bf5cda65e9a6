"""The README's table of papers, from results that are kept in experiments/papers/results.

    python scripts/verdicts.py [FOLDER ...]

Keeps the verdicts of the finished studies in these folders, then writes the table anew from all that are kept.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnjax.files import replacing
from cnnjax.report.verdicts import texts
from cnnjax.study import Store, read_verdicts
from cnnjax.study.claims import Verdict

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "experiments" / "papers" / "results"
BEGIN, END = "<!-- papers: written by scripts/verdicts.py -->\n\n", "\n<!-- end of papers -->\n"
CIRCUMSTANCES = ("name", "command", "data", "versions", "device", "precision", "commit", "finished")


def kept(folder: Path) -> dict[str, Any]:
    """The verdicts of a finished study and under which circumstances they were found.

    Raises:
      ValueError: the folder holds no finished study with claims.
    """
    info, verdicts = Store(folder).info, read_verdicts(folder)
    if not info["finished"] or not verdicts:
        raise ValueError(f"{folder} holds no finished study with claims: run it to its end first")
    found = {name: info[name] for name in CIRCUMSTANCES}
    # A command names the folder of somebody's machine.
    command = found["command"].partition(" --out ")[0]
    return found | {"command": command, "verdicts": [verdict.as_json() for verdict in verdicts]}


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """The table in Markdown, below it when and with what the claims were judged."""
    lines = ["| paper | claim | tested | printed | ours | n | verdict |", "| --- " * 7 + "|"]
    for result in sorted(results, key=lambda result: result["name"]):
        lines += _rows(result)
    return "\n".join([*lines, "", *_circumstances(results)]) + "\n"


def _rows(result: Mapping[str, Any]) -> Iterator[str]:
    """A line for each claim with a number, and one for all those without."""
    paper, without = f"`{result['name']}`", []
    for verdict in map(Verdict.from_json, result["verdicts"]):
        words = texts(verdict)
        if verdict.estimate is None:
            without.append((f"{verdict.name} ({words.printed})", words.note))
            continue
        count = words.count.rpartition("n = ")[-1]
        judged = f"not tested: {words.note}" if verdict.verdict == "not tested" else verdict.verdict
        yield _row(paper, verdict.statement, verdict.criterion, words.printed, words.ours, count, judged)
        paper = ""
    if without:
        claims, notes = ("; ".join(parts) for parts in zip(*without, strict=True))
        reasons = "; ".join(dict.fromkeys(notes.split("; ")))
        yield _row(paper, f"In other settings (printed): {claims}", "", "", "–", "", f"not tested: {reasons}")


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _circumstances(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    by_circumstance: dict[str, list[str]] = {}
    for result in results:
        versions, device = result["versions"], result["device"]
        words = (
            f"JAX {versions['jax']}, Flax {versions['flax']}, Python {versions['python']}, "
            f"{device['count']} {device['kind']} ({result['precision']}), {result['finished'][:10]}"
        )
        by_circumstance.setdefault(words, []).append(f"`{result['name']}`")
    for words, names in by_circumstance.items():
        yield f"{', '.join(sorted(names))}: {words}."


def read_results() -> list[dict[str, Any]]:
    """All that is kept."""
    return [json.loads(file.read_text()) for file in sorted(RESULTS.glob("*.json"))]


def with_table(readme: str, text: str) -> str:
    """The README with this table between its marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + text + END + after


def main(folders: Sequence[Path]) -> None:
    """Keeps, then writes."""
    for result in [kept(folder) for folder in folders]:
        with replacing(RESULTS / f"{result['name']}.json") as file:
            file.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    with replacing(README) as file:
        file.write_text(with_table(README.read_text(), table(read_results())))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    try:
        main(parser.parse_args().folders)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
