"""Does what a network has learned from half of the digits help it with the other half, when labels are few?

A small residual network learns the classes 0 to 4. Its features are then taken to the classes 5 to 9 with 1, 3, 10 and 30
labels each, in four ways: fine-tuned (a new head, then everything is trained), frozen (only the new head is trained, by the
same loop), as a linear probe (logistic regression on the cached features, its penalty chosen by cross-validation among
the few labels), and not at all (from scratch). A probe of an untrained network of the same shape says what comes from the
features having been learned. Two phases are more than a `Study` can say, so this is a script.

Papers: Yosinski et al. 2014 (arXiv:1411.1792); Kornblith et al. 2019 (arXiv:1805.08974).
Settings: the learning rates of fine-tuned, frozen and from scratch are chosen for each number of labels on the validation
split of the classes 5 to 9, by mean accuracy over the seeds (its labels are used for nothing else); the probes need none.
Command: `python experiments/transfer.py`, `--quick` for a look, `--data mnist` for larger images. A run that was killed goes
on where it was, seed by seed.
Cost: 10 seeds take 5 minutes of processor time (311 s; JAX 0.10.2).
Expected: with one label everything that was learned before is better than from scratch, and the frozen features no worse
than fine-tuned ones; with 30 labels fine-tuned is best, and from scratch has caught up with the frozen features.
Found: not so. Test accuracy in % with 1, 3, 10 and 30 labels: from scratch 63.1, 78.1, 89.6, 94.9; fine-tuned 60.8, 79.3,
90.9, 96.6; frozen 53.1, 68.5, 79.8, 86.6; linear probe 49.8, 69.5, 83.1, 90.2; probe of the untrained network 48.7, 70.3,
82.8, 89.1. Fine-tuning gains 1.7 [0.2, 3.1] points over from scratch with 30 labels and 1.3 [0.1, 2.6] with 10 (each without
correction for the others), nothing that shows with 1 and 3. Frozen features lose 5 to 13 points at every number of
labels, and are no better than untrained ones: 1.1 [-4.1, 6.3], -0.8 [-7.3, 5.8], 0.3 [-2.9, 3.6], 1.1 [-1.7, 4.0]. Five
classes of clean 8x8 digits, known to 99.1 %, teach this network next to nothing about the other five. 95 % intervals over
10 seeds, all on the same 179 test images; 2026-11-21, JAX 0.10.2, Python 3.11.7. (A first run with 150 steps and rates up to
0.1 chose the largest rate for the frozen features, so the rates were moved up; fine-tuning had shown no gain there.)
"""

import dataclasses
import functools
import itertools
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
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

from cnnjax import data, machine, models, training
from cnnjax import functional as F
from cnnjax.files import locked, replacing, sweep
from cnnjax.frame import Frame
from cnnjax.report import style
from cnnjax.study import statistics
from cnnjax.study.store import read_table, write_json, write_table

SCRATCH = "from scratch"
TUNED = {
    SCRATCH: training.freeze(()),
    "fine-tuned": training.freeze(()),
    "frozen": training.freeze("**", but="head"),
}
"""The methods that train by steps, and what stays fixed in them."""
METHODS = (*TUNED, "linear probe", "untrained probe")


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
    learning_rates: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03)
    """Tried in every training on the new classes."""
    source_learning_rate: float = 0.1
    """On the first half of the classes."""
    source_steps: int = 300
    """On the first half of the classes."""
    steps: int = 100
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

    def config(self) -> dict[str, Any]:
        """What decides the numbers of one seed, as JSON has it."""
        fields = dataclasses.asdict(self)
        return json.loads(json.dumps({k: v for k, v in fields.items() if k not in ("seeds", "out", "quick")}))


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

    def at(self, rows: Any) -> "Examples":
        """Some of them."""
        return Examples(self.images[rows], self.labels[rows])


class Half(NamedTuple):
    """Half of the classes, and the network for them."""

    train: Examples
    validation: Examples
    test: Examples
    model: models.Model


def halves(options: Options) -> tuple[Half, Half]:
    """The first and the second half of the classes."""
    dataset = data.load(options.data)
    mean, std = jnp.asarray(dataset.mean), jnp.asarray(dataset.std)
    splits = (dataset.train, dataset.validation, dataset.test)

    def examples(split: data.Split, first: int, last: int) -> Examples:
        rows = np.flatnonzero((split.labels >= first) & (split.labels < last))
        images = data.normalize(jnp.asarray(split.images[rows]), mean, std)
        return Examples(np.asarray(images), split.labels[rows] - first)

    def half(first: int, last: int) -> Half:
        size = dict(depth=options.depth, width=options.width)
        model = models.create(options.model, **size, norm="batch", num_classes=last - first)
        return Half(*(examples(split, first, last) for split in splits), model=model)

    middle = dataset.num_classes // 2
    return half(0, middle), half(middle, dataset.num_classes)


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


@functools.partial(jax.jit, static_argnames="model")
def initial(key: jax.Array, images: jax.Array, *, model: models.Model) -> Any:
    """The variables of an untrained network."""
    return model.init(key, images)


@functools.partial(jax.jit, static_argnames=("model", "frozen", "steps", "batch_size"))
def train(
    variables: Any,
    examples: Examples,
    size: jax.Array | int,
    rate: jax.Array | float,
    key: jax.Array,
    *,
    model: models.Model,
    frozen: training.Freeze,
    steps: int,
    batch_size: int,
) -> Any:
    """The variables after SGD on batches that are drawn with replacement from the first `size` examples."""
    optimizer = frozen.optimizer(optax.sgd(optax.cosine_decay_schedule(rate, steps), momentum=0.9))

    def loss(params: Any, stats: Any, batch: Examples) -> tuple[jax.Array, Any]:
        made = {"params": params, "batch_stats": stats}
        logits, new = frozen.apply(model, made, batch.images, train=True, mutable=["batch_stats"])
        return F.cross_entropy(logits, batch.labels).mean(), new["batch_stats"]

    def step(state: tuple, index: jax.Array) -> tuple[tuple, None]:
        params, stats, memory = state
        drawn = jax.random.randint(jax.random.fold_in(key, index), (batch_size,), 0, size)
        gradients, stats = jax.grad(loss, has_aux=True)(params, stats, examples.at(drawn))
        updates, memory = optimizer.update(gradients, memory, params)
        return (optax.apply_updates(params, updates), stats, memory), None

    params, stats = variables["params"], variables["batch_stats"]
    state = (params, stats, optimizer.init(params))
    (params, stats, _), _ = jax.lax.scan(step, state, jnp.arange(steps))
    return {"params": params, "batch_stats": stats}


@functools.partial(jax.jit, static_argnames="model")
def accuracy(variables: Any, examples: Examples, *, model: models.Model) -> jax.Array:
    """The share of right answers."""
    logits = jax.lax.map(
        lambda image: model.apply(variables, image[None], train=False)[0], examples.images, batch_size=250
    )
    return F.accuracy(logits, examples.labels).astype(jnp.float32).mean()


def one_seed(options: Options, source: Half, target: Half, seed: int, say: Callable[[str], object]) -> Frame:
    """A row for each method, number of shots and learning rate; `say` hears what is computed."""
    say("the first half")
    start, batches, head, key = jax.random.split(jax.random.key(seed), 4)
    image, size = source.train.images[:1], len(source.train.labels)
    length = dict(steps=options.source_steps, batch_size=options.batch_size)
    rate, nothing = options.source_learning_rate, training.freeze(())
    before = initial(start, image, model=source.model)
    after = train(before, source.train, size, rate, batches, model=source.model, frozen=nothing, **length)
    untrained, trained = (training.replace_head(made, target.model, head, image) for made in (before, after))
    labeled = target.train.at(support(target.train.labels, max(options.shots), seed))
    rows: list[dict[str, Any]] = []
    for method, frozen in TUNED.items():
        say(method)
        made = untrained if method == SCRATCH else trained
        rows += [{"method": method, **row} for row in tuned(options, target, made, labeled, frozen, key)]
    for method, made in (("linear probe", trained), ("untrained probe", untrained)):
        say(method)
        rows += [{"method": method, **row} for row in probed(options, target, made, labeled)]
    reached = float(accuracy(after, source.test, model=source.model))
    return pd.DataFrame(rows).assign(seed=seed, source_accuracy=reached)


def tuned(
    options: Options, half: Half, variables: Any, labeled: Examples, frozen: training.Freeze, key: jax.Array
) -> Iterator[dict[str, float]]:
    """Accuracies after training on the first labeled examples, by number of shots and learning rate."""
    model = half.model
    length = dict(steps=options.steps, batch_size=options.batch_size)
    for shots, rate in itertools.product(options.shots, options.learning_rates):
        size = shots * model.num_classes
        made = train(variables, labeled, size, rate, key, model=model, frozen=frozen, **length)
        yield {
            "shots": shots,
            "learning_rate": rate,
            "validation_accuracy": float(accuracy(made, half.validation, model=model)),
            "test_accuracy": float(accuracy(made, half.test, model=model)),
        }


def probed(options: Options, half: Half, variables: Any, labeled: Examples) -> Iterator[dict[str, float]]:
    """Accuracies of linear classifiers on a network's features, by number of shots."""
    known = training.embed(half.model, variables, labeled.images)
    unknown = training.embed(half.model, variables, half.test.images)
    for shots in options.shots:
        size = shots * half.model.num_classes
        classifier = training.fit_linear(known[:size], labeled.labels[:size])
        yield {"shots": shots, "test_accuracy": float(classifier.score(unknown, half.test.labels))}


def prepare(options: Options) -> None:
    """Makes the folder, or finds it as a run with the same options left it.

    Raises:
      ValueError: it is of a run with other options.
    """
    file, config = options.out / "transfer.json", options.config()
    before = json.loads(file.read_text())["config"] if file.exists() else config
    for key, value in config.items():
        if before.get(key) != value:
            raise ValueError(
                f"{options.out} is of a run with {key} = {before.get(key)}, not {value}: choose another folder with --out, "
                "or delete this one"
            )
    sweep(options.out)
    about = {"versions": machine.versions(), "device": machine.device(jax.devices())}
    write_json(file, {"config": config, **about, "commit": machine.commit()})


def collect(options: Options) -> Frame:
    """The tables of all seeds; what an earlier run has written is not computed again."""
    files = [options.out / "seeds" / f"seed_{seed:03d}.parquet" for seed in range(options.seeds)]
    if missing := [seed for seed, file in enumerate(files) if not file.exists()]:
        compute(options, {seed: files[seed] for seed in missing})
    return pd.concat([read_table(file) for file in files], ignore_index=True)


def compute(options: Options, files: Mapping[int, Path]) -> None:
    """Writes the table of each seed as soon as it is whole."""
    source, target = halves(options)
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(files) * (1 + len(METHODS)))
        for seed, file in files.items():

            def say(stage: str, seed: int = seed) -> None:
                progress.update(task, advance=1, description=f"seed {seed}: {stage}")

            write_table(file, one_seed(options, source, target, seed, say))


def selected(table: Frame) -> Frame:
    """The rows at the learning rate whose mean validation accuracy over the seeds is best, for each method and shots."""
    cell = ["method", "shots"]
    means = table.groupby([*cell, "learning_rate"], dropna=False)["validation_accuracy"].transform("mean")
    # The probes have one row a seed, and no learning rate.
    means = means.fillna(0)
    best = means.groupby([table["method"], table["shots"]]).transform("max")
    return table[means == best].drop_duplicates([*cell, "seed"])


def gains(chosen: Frame) -> Frame:
    """By how much each method is above training from scratch, seed by seed, in the column `gain`."""
    wide = chosen.pivot(index=["shots", "seed"], columns="method", values="test_accuracy")
    above = wide.sub(wide.pop(SCRATCH), axis=0)
    return above.melt(ignore_index=False, value_name="gain").reset_index()


def summary(chosen: Frame) -> Table:
    """Test accuracy and gain over training from scratch, with 95 % intervals over the seeds."""
    table = Table(title=f"Test accuracy in %, {chosen['seed'].nunique()} seeds", title_justify="left")
    shots = sorted(chosen["shots"].unique())
    for title in ("labels for each class", *map(str, shots)):
        table.add_column(title, no_wrap=True)
    for frame, column, prefix in ((chosen, "test_accuracy", ""), (gains(chosen), "gain", "gain: ")):
        table.add_section()
        for method in [method for method in METHODS if (frame["method"] == method).any()]:
            cells = frame[frame["method"] == method].groupby("shots")[column]
            found = [statistics.mean(100 * cells.get_group(number)) for number in shots]
            table.add_row(prefix + method, *(str(estimate).partition(" (")[0] for estimate in found))
    return table


@style.styled
def draw(chosen: Frame, name: str) -> Figure:
    """Accuracy, and gain over training from scratch, by the number of labels; bars are 95 % intervals over the seeds."""
    figure = Figure(figsize=(style.WIDTH, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    colors, markers = list(style.CATEGORIES[: len(METHODS)]), list(style.MARKERS[: len(METHODS)])
    look: Any = dict(
        x="shots", hue="method", hue_order=METHODS, palette=colors, markers=markers, legend=False
    )
    look |= dict(errorbar=interval, dodge=0.35, markersize=4, linewidth=1.1)
    seaborn.pointplot(chosen, y="test_accuracy", ax=left, **look)
    seaborn.pointplot(
        gains(chosen).assign(gain=lambda table: 100 * table["gain"]), y="gain", ax=right, **look
    )
    right.axhline(0, color=colors[METHODS.index(SCRATCH)], lw=1.1)
    for axes, label in ((left, "test accuracy"), (right, f"gain over training {SCRATCH}, points")):
        axes.set(xlabel="labels for each of the new classes", ylabel=label)
    left.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    handles = [
        Line2D([], [], color=color, marker=marker, ms=4, label=method)
        for method, color, marker in zip(METHODS, colors, markers, strict=True)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(METHODS), title=name)
    return figure


def interval(values: Any) -> tuple[float, float]:
    """The 95 % interval of a mean, as seaborn asks for it."""
    estimate = statistics.mean(values)
    if estimate.low is None or estimate.high is None:
        return math.nan, math.nan
    return estimate.low, estimate.high


def report(options: Options, table: Frame) -> None:
    """Writes the table of all runs and the figure, and prints the summary."""
    chosen = selected(table)
    write_table(options.out / "transfer.parquet", table)
    for ending, content in style.render(draw(chosen, f"{options.data}, {options.seeds} seeds")).items():
        with replacing(options.out / f"transfer.{ending}") as temporary:
            temporary.write_bytes(content)
    source = statistics.mean(100 * table.groupby("seed")["source_accuracy"].first())
    # Nothing is cut off where the output is no terminal.
    console = Console(width=max(120, Console().width))
    console.print(summary(chosen))
    console.print(f"On the first half of the classes: {source}. Figure: {options.out / 'transfer.png'}")


def main(args: Sequence[str] | None = None) -> int:
    """Runs what is left of the experiment, and reports it.

    Returns:
      The exit status: 0, 2 for an error, or 130 after an interruption.
    """
    args = sys.argv[1:] if args is None else list(args)
    options = tyro.cli(Options, default=QUICK if "--quick" in args else Options(), args=args)
    try:
        options.check()
        with locked(options.out):
            prepare(options)
            report(options, collect(options))
    except KeyboardInterrupt:
        print("stopped: the same command goes on from here", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        if "CNNJAX_DEBUG" in os.environ:
            raise
        print(f"transfer: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
