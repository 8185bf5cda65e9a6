"""Several processes, on one host or many, that train one network together: starting, agreeing, and failing together.

Every process runs the same program and calls these functions in the same order. With one process they do nothing that costs.
"""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from cnnjax.training.clusters import Group, find_group

__all__ = [
    "agree",
    "barrier",
    "everywhere",
    "failing_together",
    "from_first",
    "gathered",
    "initialize",
    "is_first",
    "own_rows",
    "share",
]

# How long the processes wait for each other at the start.
START_SECONDS = 300
# A host that is silent for so long counts as dead (JAX's own limit is 100 s).
HEARTBEAT_SECONDS = 60
_FAILED = "cnnjax/failed"
_POLL_SECONDS = 1.0
# After a failure: time for a message to the user. The first process stays longest: JAX aborts those that it leaves behind.
_LAST_WORDS_SECONDS, _LAST_WORDS_SECONDS_OF_FIRST = 2.0, 4.0


def initialize(
    *, coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Joins the other processes, if there are any; afterwards `jax.devices()` are those of all.

    What is not given comes from CNNJAX_COORDINATOR, CNNJAX_PROCESSES and CNNJAX_PROCESS. Where these are not set either,
    Slurm (a step of several tasks), Open MPI, an indexed Kubernetes job and TPU pods are asked, as far as JAX knows them. In
    none of these cases, or with `processes=1`, nothing happens, nor where JAX is joined already.

    A process to which the others do not come within `START_SECONDS` says so and exits with status 1.

    Under Slurm a task has all GPUs of its node if it is the only one there, and one of them otherwise. SIGTERM keeps its
    meaning: JAX's own service for preemptions is off.

    Args:
      coordinator: "host:port" of the first process, free there and reachable from all.
      processes: how many there are.
      process: the number of this one, from 0.

    Raises:
      ValueError: some of the three are missing, or are none.
      ImportError: a Kubernetes job without the package that JAX asks about it.
      RuntimeError: JAX has started already.
      ConnectionError: the port of the first process is in use.
    """
    group = find_group(coordinator, processes, process)
    if group is None or group.processes == 1 or jax.distributed.is_initialized():
        return
    if group.coordinator and group.process == 0:
        _check_port(group.coordinator)
    jax.config.update("jax_enable_preemption_service", False)
    if jax.config.values["jax_cpu_collectives_implementation"] is None:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # JAX would abort with a stack trace.
    patience = threading.Timer(START_SECONDS, _end_alone, (group,))
    patience.start()
    try:
        jax.distributed.initialize(
            group.coordinator,
            group.processes,
            group.process,
            local_device_ids=group.devices,
            cluster_detection_method=group.cluster,
            initialization_timeout=START_SECONDS + 30,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except RuntimeError as error:
        if "must be called before" not in str(error):
            raise
        raise RuntimeError(
            "the processes must be joined before JAX starts: call initialize() before jax.devices() and the first array"
        ) from error
    finally:
        patience.cancel()


def _check_port(coordinator: str) -> None:
    """JAX would crash where the port is in use."""
    port = int(coordinator.rpartition(":")[2])
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        raise ConnectionError(
            f"the first process cannot listen at port {port}: {os.strerror(error.errno or 0)}; choose another coordinator"
        ) from error


def _end_alone(group: Group) -> None:
    print(
        f"{group} has waited {START_SECONDS} s for the others: start all of them within this time, and see to it that "
        "they reach the first one at its address",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def is_first() -> bool:
    """Whether this is the process that writes files and talks to the user. Starts JAX."""
    return jax.process_index() == 0


def agree(flag: bool) -> bool:
    """Whether any process says so; all of them call this, and all get the same answer."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def barrier(name: str) -> None:
    """Returns when all processes have come to the barrier of this name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def from_first(text: str) -> str:
    """What the first process passes, on all of them."""
    if jax.process_count() == 1:
        return text
    content = np.frombuffer(text.encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    # Few different lengths, as each is compiled.
    padded = np.resize(np.append(content, np.zeros(1, np.uint8)), 1 << max(size - 1, 0).bit_length())
    return np.asarray(multihost_utils.broadcast_one_to_all(padded))[:size].tobytes().decode()


def everywhere(tree: Any, mesh: Mesh) -> Any:
    """A copy of each array on every device of a mesh.

    Args:
      tree: of arrays that are the same on every process; keys may be among them.
      mesh: from `make_mesh`.
    """
    place = NamedSharding(mesh, PartitionSpec())

    def put(leaf: Any) -> jax.Array:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        content = np.asarray(leaf)
        return jax.make_array_from_callback(content.shape, place, lambda index: content[index])

    return jax.tree.map(put, tree)


def own_rows(count: int, sharding: Sharding) -> np.ndarray:
    """Which of `count` rows lie on this process, in the order in which `share` takes them."""
    parts: Any = sharding.addressable_devices_indices_map((count,)).values()
    bounds = sorted({part[0].indices(count)[:2] for part in parts})
    return np.concatenate([np.arange(*bound) for bound in bounds])


def share(tree: Any, sharding: Sharding) -> Any:
    """Global arrays from what each process holds of them.

    Args:
      tree: of this process's rows, as `own_rows` names them.
      sharding: of the global arrays, split along the first axis.
    """
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), tree)


def gathered(tree: Any) -> Any:
    """NumPy arrays of whole global arrays, on every process."""

    def get(leaf: Any) -> np.ndarray:
        if getattr(leaf, "is_fully_addressable", True) or leaf.is_fully_replicated:
            return np.asarray(leaf)
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))

    return jax.tree.map(get, tree)


@contextlib.contextmanager
def failing_together() -> Iterator[None]:
    """If one process fails in the block, all end, with its error in their last words.

    Without it the others wait for its part of a sum that never comes. A process that raises tells the others, which within a
    second write what happened to stderr and exit with status 1, wherever they are. It has some seconds to write its message,
    and exits with status 1 if it has not ended by then. A process that dies without a word is noticed by JAX: at once if it
    was the first one, otherwise by a broken connection or after a silence of `HEARTBEAT_SECONDS`; then JAX aborts the others
    with a message of its own.

    Raises:
      ConnectionError: another process has died.
    """
    if jax.process_count() == 1:
        yield
        return
    over = threading.Event()
    watch = threading.Thread(target=_end_with_others, args=(over,), daemon=True)
    watch.start()
    try:
        yield
    except BaseException as error:
        over.set()
        failure = _named(error)
        if not (isinstance(error, SystemExit) and not error.code):
            _tell_others(failure)
        if failure is not error:
            raise failure from error
        raise
    finally:
        over.set()
        watch.join()


def _client() -> Any:
    # JAX has no public way to its key-value store; orbax takes this one, too.
    from jax._src import distributed

    return distributed.global_state.client


def _named(error: BaseException) -> BaseException:
    if isinstance(error, jax.errors.JaxRuntimeError) and "Gloo" in str(error):
        return ConnectionError(
            f"the connection to another process is lost ({_first_line(error)}): see what that one said, and resume the run"
        )
    return error


def _tell_others(error: BaseException) -> None:
    text = f"process {jax.process_index()} failed: {type(error).__name__}: {_first_line(error)}"
    # Somebody else was first, or nobody is left who could listen.
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        _client().key_value_set(_FAILED, text)
    seconds = _LAST_WORDS_SECONDS_OF_FIRST if is_first() else _LAST_WORDS_SECONDS
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _end_with_others(over: threading.Event) -> None:
    while not over.wait(_POLL_SECONDS):
        try:
            text = _client().key_value_try_get(_FAILED)
        except jax.errors.JaxRuntimeError:
            continue
        print(f"process {jax.process_index()} ends because {text}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        time.sleep(_LAST_WORDS_SECONDS_OF_FIRST if is_first() else 0)
        os._exit(1)
