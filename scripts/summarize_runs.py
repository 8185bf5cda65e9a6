"""What is kept in the repository of training runs: command, circumstances, evaluations on the way and at the end.

python scripts/summarize_runs.py runs/mnist-lenet5 runs/mnist-lenet5-2 > experiments/training/mnist-lenet5.json
"""

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from cnnjax.training import journal

CIRCUMSTANCES = ("name", "started", "versions", "device", "precision", "commit", "parameters", "steps")
METRICS = ("accuracy", "loss", "top5", "calibration_error", "examples")
ON_THE_WAY = ("step", "epoch", "loss", "accuracy", "validation_loss", "validation_accuracy")


def summary(folder: Path) -> dict[str, Any]:
    """Of a finished run.

    Raises:
      ValueError: the folder holds no run, or one that is not finished.
    """
    run = journal.read_run(folder)
    if run.evaluation is None or run.status is None:
        raise ValueError(f"the run in {folder} is not finished: resume it first")
    evaluated = run.log[run.log["validation_accuracy"].notna()]
    # Without a validation split every record.
    told = (evaluated if len(evaluated) else run.log)[list(ON_THE_WAY)].dropna(axis="columns")
    return {
        "command": without_folder(run.info["command"]),
        **{name: run.info[name] for name in CIRCUMSTANCES},
        "notes": run.info["data"]["notes"],
        "seconds": round(run.status.seconds, 1),
        "evaluation": {
            split: {name: run.evaluation[split][name] for name in METRICS}
            for split in ("validation", "test")
            if run.evaluation[split]
        },
        "log": [{name: round(float(row[name]), 5) for name in told.columns} for _, row in told.iterrows()],
    }


def without_folder(command: str) -> str:
    """A command without its --out."""
    words = shlex.split(command)
    kept = [word for i, word in enumerate(words) if "--out" not in (word, words[i - 1] if i else "")]
    return shlex.join(kept)


def main() -> None:
    """Prints the summaries."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, help="of finished runs")
    print(json.dumps([summary(folder) for folder in parser.parse_args().folders], indent=1))


if __name__ == "__main__":
    main()
