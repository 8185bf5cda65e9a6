"""ResNet-20 for CIFAR-10 and its training as one writes them in plain Flax: the other side of bench_train.py.

`flax.linen` modules written out, a `TrainState` of `flax.training`, optax, one `jax.jit` of the step, a Python loop.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from benchmarking import Run
from flax.training.train_state import TrainState

RATE, MOMENTUM, DECAY, PAD = 0.1, 0.9, 1e-4, 4
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)

Conv = functools.partial(nn.Conv, kernel_size=(3, 3), use_bias=False)
Norm = functools.partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5)


class Block(nn.Module):
    """Two convolutions; the shortcut has no parameters (option A of He et al. 2016, section 3.3)."""

    features: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = Conv(self.features, strides=self.stride)(x)
        y = nn.relu(Norm(use_running_average=not train)(y))
        y = Norm(use_running_average=not train)(Conv(self.features)(y))
        if self.stride > 1:
            more = self.features - x.shape[-1]
            x = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (more // 2, more - more // 2)))
        return nn.relu(x + y)


class ResNet20(nn.Module):
    """He et al. 2016, section 4.2."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = nn.relu(Norm(use_running_average=not train)(Conv(16)(x)))
        for stage in range(3):
            for block in range(3):
                x = Block(16 * 2**stage, 2 if stage and not block else 1)(x, train=train)
        return nn.Dense(10)(x.mean((1, 2)))


class State(TrainState):
    """With the running statistics of batch norm."""

    batch_stats: Any


def start(size: int) -> State:
    """The state before the first step; kernels alone decay."""
    model = ResNet20()
    images = jnp.zeros((1, size, size, 3))
    variables = jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), images)
    kernels = jax.tree.map(lambda leaf: leaf.ndim > 1, variables["params"])
    optimizer = optax.chain(optax.add_decayed_weights(DECAY, kernels), optax.sgd(RATE, MOMENTUM))
    return State.create(
        apply_fn=model.apply,
        params=variables["params"],
        tx=optimizer,
        batch_stats=variables["batch_stats"],
    )


def augment(images: jax.Array, key: jax.Array) -> jax.Array:
    """Normalized images of a uint8 batch, each cut at random from its padded self, half of them mirrored."""
    first, second = jax.random.split(key)
    x = (images.astype(jnp.float32) / 255 - jnp.array(MEAN)) / jnp.array(STD)
    padded = jnp.pad(x, ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0)))
    corners = jax.random.randint(first, (len(x), 2), 0, 2 * PAD + 1)

    def cut(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), x.shape[1:])

    x = jax.vmap(cut)(padded, corners)
    mirrored = jax.random.bernoulli(second, shape=(len(x), 1, 1, 1))
    return jnp.where(mirrored, x[:, :, ::-1], x)


@functools.partial(jax.jit, donate_argnums=0)
def train_step(
    state: State, images: jax.Array, labels: jax.Array, key: jax.Array
) -> tuple[State, dict[str, jax.Array]]:
    """One step: the next state, and loss and accuracy."""
    x = augment(images, jax.random.fold_in(key, state.step))

    def objective(params: Any) -> tuple[jax.Array, Any]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, new = state.apply_fn(variables, x, train=True, mutable=["batch_stats"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), (logits, new["batch_stats"])

    (loss, (logits, statistics)), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
    accuracy = (logits.argmax(-1) == labels).mean()
    state = state.apply_gradients(grads=gradients, batch_stats=statistics)
    return state, {"loss": loss, "accuracy": accuracy}


def training(*, steps: int, batch: int, size: int) -> Run:
    """Some steps, one call each; what is donated comes back as the next state. Returns the last loss."""
    state = start(size)
    images = jax.random.bits(jax.random.key(1), (batch, size, size, 3), jnp.uint8)
    labels, key = jnp.arange(batch) % 10, jax.random.key(2)

    def run() -> float:
        nonlocal state
        for _ in range(steps):
            state, metrics = train_step(state, images, labels, key)
        return float(metrics["loss"])

    return run
