"""A study's folder: its configuration, its tables, and what is needed to go on after a kill.

    study.json                 configuration, versions, device, precision, commit
    runs.parquet               a row for each run
    curves.parquet             a row for each run and segment: loss and accuracy
    layers.parquet             a row for each run, recorded step and layer
    measures.parquet           a row for each run and entry of the study's own measures, where it has any
    theory.parquet             a row for each cell and layer: what mean-field theory predicts
    verdicts.json              the verdicts on the study's claims, where it has any (`verdicts`)
    parts/<chunk>/             the same tables for the runs of one compiled chunk, and its state while it is computed

Every file is written under a temporary name and renamed, so a reader never sees half of one. Within a part the state is
written last: after a kill the part's tables may be ahead of it, and are cut back to its step.
"""

import json
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet

from cnnjax.files import replacing, sweep
from cnnjax.frame import Frame

TABLES = ("runs", "curves", "layers", "measures", "theory")
FORMAT = 4
KEYS = {
    "runs": ("run", "cell", "status", "selected"),
    "curves": ("run", "step"),
    "layers": ("run", "step", "layer"),
    "measures": ("run", "measure", "index"),
    "theory": ("cell", "layer"),
}
"""Columns that a table has in any study."""
ENVIRONMENT = ("versions", "device", "run_axis", "precision", "commit")
"""What study.json says of where the numbers were computed; `earlier` lists what else it said before a study went on."""
OWN_COLUMNS = ("broken_step", "broken_layer")
"""What a part's curves hold besides, to mark its runs as diverged when it ends."""


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as JSON, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_table(path: Path, table: Frame) -> None:
    """Writes a frame as Parquet, atomically."""
    with replacing(path) as temporary:
        table.to_parquet(temporary, index=False)


def read_table(path: Path) -> Frame:
    """Reads a Parquet file.

    Raises:
      ValueError: the file is damaged.
    """
    try:
        return pd.read_parquet(path)
    except (pyarrow.ArrowException, OSError) as error:
        remedy = "delete it and run the study again: only what it held is computed anew"
        raise ValueError(f"{path} is not a whole Parquet file ({error}); {remedy}") from error


class Part:
    """The folder of one chunk of runs: its tables so far, and the state to go on from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def finished(self) -> bool:
        """Whether all tables are there that were written when the chunk ended."""
        try:
            names = json.loads((self.folder / "finished.json").read_text())
        except (OSError, json.JSONDecodeError):
            return False
        return all((self.folder / f"{name}.parquet").exists() for name in names)

    @property
    def begun(self) -> bool:
        """Whether anything was stored."""
        return self.folder.exists()

    def save(self, step: int, state: Any, tables: dict[str, Frame]) -> None:
        """Stores the tables up to a step, then the state at that step."""
        for name, table in tables.items():
            write_table(self.folder / f"{name}.parquet", table)
        leaves: dict[str, Any] = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
        with replacing(self.folder / "state.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, step=np.int64(step), **leaves)

    def restore(self, like: Any, names: Sequence[str]) -> tuple[int, Any, dict[str, Frame]] | None:
        """(step, state, tables up to it) of what was saved last, or None when there is nothing to go on from.

        A damaged file counts as nothing: the chunk starts anew, which costs time and no result.

        Args:
          like: a state of the same structure and shapes.
          names: of the tables.
        """
        try:
            with (self.folder / "state.npz").open("rb") as file, np.load(file, allow_pickle=False) as saved:
                step = int(saved["step"])
                leaves = [saved[str(i)] for i in range(len(saved.files) - 1)]
            tables = {name: read_table(self.folder / f"{name}.parquet") for name in names}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        shapes = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(like)]
        if shapes != [(leaf.shape, leaf.dtype) for leaf in leaves]:
            return None
        return step, jax.tree.unflatten(jax.tree.structure(like), leaves), tables

    def finish(self, tables: dict[str, Frame]) -> None:
        """Stores the final tables, says that they are final, and drops the state.

        After a kill before that the state is still there, and the chunk ends once more from it.
        """
        for name, table in tables.items():
            write_table(self.folder / f"{name}.parquet", table)
        write_json(self.folder / "finished.json", sorted(tables))
        (self.folder / "state.npz").unlink(missing_ok=True)

    def discard(self) -> None:
        """Deletes the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Store:
    """A study's folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @property
    def info(self) -> dict[str, Any]:
        """The content of study.json.

        Raises:
          ValueError: there is no study in the folder, its study.json is damaged, or of another version of this package.
        """
        path = self.folder / "study.json"
        if not path.exists():
            raise ValueError(
                f"{self.folder} holds no study (no study.json): name the folder that `cnnjax run` printed"
            )
        try:
            info = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            remedy = (
                "without it nobody knows what the tables are of: delete the folder and run the study again"
            )
            raise ValueError(f"{path} is damaged ({error}); {remedy}") from error
        written = info.get("format") if isinstance(info, dict) else None
        if written != FORMAT:
            remedy = "read it with the version that wrote it, or choose another folder with --out"
            raise ValueError(f"{path} has format {written}, this version reads {FORMAT}; {remedy}")
        return info

    def table(self, name: str) -> Frame:
        """One of `TABLES`.

        Raises:
          ValueError: it is not there yet, or damaged.
        """
        path = self.folder / f"{name}.parquet"
        if not path.exists():
            raise ValueError(f"{path} does not exist yet: run the study first")
        table = read_table(path)
        if absent := [key for key in KEYS[name] if key not in table]:
            raise ValueError(
                f"{path} has no column {absent[0]!r}: it was not written by cnnjax; delete it and run the study again"
            )
        return table

    def open(self, info: dict[str, Any]) -> dict[str, Any]:
        """Prepares the folder for a study: fresh, or one of the very same configuration that is to go on.

        Args:
          info: what study.json would say of a fresh one.

        Returns:
          What study.json says: `info`, or where the study was there, that with the time it took so far; a finished one
          as it is.

        Raises:
          ValueError: the folder holds a study of another configuration, or a damaged file. Nothing is changed then.
        """
        if (self.folder / "study.json").exists():
            old = self.info
            self._check_same(old, info)
            if old["finished"]:
                return old
            info = info | {
                "started": old["started"],
                "seconds": old["seconds"],
                "earlier": _earlier(old, info),
            }
        elif (self.folder / "parts").exists():
            raise ValueError(
                f"{self.folder} holds results of a study that nobody can tell, because its study.json is missing; choose "
                "another folder with --out, or delete this one"
            )
        for path in sorted((self.folder / "parts").glob("*/*.parquet")):
            try:
                pyarrow.parquet.read_metadata(path)
            except (pyarrow.ArrowException, OSError):
                read_table(path)
        sweep(self.folder)
        self.write_info(info)
        return info

    def holds(self, config: dict[str, Any], names: Sequence[str]) -> bool:
        """Whether there is a finished study of this configuration, with these tables.

        Raises:
          ValueError: study.json is damaged, or of another version of this package.
        """
        if not (self.folder / "study.json").exists():
            return False
        info = self.info
        return info["config"] == config and bool(info["finished"]) and self.whole(names)

    def whole(self, names: Sequence[str]) -> bool:
        """Whether these tables are there and can be read."""
        try:
            for name in names:
                pyarrow.parquet.read_metadata(self.folder / f"{name}.parquet")
        except (pyarrow.ArrowException, OSError):
            return False
        return True

    def write_info(self, info: dict[str, Any]) -> None:
        """Writes study.json."""
        write_json(self.folder / "study.json", info)

    def _check_same(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        remedy = "choose another folder with --out, or delete this one"
        before, after = old["config"], new["config"]
        keys = sorted(k for k in before | after if before.get(k) != after.get(k))
        if keys:
            changes = "; ".join(f"{k}: {before.get(k)!r} there, {after.get(k)!r} now" for k in keys)
            raise ValueError(f"{self.folder} holds a study of another configuration ({changes}); {remedy}")

    def part(self, name: str) -> Part:
        """The part of one chunk."""
        return Part(self.folder / "parts" / name)

    def merge(self, missing: Frame, finish: Callable[[Frame], pd.DataFrame]) -> None:
        """Writes the study's tables from those of its parts, without the columns that only parts need.

        Args:
          missing: a row for each run that no part has finished.
          finish: applied to the table of all runs.
        """
        found: dict[str, list[Frame]] = {name: [] for name in TABLES}
        for folder in sorted((self.folder / "parts").iterdir()) if (self.folder / "parts").exists() else ():
            for name in TABLES:
                if (folder / f"{name}.parquet").exists():
                    found[name].append(read_table(folder / f"{name}.parquet"))
        done = pd.concat(found["runs"]) if found["runs"] else missing.iloc[:0]
        open_runs = missing[~missing["run"].isin(done["run"])]
        tables = {"runs": finish(pd.concat([done, open_runs]) if len(open_runs) else done)}
        for name in TABLES[1:]:
            if found[name]:
                tables[name] = pd.concat(found[name]).drop(columns=[*OWN_COLUMNS], errors="ignore")
        for name, table in tables.items():
            keys = [key for key in ("run", "step", "layer", "measure", "index") if key in table]
            write_table(self.folder / f"{name}.parquet", table.sort_values(keys, ignore_index=True))


def _earlier(old: dict[str, Any], new: dict[str, Any]) -> list[dict[str, Any]]:
    """The environments, other than the new one, in which parts of a study were computed."""
    last = {name: old[name] for name in ENVIRONMENT}
    now = {name: new[name] for name in ENVIRONMENT}
    found = [*old["earlier"], last]
    return [
        environment
        for i, environment in enumerate(found)
        if environment != now and environment not in found[:i]
    ]
