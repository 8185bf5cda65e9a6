"""The pure functions that a program compiles: start a run, advance it by a segment, evaluate it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from cnnjax import functional as F
from cnnjax.data import Split, normalize
from cnnjax.nn import RECORD, SLOTS
from cnnjax.probes import Flow, Recorder
from cnnjax.study.plan import Program

EVALUATION_BATCH = 500


class Data(NamedTuple):
    """The device's copy of a data set: uint8 images, and the training split's moments.

    The splits that are only evaluated come in blocks of one size, padded with labels below 0: one program serves both.
    """

    train: Split
    validation: tuple[Split, ...]
    test: tuple[Split, ...]
    mean: ArrayLike
    std: ArrayLike

    def images(self, images: jax.Array) -> jax.Array:
        """Normalized float32 images."""
        return normalize(images, jnp.asarray(self.mean), jnp.asarray(self.std))


class Numbers(NamedTuple):
    """What differs between the runs of a program; on the run axis each is an array `(runs,)`."""

    seed: ArrayLike
    learning_rate: ArrayLike
    gain: ArrayLike | None
    bias_std: ArrayLike | None


class State(NamedTuple):
    """Everything that one run needs to go on, and whether something in it has not been finite."""

    step: jax.Array
    params: Any
    batch_stats: Any
    optimizer: Any
    broken: jax.Array


class Segment(NamedTuple):
    """What one compiled call returns for one run.

    `first` and `last` are the flows of the first and the last step; `broken_step` is the number of steps of the segment
    before the first at which something was not finite (all of them if none was), `broken_layer` the layer where it began.
    """

    loss: jax.Array
    accuracy: jax.Array
    first: Flow
    last: Flow
    broken_step: jax.Array
    broken_layer: jax.Array


def initial_state(program: Program, initializer: Any, numbers: Numbers, images: jax.Array) -> State:
    """A run before its first step. `images`: a normalized batch, of which only the shape matters."""
    options = {"gain": numbers.gain, "bias_std": numbers.bias_std}
    model = program.make_model(initializer, **{k: v for k, v in options.items() if v is not None})
    variables = model.init(jax.random.key(numbers.seed), images)
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    memory = program.optimizer.make(optax.constant_schedule(numbers.learning_rate)).init(params)
    return State(jnp.zeros((), jnp.int32), params, batch_stats, memory, jnp.zeros((), bool))


def advance(
    program: Program,
    recorder: Recorder,
    total: int,
    state: State,
    numbers: Numbers,
    rows: jax.Array,
    data: Data,
) -> tuple[State, Segment]:
    """Some steps of one run, each recorded in its own pass; a run that broke in an earlier call stays where it is, for free.

    Args:
      program: what is trained.
      recorder: of its model.
      total: steps of the whole schedule.
      state: to go on from.
      numbers: of this run.
      rows: `(steps, batch_size)`, indices of training examples.
      data: on the device.
    """
    model = program.make_model()
    epoch = len(data.train.labels) // program.batch_size
    rate = program.schedule.make(numbers.learning_rate, steps=total, steps_per_epoch=epoch)
    optimizer = program.optimizer.make(rate)
    steps = rows.shape[0]

    def step(state: State, row: jax.Array) -> tuple[State, tuple]:
        images, labels = data.images(data.train.images[row]), data.train.labels[row]
        passed = _differentiate(model, recorder, state, numbers, images, labels)
        updates, memory = optimizer.update(passed.gradients, state.optimizer, state.params)
        flow = recorder.flow(passed.record, passed.slots, state.params, passed.gradients, updates)
        params = optax.apply_updates(state.params, updates)
        broken, layer = _first_broken(flow)
        broken |= ~jnp.isfinite(passed.loss)
        state = State(state.step + 1, params, passed.batch_stats, memory, state.broken | broken)
        return state, (passed.loss, passed.accuracy, flow, broken, layer)

    def train(state: State) -> tuple[State, Segment]:
        state, (loss, accuracy, flows, broken, layer) = jax.lax.scan(step, state, rows)
        at = jnp.argmax(broken)
        segment = Segment(
            loss=jnp.mean(loss),
            accuracy=jnp.mean(accuracy),
            first=jax.tree.map(lambda a: a[0], flows),
            last=jax.tree.map(lambda a: a[-1], flows),
            broken_step=jnp.where(jnp.any(broken), at, steps),
            broken_layer=layer[at],
        )
        return state, segment

    def stay(state: State) -> tuple[State, Segment]:
        def unknown(a: jax.ShapeDtypeStruct) -> jax.Array:
            return jnp.full(a.shape, jnp.nan if jnp.issubdtype(a.dtype, jnp.floating) else 0, a.dtype)

        return state, jax.tree.map(unknown, jax.eval_shape(train, state)[1])

    return jax.lax.cond(state.broken, stay, train, state)


def look(
    program: Program, recorder: Recorder, state: State, numbers: Numbers, rows: jax.Array, data: Data
) -> Flow:
    """The flow of a run on the first of the batches `rows`, without a step."""
    images, labels = data.images(data.train.images[rows[0]]), data.train.labels[rows[0]]
    passed = _differentiate(program.make_model(), recorder, state, numbers, images, labels)
    return recorder.flow(passed.record, passed.slots, state.params, passed.gradients)


def measure(
    program: Program,
    measures: Mapping[str, Callable[..., jax.Array]],
    state: State,
    numbers: Numbers,
    rows: jax.Array,
    data: Data,
) -> dict[str, jax.Array]:
    """The study's own measures of a run on the first of the batches `rows`, at the highest precision."""
    images, labels = data.images(data.train.images[rows[0]]), data.train.labels[rows[0]]
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    variables = {name: tree for name, tree in variables.items() if tree}
    model, key = program.make_model(), jax.random.fold_in(jax.random.key(numbers.seed), 3)
    with jax.default_matmul_precision("highest"):
        return {
            name: jnp.asarray(
                function(model, variables, images, labels, jax.random.fold_in(key, i)), jnp.float32
            )
            for i, (name, function) in enumerate(measures.items())
        }


def evaluate(program: Program, state: State, data: Data, block: Split) -> jax.Array:
    """Sums over a block: of the loss, of the correct answers, and of the examples, `(3,)`; with running statistics."""
    model = program.make_model()
    variables = {"params": state.params, "batch_stats": state.batch_stats}

    def batch(operands: tuple[jax.Array, jax.Array]) -> jax.Array:
        images, labels = operands
        logits: Any = model.apply(variables, data.images(images), train=False)
        safe = jnp.maximum(labels, 0)
        columns = jnp.stack([F.cross_entropy(logits, safe), F.accuracy(logits, safe), jnp.ones(labels.shape)])
        return jnp.sum(jnp.where(labels >= 0, columns, 0), axis=1)

    batches = -(-len(block) // EVALUATION_BATCH)
    pieces = _padded(block, batches * -(-len(block) // batches))
    shaped = [array.reshape(batches, -1, *array.shape[1:]) for array in (pieces.images, pieces.labels)]
    return jnp.sum(jax.lax.map(batch, tuple(shaped)), axis=0)


def blocks_of(split: Split, size: int) -> tuple[Split, ...]:
    """A split in blocks of `size` examples, the last one padded with labels of -1."""
    whole = _padded(split, -(-len(split) // size) * size)
    starts = range(0, len(whole), size)
    return tuple(Split(whole.images[i : i + size], whole.labels[i : i + size]) for i in starts)


def _padded(split: Split, size: int) -> Split:
    extra = size - len(split)
    images = jnp.pad(split.images, [(0, extra)] + [(0, 0)] * (split.images.ndim - 1))
    return Split(images, jnp.pad(split.labels, (0, extra), constant_values=-1))


class _Pass(NamedTuple):
    loss: jax.Array
    accuracy: jax.Array
    batch_stats: Any
    record: Any
    gradients: Any
    slots: Any


def _differentiate(
    model: nn.Module, recorder: Recorder, state: State, numbers: Numbers, images: jax.Array, labels: jax.Array
) -> _Pass:
    # Streams 0 and 1 are the parameters' and the batches', 3 that of the measures.
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(numbers.seed), 2), state.step)

    def objective(params, slots):
        variables = {"params": params, "batch_stats": state.batch_stats, SLOTS: slots}
        mutable = [RECORD, "batch_stats"]
        logits, new = model.apply(variables, images, train=True, mutable=mutable, rngs={"dropout": key})
        accuracy = jnp.mean(F.accuracy(logits, labels).astype(jnp.float32))
        return jnp.mean(F.cross_entropy(logits, labels)), (accuracy, new)

    differentiate = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)
    (loss, (accuracy, new)), (gradients, slots) = differentiate(state.params, recorder.new_slots())
    return _Pass(loss, accuracy, new.get("batch_stats", {}), new[RECORD], gradients, slots)


def _first_broken(flow: Flow) -> tuple[jax.Array, jax.Array]:
    """(whether anything is infinite or NaN, the layer where it began).

    It began at the first such activation; where all activations are finite, at the first such gradient on the way back. An
    exact zero, -inf in the logarithm, is finite.
    """
    forward, backward = (
        jnp.isnan(flow.columns[name]) | (flow.columns[name] == jnp.inf)
        for name in ("log10_second_moment", "gradient_log10_second_moment")
    )
    last = forward.shape[0] - 1
    layer = jnp.where(jnp.any(forward), jnp.argmax(forward), last - jnp.argmax(backward[::-1]))
    return jnp.any(forward | backward), layer
