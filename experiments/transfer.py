"""Does what a network has learned from half of the digits help it with the other half, when labels are few?

A small residual network learns the classes 0 to 4. Its features are then taken to the classes 5 to 9 with 1, 3, 10 and 30
labels each, in four ways: fine-tuned (a new head, then everything is trained), frozen (only the new head is trained, by the
same loop), as a linear probe (logistic regression on the cached features, its penalty chosen by cross-validation among
the few labels), and not at all (from scratch). A probe of an untrained network of the same shape says what comes from the
features having been learned. Two phases are more than a `Study` can say, so this is a script.

Papers: Yosinski et al. 2014 (arXiv:1411.1792); Kornblith et al. 2019 (arXiv:1805.08974).
Settings: learning rates of fine-tuned, frozen and from scratch are chosen for each number of labels on the validation split
of the classes 5 to 9, by mean accuracy over the seeds (these labels are used for nothing else); the probes need none.
Cost: not measured yet.
Command: `python experiments/transfer.py`, `--quick` for a look, `--data mnist` for larger images. A run that was killed goes
on where it was, seed by seed.
Expected: with one label everything that was learned before is better than from scratch, and the frozen features no worse
than fine-tuned ones; with 30 labels fine-tuned is best, and from scratch has caught up with the frozen features.
"""

import contextlib
import dataclasses
import functools
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import seaborn
import tyro
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cnnjax import data, models, training
from cnnjax import functional as F
from cnnjax.files import locked, replacing, sweep
from cnnjax.frame import Frame
from cnnjax.report import style
from cnnjax.study import RunDevices, environment, one_host_device_per_core, statistics
from cnnjax.study.store import read_table, write_json, write_table

TUNED = {
    "from scratch": training.freeze(()),
    "fine-tuned": training.freeze(()),
    "frozen": training.freeze("**", but="head"),
}
"""What stays fixed in the ways that are trained by steps."""
METHODS = (*TUNED, "linear probe", "untrained probe")
BASELINE = "from scratch"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Train on half of the classes, transfer to the other half with few labels."""

    data: str = "digits"
    """The data set: digits, or one that `cnnjax data prepare` has prepared, of few and small images."""
    seeds: int = 10
    """How many; a seed decides the initial parameters, the batches, and which examples have labels."""
    shots: tuple[int, ...] = (1, 3, 10, 30)
    """Labels for each of the new classes."""
    model: str = "cifar_resnet"
    """The network: cifar_resnet, cifar_preact_resnet, plain or mlp."""
    depth: int = 8
    """Its layers; of a residual network 6n + 2."""
    width: int = 16
    """Channels of its first layer."""
    learning_rates: tuple[float, ...] = (0.1, 0.03, 0.01)
    """Tried in every training on the new classes."""
    source_learning_rate: float = 0.1
    """On the first half of the classes."""
    source_steps: int = 300
    """On the first half of the classes."""
    steps: int = 150
    """On the new classes."""
    batch_size: int = 32
    """Examples a step, drawn with replacement."""
    out: Path = Path("runs/transfer")
    """The folder for table and figure."""
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Toy size, to see that it works; other options are applied on top of it."""

    def check(self) -> None:
        """Raises ValueError for a number that is too small."""
        least = dict(seeds=self.seeds, shots=min(self.shots, default=0), batch_size=self.batch_size)
        least |= dict(source_steps=self.source_steps, steps=self.steps)
        for name, value in least.items():
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}")
        if min(self.learning_rates, default=0) <= 0:
            raise ValueError(f"learning rates must be positive, got {list(self.learning_rates)}")

    def network(self, classes: int) -> models.Model:
        """The network for so many classes, with batch norm."""
        size = dict(depth=self.depth, width=self.width)
        return models.create(self.model, **size, norm="batch", num_classes=classes)

    def as_config(self) -> dict[str, Any]:
        """What decides the numbers of one seed."""
        others = ("seeds", "out", "quick")
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
            if key not in others
        }


QUICK = Options(
    seeds=2,
    shots=(1, 3),
    width=4,
    learning_rates=(0.03,),
    source_steps=20,
    steps=5,
    out=Path("runs/transfer-quick"),
)


class Examples(NamedTuple):
    """Normalized images `(n, height, width, channels)` and labels `(n,)` from 0."""

    images: Any
    labels: Any


class Half(NamedTuple):
    """Half of the classes."""

    train: Examples
    validation: Examples
    test: Examples


class Labeled(NamedTuple):
    """The examples that are trained on: those at the first `size` of `rows`."""

    examples: Examples
    rows: Any
    size: Any


class Networks(NamedTuple):
    """Variables with a head for the new classes, before and after the training on the others, and its test accuracy."""

    untrained: Any
    trained: Any
    source_accuracy: Any


def halves(dataset: data.Dataset) -> tuple[Half, Half]:
    """The first and the second half of the classes."""

    def examples(split: data.Split, first: int, last: int) -> Examples:
        chosen = np.flatnonzero((split.labels >= first) & (split.labels < last))
        images = data.normalize(
            jnp.asarray(split.images[chosen]), jnp.asarray(dataset.mean), jnp.asarray(dataset.std)
        )
        return Examples(np.asarray(images), np.asarray(split.labels[chosen] - first))

    middle = dataset.num_classes // 2
    splits = (dataset.train, dataset.validation, dataset.test)
    source = Half(*(examples(split, 0, middle) for split in splits))
    return source, Half(*(examples(split, middle, dataset.num_classes) for split in splits))


def support(labels: np.ndarray, shots: int, seed: int) -> np.ndarray:
    """Indices `(shots * classes,)`: an example of each class, then another of each, and so on.

    Raises:
      ValueError: a class has too few examples.
    """
    if shots > (least := np.bincount(labels).min()):
        raise ValueError(f"the rarest class has {least} training examples: --shots cannot be {shots}")
    order = np.random.default_rng(seed).permutation(len(labels))
    each = [order[labels[order] == label][:shots] for label in range(labels.max() + 1)]
    return np.stack(each, axis=1).reshape(-1)


def train(
    model: models.Model,
    frozen: training.Freeze,
    variables: Any,
    labeled: Labeled,
    key: jax.Array,
    *,
    rate: jax.Array | float,
    steps: int,
    batch_size: int,
) -> Any:
    """The variables after `steps` of SGD on batches that are drawn with replacement."""
    optimizer = frozen.optimizer(optax.sgd(optax.cosine_decay_schedule(rate, steps), momentum=0.9))

    def loss(params: Any, stats: Any, batch: Examples) -> tuple[jax.Array, Any]:
        made = {"params": params, "batch_stats": stats}
        logits, new = frozen.apply(model, made, batch.images, train=True, mutable=["batch_stats"])
        return F.cross_entropy(logits, batch.labels).mean(), new["batch_stats"]

    def step(state: tuple, index: jax.Array) -> tuple[tuple, None]:
        params, stats, memory = state
        drawn = jax.random.randint(jax.random.fold_in(key, index), (batch_size,), 0, labeled.size)
        batch = jax.tree.map(lambda array: array[labeled.rows[drawn]], labeled.examples)
        gradients, stats = jax.grad(loss, has_aux=True)(params, stats, batch)
        updates, memory = optimizer.update(gradients, memory, params)
        return (optax.apply_updates(params, updates), stats, memory), None

    params, stats = variables["params"], variables["batch_stats"]
    state = (params, stats, optimizer.init(params))
    (params, stats, _), _ = jax.lax.scan(step, state, jnp.arange(steps))
    return {"params": params, "batch_stats": stats}


def right(model: models.Model, variables: Any, examples: Examples) -> jax.Array:
    """1 for each right answer, 0 for each wrong one, `(n,)`."""
    logits = jax.lax.map(
        lambda image: model.apply(variables, image[None], train=False)[0], examples.images, batch_size=250
    )
    return F.accuracy(logits, examples.labels).astype(jnp.float32)


def pretrain(
    options: Options, source: models.Model, target: models.Model, seed: jax.Array, half: Half
) -> Networks:
    """Trains on the first half of the classes."""
    start, batches, head = jax.random.split(jax.random.key(seed), 3)
    images = half.train.images[:1]
    labeled = Labeled(half.train, jnp.arange(len(half.train.labels)), len(half.train.labels))
    length = dict(steps=options.source_steps, batch_size=options.batch_size)
    untrained = source.init(start, images)
    rate, nothing = options.source_learning_rate, training.freeze(())
    trained = train(source, nothing, untrained, labeled, batches, rate=rate, **length)
    with_head = functools.partial(training.replace_head, model=target, key=head, image=images)
    return Networks(with_head(untrained), with_head(trained), right(source, trained, half.test).mean())


def tune(
    options: Options, target: models.Model, frozen: training.Freeze, one: tuple[Any, Any, Any], half: Half
) -> jax.Array:
    """Validation and test accuracy `(shots, learning rates, 2)` after training on few examples of the new classes.

    `one` holds a seed, its variables to start from, and the indices that `support` drew.
    """
    seed, variables, rows = one
    classes, key = target.num_classes, jax.random.fold_in(jax.random.key(seed), 1)
    validation = len(half.validation.labels)
    unseen = jax.tree.map(lambda *parts: jnp.concatenate(parts), half.validation, half.test)

    def cell(numbers: tuple[jax.Array, jax.Array]) -> jax.Array:
        size, rate = numbers
        labeled = Labeled(half.train, rows, size)
        length = dict(steps=options.steps, batch_size=options.batch_size)
        made = train(target, frozen, variables, labeled, key, rate=rate, **length)
        answers = right(target, made, unseen)
        return jnp.stack([answers[:validation].mean(), answers[validation:].mean()])

    shots, rates = jnp.asarray(options.shots), jnp.asarray(options.learning_rates)
    grid = (jnp.repeat(shots * classes, len(rates)), jnp.tile(rates, len(shots)))
    return jax.lax.map(cell, grid).reshape(len(shots), len(rates), 2)


def probe(
    options: Options, target: models.Model, variables: Any, rows: np.ndarray, half: Half
) -> list[float]:
    """Test accuracy of linear classifiers on a network's features, one for each number of shots."""
    labeled = jax.tree.map(lambda array: array[rows], half.train)
    known = training.embed(target, variables, labeled.images)
    unknown = training.embed(target, variables, half.test.images)
    sizes = [shots * target.num_classes for shots in options.shots]
    fitted = [training.fit_linear(known[:size], labeled.labels[:size]) for size in sizes]
    return [float(classifier.score(unknown, half.test.labels)) for classifier in fitted]


class Programs:
    """What is computed, compiled once; the seeds of one call lie on the devices side by side.

    Args:
      options: of the experiment.
      together: the number of seeds of a call.
    """

    stages = ("training on the first half", *TUNED, "probes")

    def __init__(self, options: Options, together: int) -> None:
        dataset = data.load(options.data)
        self.options, self.halves = options, halves(dataset)
        middle = dataset.num_classes // 2
        self.source, self.target = options.network(middle), options.network(dataset.num_classes - middle)
        self.support = functools.partial(support, self.halves[1].train.labels, max(options.shots))
        self.devices = RunDevices(jax.devices()[:together])
        self._shared = self.devices.everywhere(self.halves)
        self._compiled: dict[str, Callable] = {}

    def rows(self, seeds: Sequence[int], say: Callable[[str], object]) -> list[Frame]:
        """A table for each seed: a row for each method, number of shots and learning rate; `say` hears each stage."""
        say(self.stages[0])
        numbers, rows = np.asarray(seeds, np.uint32), np.stack([self.support(seed) for seed in seeds])
        learn = functools.partial(pretrain, self.options, self.source, self.target)
        networks: Networks = self._call("pretrain", learn, numbers, self._shared[0])
        tuned = {}
        for method, frozen in TUNED.items():
            say(method)
            start = networks.untrained if method == BASELINE else networks.trained
            program = functools.partial(tune, self.options, self.target, frozen)
            tuned[method] = self._call(str(frozen), program, (numbers, start, rows), self._shared[1])
        say(self.stages[-1])
        found = []
        for i, seed in enumerate(seeds):
            network = jax.tree.map(lambda array, i=i: np.asarray(array[i]), networks)
            trained = {method: np.asarray(cells[i]) for method, cells in tuned.items()}
            found.append(self._table(seed, network, trained, rows[i]))
        return found

    def _call(self, name: str, function: Callable, many: Any, shared: Half) -> Any:
        many = self.devices.split(many)
        if name not in self._compiled:
            self._compiled[name] = self.devices.compile(function, many, shared)
        return self._compiled[name](many, shared)

    def _table(self, seed: int, network: Networks, tuned: dict[str, np.ndarray], rows: np.ndarray) -> Frame:
        options, found = self.options, []
        for method, cells in tuned.items():
            for i, shots in enumerate(options.shots):
                for rate, (validation, test) in zip(options.learning_rates, cells[i], strict=True):
                    found.append((method, shots, rate, validation, test))
        for method, variables in zip(METHODS[-2:], (network.trained, network.untrained), strict=True):
            scores = probe(options, self.target, variables, rows, self.halves[1])
            found += [
                (method, shots, math.nan, math.nan, score)
                for shots, score in zip(options.shots, scores, strict=True)
            ]
        columns = ["method", "shots", "learning_rate", "validation_accuracy", "test_accuracy"]
        accuracy = float(network.source_accuracy)
        return pd.DataFrame(found, columns=columns).assign(seed=seed, source_accuracy=accuracy)


def prepare(options: Options) -> None:
    """Makes the folder, or finds it as a run with the same options left it.

    Raises:
      ValueError: it is of a run with other options.
    """
    file, config = options.out / "transfer.json", options.as_config()
    if file.exists():
        before = json.loads(file.read_text())["config"]
        if changed := [key for key in config if config[key] != before.get(key)]:
            key = changed[0]
            raise ValueError(
                f"{options.out} is of a run with {key} = {before.get(key)}, not {config[key]}: choose another folder with "
                "--out, or delete this one"
            )
    sweep(options.out)
    about = {"versions": environment.versions(), "device": environment.device(jax.devices())}
    write_json(file, {"config": config, **about, "commit": environment.commit()})


def collect(options: Options, console: Console) -> Frame:
    """The tables of all seeds; what an earlier run has written is not computed again."""
    files = {seed: options.out / "seeds" / f"seed_{seed:03d}.parquet" for seed in range(options.seeds)}
    missing = [seed for seed, file in files.items() if not file.exists()]
    if missing:
        together = min(len(jax.devices()), len(missing))
        programs = Programs(options, together)
        with Progress(console=console) as progress:
            task = progress.add_task("", total=math.ceil(len(missing) / together) * len(programs.stages))
            for first in range(0, len(missing), together):
                seeds = missing[first : first + together]
                # A call has always as many seeds; the last is computed again to fill it.
                filled = [*seeds, *[seeds[-1]] * (together - len(seeds))]

                def say(stage: str, seeds: Sequence[int] = seeds) -> None:
                    progress.update(task, advance=1, description=f"seeds {seeds[0]} to {seeds[-1]}: {stage}")

                for seed, table in zip(seeds, programs.rows(filled, say), strict=False):
                    write_table(files[seed], table)
    return pd.concat([read_table(file) for file in files.values()], ignore_index=True)


def selected(table: Frame) -> Frame:
    """The rows at the learning rate whose mean validation accuracy over the seeds is best, for each method and shots."""
    cell = ["method", "shots"]
    mean = table.groupby([*cell, "learning_rate"], dropna=False)["validation_accuracy"].transform("mean")
    # The probes have no learning rate, and so one row a seed.
    mean = mean.fillna(0)
    best = mean.groupby([table["method"], table["shots"]]).transform("max")
    return table[mean == best].drop_duplicates([*cell, "seed"])


def gains(chosen: Frame) -> Frame:
    """By how much each method is above the baseline, seed by seed, in the column `gain`."""
    keys = ["shots", "seed"]
    baseline = chosen[chosen["method"] == BASELINE].set_index(keys)["test_accuracy"]
    others = chosen[chosen["method"] != BASELINE]
    below = baseline.loc[list(others[keys].itertuples(index=False, name=None))].to_numpy()
    return others.assign(gain=others["test_accuracy"] - below)


def summary(chosen: Frame) -> Table:
    """Test accuracy and gain over the baseline, with 95 % intervals over the seeds."""
    shots = sorted(chosen["shots"].unique())
    table = Table(title=f"Test accuracy in %, {chosen['seed'].nunique()} seeds", title_justify="left")
    table.add_column("labels for each class", no_wrap=True)
    for number in shots:
        table.add_column(str(number), no_wrap=True)

    def add(frame: Frame, column: str, prefix: str = "") -> None:
        for method in (method for method in METHODS if (frame["method"] == method).any()):
            own = frame[frame["method"] == method].groupby("shots")[column]
            table.add_row(prefix + method, *(_text(own.get_group(number)) for number in shots))

    add(chosen, "test_accuracy")
    table.add_section()
    add(gains(chosen), "gain", "gain: ")
    return table


def _text(values: Any) -> str:
    return str(statistics.mean(100 * values)).partition(" (")[0]


@style.styled
def draw(chosen: Frame, name: str) -> Figure:
    """Accuracy and gain over the baseline by the number of labels; bars are 95 % intervals over the seeds."""
    figure = Figure(figsize=(style.WIDTH, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    look: Any = dict(
        palette=list(style.CATEGORIES[: len(METHODS)]), markers=list(style.MARKERS[: len(METHODS)])
    )
    look |= dict(x="shots", hue="method", hue_order=METHODS, dodge=0.35, errorbar=_interval, legend=False)
    seaborn.pointplot(chosen, y="test_accuracy", ax=left, ms=4, lw=1.1, **look)
    seaborn.pointplot(gains(chosen), y="gain", ax=right, ms=4, lw=1.1, **look)
    right.axhline(0, color=style.CATEGORIES[0], lw=1.1)
    for axes, label in ((left, "test accuracy"), (right, f"gain over training {BASELINE}")):
        axes.set(xlabel="labels for each of the new classes", ylabel=label)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    handles = [
        Line2D([], [], color=color, marker=marker, ms=4, label=method)
        for method, color, marker in zip(METHODS, look["palette"], look["markers"], strict=True)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(METHODS), title=name)
    return figure


def _interval(values: Any) -> tuple[float, float]:
    estimate = statistics.mean(values)
    if estimate.low is None or estimate.high is None:
        return math.nan, math.nan
    return estimate.low, estimate.high


def report(options: Options, table: Frame, console: Console) -> None:
    """Writes the table of all runs and the figure, and prints the summary."""
    chosen = selected(table)
    write_table(options.out / "transfer.parquet", table)
    figure = draw(chosen, f"{options.data}, {options.seeds} seeds")
    for ending, content in style.render(figure).items():
        with replacing(options.out / f"transfer.{ending}") as temporary:
            temporary.write_bytes(content)
    source = statistics.mean(100 * table.groupby("seed")["source_accuracy"].first())
    console.print(summary(chosen))
    console.print(f"On the first half of the classes: {source}. Figure: {options.out / 'transfer.png'}")


def main(args: Sequence[str] | None = None) -> int:
    """Runs what is left of the experiment, and reports it.

    Returns:
      The exit status: 0, 2 for an error, or 130 after an interruption.
    """
    args = sys.argv[1:] if args is None else list(args)
    default = QUICK if "--quick" in args else Options()
    options = tyro.cli(Options, default=default, args=args)
    try:
        options.check()
        # JAX raises it once it has started.
        with contextlib.suppress(RuntimeError):
            one_host_device_per_core()
        with locked(options.out):
            prepare(options)
            report(options, collect(options, Console(stderr=True)), Console())
    except KeyboardInterrupt:
        print("stopped: the same command goes on from here", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"transfer: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
