"""Training steps of whole architectures: ours, the same in plain `flax.linen`, and torchvision's; compile and import times.

    python scripts/bench_models.py [--rounds 15] [--only TEXT] [--json FILE] [--torch-python PATH]

Forward, backward and SGD with momentum, 16 images of 64x64, 1,000 classes, without dropout; times in ms for one step. On a
GPU also resnet50 at 224x224 in bfloat16 with 256 images, against torchvision compiled, channels last, with autocast.
`--torch-python` names an interpreter with torch and torchvision where this one has none.
"""

import functools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import models_flax
import optax
from bench_grid import torch_python
from benchmarking import Bench, Row, Run, main
from jax.typing import DTypeLike

from cnnjax import functional as F
from cnnjax import models

SIZE, BATCH = 64, 16
GPU_SIZE, GPU_BATCH, GPU_STEPS = 224, 256, 10
GPU = "resnet50 on GPU"
# At least this many times as fast as plain Flax.
CPU = {"resnet18": 1 / 1.05, "mobilenet_v2": 3.0, "efficientnet_b0": 3.0}
WITHOUT_DROPOUT = {"mobilenet_v2": {"dropout": 0.0}, "efficientnet_b0": {"dropout": 0.0, "drop_path": 0.0}}
COMPILE = {"resnet50": "compile resnet50", "resnet152": "compile resnet152"}
IMPORT = "seconds to import cnnjax.models"


def make(name: str, **options: object) -> models.Model:
    """Our model, without what is drawn in every step."""
    return models.create(name, **WITHOUT_DROPOUT.get(name, {}), **options)


def flax_model(name: str) -> object:
    """The same in plain Flax, to the last parameter."""
    model = models_flax.MODELS[name]()
    count = models_flax.parameters(model)
    if count != models.PARAMETERS[name]:
        raise SystemExit(f"{name} in plain Flax has {count} parameters instead of {models.PARAMETERS[name]}")
    return model


def training_step(
    model: object, *, size: int, batch: int, dtype: DTypeLike = jnp.float32
) -> tuple[Callable, tuple]:
    """The compiled step, state donated, and what it starts from."""
    images = jax.random.normal(jax.random.key(1), (batch, size, size, 3), dtype)
    labels = jnp.arange(batch) % 1000
    optimizer = optax.sgd(0.01, momentum=0.9)
    variables = jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), images)

    def step(params, statistics, memory):
        def objective(params):
            logits, state = model.apply(
                {"params": params, "batch_stats": statistics}, images, train=True, mutable=["batch_stats"]
            )
            return jnp.mean(F.cross_entropy(logits.astype(jnp.float32), labels)), state["batch_stats"]

        (loss, statistics), gradients = jax.value_and_grad(objective, has_aux=True)(params)
        updates, memory = optimizer.update(gradients, memory, params)
        return optax.apply_updates(params, updates), statistics, memory, loss

    start = variables["params"], variables["batch_stats"], optimizer.init(variables["params"])
    return jax.jit(step, donate_argnums=(0, 1, 2)), start


def workload(make_model: Callable[[], object], steps: int = 1, **options: object) -> Run:
    """Some steps, one after the other; what is donated comes back as the next state."""
    step, state = training_step(make_model(), **options)

    def run() -> None:
        nonlocal state
        for _ in range(steps):
            *state, loss = step(*state)
        loss.block_until_ready()

    return run


def compilation(name: str) -> Run:
    """Traces and compiles a training step; the value is the seconds of it."""
    step, state = training_step(make(name), size=SIZE, batch=BATCH)

    def run() -> float:
        jax.clear_caches()
        start = time.perf_counter()
        step.lower(*state).compile()
        return time.perf_counter() - start

    return run


def measure(bench: Bench, *, torch: bool) -> None:
    """All rows, each with what is required of it."""
    for name, factor in CPU.items():
        bench.compare(name, "ours", "flax", name=f"{name}, against plain Flax", at_least=factor)
        if torch:
            bench.compare(name, "ours", "torch", name=f"{name}, against torchvision")
    _compile_times(bench)
    if bench.wants(IMPORT):
        seconds = statistics.median(_import_seconds() for _ in range(5))
        bench.add(Row(IMPORT, seconds, None, None, "<= 2", seconds <= 2))
    if torch and bench.ask("ours", "backend").value:
        bench.compare(GPU, "ours", "torch", name=f"{GPU}, one step", per=GPU_STEPS)


def _compile_times(bench: Bench) -> None:
    case = "seconds to compile a step of resnet152, against resnet50"
    if not bench.wants(case):
        return
    deep, shallow = (
        statistics.median(bench.ask("ours", COMPILE[name]).value or 0.0 for _ in range(3))
        for name in ("resnet152", "resnet50")
    )
    bench.add(Row(case, deep, shallow, deep / shallow, "ours <= 2.5 other", deep / shallow <= 2.5))


def _import_seconds() -> float:
    code = (
        "import time; start = time.perf_counter(); import cnnjax.models; print(time.perf_counter() - start)"
    )
    return float(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    )


def backend() -> Run:
    """1 on a GPU, 0 elsewhere."""
    return lambda: int(jax.default_backend() == "gpu")


if __name__ == "__main__":
    python, arguments = torch_python(sys.argv[1:])
    if python is None and "--side" not in arguments:
        print("torchvision is skipped: name an interpreter that has it by --torch-python", file=sys.stderr)
    sizes = [str(number) for number in (SIZE, BATCH, GPU_SIZE, GPU_BATCH, GPU_STEPS)]
    small = dict(size=SIZE, batch=BATCH)
    ours = {name: functools.partial(workload, functools.partial(make, name), **small) for name in CPU}
    ours |= {case: functools.partial(compilation, name) for name, case in COMPILE.items()}
    ours |= {"backend": backend}
    large = dict(size=GPU_SIZE, batch=GPU_BATCH, dtype=jnp.bfloat16, steps=GPU_STEPS)
    ours[GPU] = functools.partial(workload, functools.partial(make, "resnet50", dtype=jnp.bfloat16), **large)
    flax = {name: functools.partial(workload, functools.partial(flax_model, name), **small) for name in CPU}
    main(
        __doc__,
        {"ours": ours, "flax": flax},
        functools.partial(measure, torch=python is not None),
        commands={"torch": [str(python), str(Path(__file__).parent / "models_torch.py"), *sizes]},
        arguments=arguments,
    )
