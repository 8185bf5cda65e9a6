"""A run in a folder: begun by a recipe, and gone on with."""

import dataclasses
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnnjax import functional as F
from cnnjax import machine
from cnnjax.data import Dataset, StreamedDataset
from cnnjax.training import hosts, journal
from cnnjax.training.checkpoints import Checkpoints, Taken
from cnnjax.training.loop import CHECKPOINTS, train
from cnnjax.training.network import state_shapes
from cnnjax.training.placement import Placement
from cnnjax.training.recipe import Images, Recipe
from cnnjax.training.step import Trainer, TrainState
from cnnjax.training.watcher import Watcher

Start = Callable[[TrainState], TrainState]


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitFrom:
    """Where a run takes its first parameters and running statistics from.

    Attributes:
      folder: of another run, of which the newest checkpoint is taken.
      partial: take the arrays that fit; else all must.
    """

    folder: Path
    partial: bool = False


def begin(
    folder: Path,
    recipe: Recipe,
    *,
    name: str,
    command: str = "",
    init_from: InitFrom | None = None,
    watcher: Watcher = Watcher(),
) -> TrainState:
    """Begins a run in a new folder and trains to its end, or until the watcher stops it.

    Args:
      folder: which holds nothing yet.
      recipe: what is trained.
      name: of the run.
      command: by which it was begun, for the record.
      init_from: first parameters of another run.
      watcher: what is told on the way.

    Raises:
      ValueError: the folder holds something, or the recipe cannot be trained; nothing is written then.
      FileNotFoundError: the data set is not there.
      OSError, Broken: as `train`.
    """
    check_new(folder)
    # Nobody writes before all have looked.
    hosts.barrier("new")
    if init_from is not None:
        journal.read_info(init_from.folder)
    dataset = recipe.load()
    # Everything that can be wrong is found before the folder is made.
    trainer, plan = recipe.make_trainer(dataset), recipe.make_plan(dataset)
    recipe.placement.mesh(plan.batch_size)
    start = _start(init_from, trainer, dataset, watcher)
    if hosts.is_first():
        described = _description(recipe, dataset, trainer, name, command, init_from)
        journal.write_info(folder, {**described, "steps": plan.steps})
    hosts.barrier("begin")
    return _train(folder, recipe, dataset, trainer, start, watcher)


def go_on(folder: Path, *, placement: Placement | None = None, watcher: Watcher = Watcher()) -> TrainState:
    """Goes on with the run in a folder from its newest whole checkpoint.

    Args:
      folder: of the run.
      placement: on which devices; None for those of its recipe.
      watcher: what is told on the way.

    Raises:
      ValueError: the folder holds no run, or one that this version cannot read.
      OSError, Broken: as `train`.
    """
    info = journal.read_info(folder)
    recipe = Recipe.of(info["recipe"])
    if placement is not None:
        recipe = dataclasses.replace(recipe, placement=placement)
    found = info["init_from"]
    dataset = recipe.load()
    trainer = recipe.make_trainer(dataset)
    # What was killed before its first checkpoint begins anew.
    init_from = None
    if found and not (folder / CHECKPOINTS).is_dir():
        init_from = InitFrom(folder=Path(found["folder"]), partial=found["partial"])
    return _train(folder, recipe, dataset, trainer, _start(init_from, trainer, dataset, watcher), watcher)


def check_new(folder: Path) -> None:
    """Raises ValueError where a folder holds something, or is a file."""
    if blocked := next((path for path in (folder, *folder.parents) if path.is_file()), None):
        raise ValueError(f"{blocked} is a file: choose another folder with --out")
    if (folder / journal.RUN).exists():
        raise ValueError(
            f"{folder} holds a run already: go on with it (cnnjax resume {folder}), or choose another folder with --out"
        )
    # A process that was killed leaves its lock, and a file that it was writing.
    left = (".lock", f".{journal.RUN}.*.tmp")
    if folder.is_dir() and any(not any(map(path.match, left)) for path in folder.iterdir()):
        raise ValueError(f"{folder} is not empty, and holds no run: choose another folder with --out")


def _train(
    folder: Path,
    recipe: Recipe,
    dataset: Dataset | StreamedDataset,
    trainer: Trainer,
    start: Start,
    watcher: Watcher,
) -> TrainState:
    return train(
        trainer,
        dataset,
        recipe.make_plan(dataset),
        folder,
        placement=recipe.placement,
        streaming=recipe.streaming,
        learning_rate=recipe.make_rate(dataset),
        keep_last=recipe.keep_last,
        keep_best=recipe.keep_best,
        tensorboard=recipe.tensorboard,
        settings=recipe.settings(),
        start=start,
        watcher=watcher,
    )


def _start(init_from: InitFrom | None, trainer: Trainer, dataset: Images, watcher: Watcher) -> Start:
    """What the first state becomes. The other run is read at once, so that it is known whether it fits."""
    if init_from is None:
        return lambda state: state
    shapes = state_shapes(trainer, dataset)
    like = {"params": shapes.params, "batch_stats": shapes.batch_stats}
    with Checkpoints(init_from.folder / CHECKPOINTS) as checkpoints:
        found, taken = checkpoints.restore_params(like, partial=init_from.partial)
    watcher.note(f"starting from step {taken.step} of {init_from.folder}: {_words(taken)}")

    def placed(old: jax.Array, new: Any) -> jax.Array:
        return old if isinstance(new, jax.ShapeDtypeStruct) else jax.device_put(np.asarray(new), old.sharding)

    def started(state: TrainState) -> TrainState:
        now = {"params": state.params, "batch_stats": state.batch_stats}
        new = jax.tree.map(placed, now, found)
        # A buffer can be donated once only.
        average = {name: jax.tree.map(jax.numpy.copy, new[name]) for name in state.average}
        return state._replace(**new, average=average)

    return started


def _words(taken: Taken) -> str:
    """What was taken of another run, and what was not."""
    others = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (
            ("not there", taken.missing),
            ("of another shape", taken.misshapen),
            ("left there", taken.extra),
        )
        if names
    ]
    return ", ".join([f"{len(taken.taken)} arrays taken", *others])


def _description(
    recipe: Recipe,
    dataset: Dataset | StreamedDataset,
    trainer: Trainer,
    name: str,
    command: str,
    init_from: InitFrom | None,
) -> dict[str, Any]:
    """What run.json says."""
    image = jax.ShapeDtypeStruct((1, *dataset.image_shape), jax.numpy.float32)
    shapes: Any = jax.eval_shape(trainer.model.init, jax.random.key(0), image)
    sizes = {part: len(getattr(dataset, part)) for part in ("train", "validation", "test")}
    return {
        "name": name,
        "recipe": recipe.config(),
        "init_from": init_from and {"folder": str(init_from.folder), "partial": init_from.partial},
        "command": command,
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": machine.versions(),
        "device": machine.device(recipe.placement.chosen()),
        "precision": machine.precision() if recipe.precision == "float32" else recipe.precision,
        "commit": machine.commit(),
        "data": {
            "name": dataset.name,
            **sizes,
            "num_classes": dataset.num_classes,
            "image_shape": list(dataset.image_shape),
            "mean": dataset.mean.tolist(),
            "std": dataset.std.tolist(),
            "class_names": list(dataset.class_names),
            "label_kind": dataset.label_kind,
            "notes": list(dataset.notes),
        },
        "parameters": F.parameter_count(shapes["params"]),
        "steps_per_epoch": recipe.steps_per_epoch(dataset),
    }
