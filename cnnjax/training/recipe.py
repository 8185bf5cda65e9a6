"""A recipe: everything that decides the numbers of a training run, as typed data that a file can hold."""

import dataclasses
import functools
import typing
from collections.abc import Mapping, Sized
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import optax

from cnnjax import models
from cnnjax.data import Dataset, StreamedDataset, load, open_stream
from cnnjax.data.dataset import LabelKind
from cnnjax.functional.names import lookup
from cnnjax.optim import Optimizer, Schedule
from cnnjax.optim.schedules import Duration, in_steps
from cnnjax.training.augmentation import Augmentation
from cnnjax.training.placement import Placement
from cnnjax.training.plan import Plan
from cnnjax.training.step import Trainer
from cnnjax.training.streamed import Streaming

PRECISIONS = {"float32": None, "bfloat16": jnp.dtype("bfloat16")}
# What does not change the numbers may change when a run goes on.
FREE = ("placement", "tensorboard", "keep_last", "keep_best", "streaming.workers", "streaming.prefetched")


class Images(Protocol):
    """What a recipe needs to know of a data set, whether its images are there or not."""

    @property
    def name(self) -> str: ...
    @property
    def train(self) -> Sized: ...
    @property
    def num_classes(self) -> int: ...
    @property
    def image_shape(self) -> tuple[int, int, int]: ...
    @property
    def label_kind(self) -> LabelKind: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained on what, how, and how long. Lengths are numbers of steps, or texts as "5 epochs".

    Attributes:
      model: a name in `models.names()`.
      options: of the model. Number of classes and `dtype` come from the data and `precision`.
      data: a name that `data.load` knows, or, with an `image_size`, one that `data.open_stream` knows: a folder of images
        or a set that is larger than memory.
      image_size: of streamed images, in pixels; None loads the whole set onto the devices.
      subset: training examples to use; None for all.
      validation: share of the training images that is cut off for validation; None for a fifth, or 2,000 if that is less.
      duration: of the run.
      batch_size: of all devices together.
      seed: of everything that is random.
      learning_rate: the highest.
      schedule: of the learning rate.
      optimizer: what makes updates of gradients.
      augmentation: of the training images.
      loss: one of `LOSSES`; where images may show several classes "binary_cross_entropy" or "focal".
      label_smoothing: share of each label that is spread evenly over the classes, or over present and absent.
      averaging: decay of the moving averages of parameters and running statistics, which are what is evaluated; 0 for none.
      dropout: rate, of a model that has it; None leaves the model's own.
      drop_path: rate of stochastic depth, of a model that has it; None leaves the model's own.
      precision: of the computation: "float32" or "bfloat16"; parameters, norms' statistics and losses are float32 always.
      remat: compute activations anew in the backward pass instead of keeping them, in a model that can.
      views: of each image in evaluation, one of `VIEWS`.
      on_nonfinite: what follows a step that is not finite: "stop", or "skip" its update and go on.
      record_every: between two records.
      evaluate_every: between two evaluations on the validation split.
      checkpoint_every: between two checkpoints.
      probe_every: between two looks into every layer; 0 for none.
      keep_last, keep_best: checkpoints that are kept, by step and by validation accuracy (of labels of several
        classes by mean average precision).
      tensorboard: write event files for TensorBoard, too.
      streaming: how streamed images are read.
      placement: on which devices.
    """

    model: str = "lenet5"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data: str = "digits"
    image_size: int | None = None
    subset: int | None = None
    validation: float | None = None
    duration: Duration = "10 epochs"
    batch_size: int = 128
    seed: int = 0
    learning_rate: float = 0.1
    schedule: Schedule = Schedule()
    optimizer: Optimizer = Optimizer()
    augmentation: Augmentation = Augmentation()
    loss: str = "cross_entropy"
    label_smoothing: float = 0.0
    averaging: float = 0.0
    dropout: float | None = None
    drop_path: float | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    remat: bool = False
    views: str = "none"
    on_nonfinite: Literal["stop", "skip"] = "stop"
    record_every: Duration = 100
    evaluate_every: Duration = "1 epoch"
    checkpoint_every: Duration = "1 epoch"
    probe_every: Duration = 0
    keep_last: int = 2
    keep_best: int = 1
    tensorboard: bool = False
    streaming: Streaming = Streaming()
    placement: Placement = Placement()

    def __post_init__(self):
        lookup(models.VARIANTS, self.model, "model")
        lookup(PRECISIONS, self.precision, "precision")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        for name, source in (("num_classes", "the data"), ("dtype", "precision")):
            if name in self.options:
                raise ValueError(f"options cannot set {name}, which comes from {source}")

    def config(self) -> dict[str, Any]:
        """As JSON, all of it."""
        return _plain(self)

    def settings(self) -> dict[str, Any]:
        """As JSON, without what may change when a run goes on."""
        found = self.config()
        for path in FREE:
            *outer, name = path.split(".")
            del functools.reduce(lambda tree, part: tree[part], outer, found)[name]
        return found

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Recipe":
        """The inverse of `config`.

        Raises:
          ValueError: it has a field that this version does not know.
        """
        return _built(cls, config)

    def load(self) -> Dataset | StreamedDataset:
        """The data set.

        Raises:
          FileNotFoundError, ValueError: as `data.load` and `data.open_stream` do.
        """
        options: dict[str, Any] = dict(subset=self.subset, validation=self.validation)
        if self.image_size is None:
            return load(self.data, **options)
        return open_stream(self.data, image_size=self.image_size, **options)

    def make_model(self, dataset: Images) -> models.Model:
        """The model for a data set.

        Raises:
          TypeError, ValueError: an option does not fit the model, or the images do not.
        """
        chosen = {**self.options, "num_classes": dataset.num_classes, "dtype": PRECISIONS[self.precision]}
        for name in ("dropout", "drop_path", "remat"):
            if (value := getattr(self, name)) not in (None, False):
                lookup(models.options(self.model), name, f"option of {self.model}")
                chosen[name] = value
        model = models.create(self.model, **chosen)
        check_images(model, self.model, dataset)
        return model

    def make_plan(self, dataset: Images) -> Plan:
        """The lengths in steps.

        Raises:
          ValueError: a length is none, or out of range.
        """
        steps = self.steps_per_epoch(dataset)
        names = ("record_every", "evaluate_every", "checkpoint_every", "probe_every")
        every = {name: in_steps(getattr(self, name), steps) for name in names}
        return Plan(steps=in_steps(self.duration, steps), batch_size=self.batch_size, seed=self.seed, **every)

    def make_rate(self, dataset: Images) -> optax.Schedule:
        """The learning rate as a function of the step.

        Raises:
          ValueError: an unknown schedule, or one that is longer than the run.
        """
        steps = self.make_plan(dataset).steps
        return self.schedule.make(
            self.learning_rate, steps=steps, steps_per_epoch=self.steps_per_epoch(dataset)
        )

    def make_trainer(self, dataset: Images) -> Trainer:
        """What is trained and how.

        Raises:
          TypeError, ValueError: a choice is unknown, out of range, or does not fit.
        """
        rate, accumulated = self.make_rate(dataset), self.optimizer.accumulate
        return Trainer(
            model=self.make_model(dataset),
            # The optimizer counts updates, of which there are fewer than steps where gradients are accumulated.
            optimizer=self.optimizer.make(lambda updates: rate(updates * accumulated)),
            num_classes=dataset.num_classes,
            label_kind=dataset.label_kind,
            loss=self.loss,
            label_smoothing=self.label_smoothing,
            augmentation=self.augmentation,
            frozen=self.optimizer.frozen,
            averaging=self.averaging,
            on_nonfinite=self.on_nonfinite,
            views=self.views,
        )

    def steps_per_epoch(self, dataset: Images) -> int:
        """Whole batches in the training split.

        Raises:
          ValueError: it has less than one.
        """
        size = len(dataset.train)
        if not 1 <= self.batch_size <= size:
            raise ValueError(
                f"{dataset.name} has {size} training images here: a batch_size from 1 to that is expected, got "
                f"{self.batch_size}"
            )
        return size // self.batch_size


def check_images(model: models.Model, name: str, dataset: Images) -> None:
    """Raises ValueError where a model cannot take the images of a data set."""
    shape, own = dataset.image_shape, models.VARIANTS[name].image
    if len(own) != 3:
        raise ValueError(
            f"{name} takes inputs of shape {own}, and {dataset.name} has images of shape {shape}"
        )
    try:
        jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), jnp.float32))
    except (TypeError, ValueError, ZeroDivisionError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{name} cannot take the images of {dataset.name}, {shape} ({reason}): its own size is {own}; choose larger "
            "images, a model for small ones, or options such as padding=SAME or stem=cifar where it has them"
        ) from error


def _plain(value: Any) -> Any:
    """Dataclasses, mappings and sequences as JSON has them."""
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _built(kind: type, config: Mapping[str, Any]) -> Any:
    """A dataclass from what `_plain` made of it."""
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    found = {}
    for name, value in config.items():
        lookup(fields, name, f"field of {kind.__name__}")
        if dataclasses.is_dataclass(hints[name]):
            value = _built(hints[name], value)
        found[name] = tuple(value) if isinstance(value, list) else value
    return kind(**found)
