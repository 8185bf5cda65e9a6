"""The verdicts on a study's claims in its folder: `verdicts.json`, written when the study ends."""

import json
from collections.abc import Sequence
from pathlib import Path

from cnnjax.study.claims import Claim, Results, Verdict, evaluate
from cnnjax.study.store import TABLES, Store, write_json

FILE = "verdicts.json"


def judge(claims: Sequence[Claim], store: Store) -> list[Verdict]:
    """Judges claims by the tables of a finished study, and stores the verdicts.

    Raises:
      ValueError: a claim asks for what the tables have not, or its rule fails.
      TypeError: a rule returns something else than a `Measurement`.
    """
    found = [name for name in TABLES if (store.folder / f"{name}.parquet").exists()] if claims else []
    tables = {name: store.table(name) for name in found}
    verdicts = evaluate(claims, Results(store.info, **tables)) if claims else []
    write_verdicts(store.folder, verdicts)
    return verdicts


def read_verdicts(folder: Path) -> list[Verdict]:
    """The verdicts in a study's folder, none where it has no claims.

    Raises:
      ValueError: the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return []
    try:
        return [Verdict.from_json(fields) for fields in json.loads(path.read_text())]
    except (ValueError, KeyError, TypeError) as error:
        remedy = "delete it and run the study's file again: nothing else is computed anew"
        raise ValueError(f"{path} is damaged ({error!r}); {remedy}") from error


def write_verdicts(folder: Path, verdicts: Sequence[Verdict]) -> None:
    """Stores verdicts, atomically, unless the very same are there; none deletes the file."""
    values = [verdict.as_json() for verdict in verdicts]
    path = folder / FILE
    if not values:
        path.unlink(missing_ok=True)
    elif not path.exists() or path.read_text() != json.dumps(values, indent=2) + "\n":
        write_json(path, values)
