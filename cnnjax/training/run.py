"""A run in a folder: begun from a recipe, gone on with, and taken up again by what evaluates or exports it."""

import contextlib
import dataclasses
import datetime
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from cnnjax import functional as F
from cnnjax import machine
from cnnjax.data import Dataset, StreamedDataset
from cnnjax.training import hosts, journal
from cnnjax.training.checkpoints import Checkpoints, Taken
from cnnjax.training.engine import Engine
from cnnjax.training.feed import Keys
from cnnjax.training.loop import CHECKPOINTS, Watcher, feed_of, train
from cnnjax.training.parallel import make_mesh
from cnnjax.training.placement import Placement
from cnnjax.training.recipe import Images, Recipe
from cnnjax.training.step import Moments, Trainer, TrainState

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


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Described:
    """A data set without its images, as run.json describes it."""

    name: str
    train: range
    validation: range
    test: range
    num_classes: int
    image_shape: tuple[int, int, int]
    mean: np.ndarray
    std: np.ndarray
    class_names: Sequence[str]

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> "Described":
        """From the entry "data" of run.json."""
        found = {field.name: info[field.name] for field in dataclasses.fields(cls)}
        sizes = {name: range(found[name]) for name in ("train", "validation", "test")}
        moments = {name: np.asarray(found[name], np.float32) for name in ("mean", "std")}
        return cls(**{**found, **sizes, **moments, "image_shape": tuple(found["image_shape"])})


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """A network out of a run's folder.

    Attributes:
      info: what run.json holds.
      recipe: by which it was trained.
      trainer: that the recipe makes.
      data: that it was trained on.
      step: of the checkpoint.
      state: that the checkpoint holds.
      passed_over: newer checkpoints that are damaged, with the reason.
    """

    info: Mapping[str, Any]
    recipe: Recipe
    trainer: Trainer
    data: Described
    step: int
    state: TrainState
    passed_over: Sequence[str]

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self.trainer.model

    @property
    def variables(self) -> dict[str, Any]:
        """Parameters and running statistics; their moving averages where there are such."""
        return self.state.variables(averaged=True)

    @property
    def moments(self) -> Moments:
        """By which its images are normalized."""
        return Moments(jax.numpy.asarray(self.data.mean), jax.numpy.asarray(self.data.std))


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


def trained(folder: Path, *, which: str | int = "last") -> Trained:
    """The network of a run.

    Args:
      folder: of the run.
      which: its newest checkpoint ("last"), the one with the highest validation accuracy ("best"), or that of a step.

    Raises:
      ValueError: the folder holds no run, or one that this version cannot read.
      FileNotFoundError: it has no such checkpoint that is whole.
    """
    info = journal.read_info(folder)
    recipe, data = Recipe.of(info["recipe"]), Described.of(info["data"])
    trainer: Trainer = recipe.make_trainer(data)
    like = _state_shapes(trainer, data)
    if not (folder / CHECKPOINTS).is_dir():
        raise FileNotFoundError(
            f"{folder} holds no checkpoint yet: go on with the run (cnnjax resume {folder})"
        )
    with Checkpoints(folder / CHECKPOINTS, last=recipe.keep_last, best=recipe.keep_best) as checkpoints:
        found = checkpoints.restore(like, step=_step(which, checkpoints))
    return Trained(
        info=info,
        recipe=recipe,
        trainer=trainer,
        data=data,
        step=found.step,
        state=found.tree,
        passed_over=found.passed_over,
    )


def evaluate(found: Trained, split: str, *, views: str | None = None) -> dict[str, Any]:
    """What a network does on a split of the data it was trained on, over all devices: `Tally.report`.

    Args:
      found: from `trained`.
      split: "train", "validation" or "test".
      views: of each image, one of `VIEWS`; None for those of its recipe.

    Raises:
      ValueError: there are no such views, or the split is empty.
      FileNotFoundError: the data set is not there.
    """
    recipe = found.recipe
    dataset, placement = recipe.load(), Placement()
    if not len(getattr(dataset, split)):
        raise ValueError(f"the {split} split of {dataset.name} is empty in this run: name another one")
    trainer = found.trainer if views is None else dataclasses.replace(found.trainer, views=views)
    keys, mesh = Keys.of(recipe.seed), make_mesh()
    with contextlib.closing(
        feed_of(trainer, dataset, recipe.make_plan(dataset), keys, mesh, recipe.streaming)
    ) as feed:
        engine = Engine(trainer, feed, keys, placement, mesh)
        return engine.evaluate(jax.device_put(found.state, engine.places), split).report()


def logits_of(found: Trained, images: np.ndarray) -> np.ndarray:
    """The logits `(n, classes)` of images `(n, height, width, channels)` in uint8, averaged over the recipe's views."""
    return np.asarray(jax.jit(found.trainer.logits)(found.variables, images, found.moments))


def check_new(folder: Path) -> None:
    """Raises ValueError where a folder holds something, or is a file."""
    if blocked := next((path for path in (folder, *folder.parents) if path.is_file()), None):
        raise ValueError(f"{blocked} is a file: choose another folder with --out")
    if (folder / journal.RUN).exists():
        raise ValueError(
            f"{folder} holds a run already: go on with it (cnnjax resume {folder}), or choose another folder with --out"
        )
    if folder.is_dir() and any(path.name != ".lock" for path in folder.iterdir()):
        raise ValueError(f"{folder} is not empty, and holds no run: choose another folder with --out")


def _step(which: str | int, checkpoints: Checkpoints) -> int | None:
    """The step of a checkpoint, None for the newest."""
    if which == "last":
        return None
    if which == "best":
        if checkpoints.best is None:
            raise FileNotFoundError(
                f"{checkpoints.folder} has no best one: it was never evaluated; take the last"
            )
        return checkpoints.best
    if not str(which).isdecimal():
        raise ValueError(f"the checkpoint {which!r} is neither 'last' nor 'best' nor a step")
    return int(which)


def _state_shapes(trainer: Trainer, dataset: Images) -> TrainState:
    images = jax.ShapeDtypeStruct((1, *dataset.image_shape), jax.numpy.float32)
    return jax.eval_shape(trainer.initial, jax.random.key(0), images)


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
    shapes = _state_shapes(trainer, dataset)
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
            "notes": list(dataset.notes),
        },
        "parameters": F.parameter_count(shapes["params"]),
        "steps_per_epoch": recipe.steps_per_epoch(dataset),
    }
