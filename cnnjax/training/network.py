"""The network of a run, taken up again: to evaluate it, to ask it, to export it."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from cnnjax.data.dataset import LabelKind
from cnnjax.training import journal
from cnnjax.training.checkpoints import Checkpoints
from cnnjax.training.engine import Engine
from cnnjax.training.feed import Keys
from cnnjax.training.labels import LABELS
from cnnjax.training.loop import CHECKPOINTS, feed_of
from cnnjax.training.parallel import make_mesh
from cnnjax.training.placement import Placement
from cnnjax.training.recipe import Images, Recipe
from cnnjax.training.step import Moments, Trainer, TrainState


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
    label_kind: LabelKind

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


def trained(folder: Path, *, which: str | int = "last") -> Trained:
    """The network of a run.

    Args:
      folder: of the run.
      which: its newest checkpoint ("last"), the best one on the validation split ("best"), or that of a step.

    Raises:
      ValueError: the folder holds no run, or one that this version cannot read.
      FileNotFoundError: it has no such checkpoint that is whole.
    """
    info = journal.read_info(folder)
    recipe, data = Recipe.of(info["recipe"]), Described.of(info["data"])
    trainer: Trainer = recipe.make_trainer(data)
    like = state_shapes(trainer, data)
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


def probabilities_of(found: Trained, images: np.ndarray) -> np.ndarray:
    """The probabilities `(n, classes)` that `logits_of` stand for: of one of the classes, or of each by itself."""
    return np.asarray(LABELS[found.data.label_kind].predicted(jax.numpy.asarray(logits_of(found, images))))


def state_shapes(trainer: Trainer, dataset: Images) -> TrainState:
    """Shapes and types of a trainer's state for the images of a data set."""
    images = jax.ShapeDtypeStruct((1, *dataset.image_shape), jax.numpy.float32)
    return jax.eval_shape(trainer.initial, jax.random.key(0), images)


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
