"""What a process of test_hosts.py does; started by scripts/launch_local.py. Its arguments: a task and a folder."""

import os
import resource
import signal
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from cnnjax import data, models
from cnnjax.training import Batch, Moments, Optimizer, Trainer, hosts, stored
from cnnjax.training.checkpoints import Checkpoints
from cnnjax.training.parallel import jit_step, make_mesh

STEPS, BATCH = 3, 32


def trainer():
    return Trainer(
        model=models.create("cifar_resnet", depth=8, width=8),
        optimizer=Optimizer(options={"momentum": 0.9}).make(0.1),
        num_classes=10,
    )


def training(mesh):
    """The losses of a few steps, and the state behind them."""
    digits = data.load("digits")
    trained = trainer()
    split, everywhere = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    images = jnp.zeros((1, *digits.image_shape))
    state = jax.jit(trained.initial, out_shardings=everywhere)(jax.random.key(0), images)
    step = jit_step(trained, state, mesh)
    key, moments = hosts.everywhere((jax.random.key(1), Moments(digits.mean, digits.std)), mesh)
    losses = []
    for number in range(STEPS):
        rows = number * BATCH + hosts.own_rows(BATCH, split)
        own = Batch(np.asarray(digits.train.images)[rows], np.asarray(digits.train.labels)[rows])
        state, metrics = step(state, hosts.share(own, split), key, moments)
        losses.append(float(metrics.loss))
    return losses, state


def split_tree(mesh, step):
    """Arrays that lie on all processes, one of them in parts, and one nowhere twice."""
    place = NamedSharding(mesh, PartitionSpec("data"))
    whole = np.arange(48, dtype=np.float32).reshape(8, 6) + step
    return {
        "parts": hosts.share(whole[hosts.own_rows(8, place)], place),
        "copies": hosts.everywhere(np.arange(5, dtype=np.int32) + step, mesh),
    }


def train(folder):
    mesh = make_mesh()
    losses, state = training(mesh)
    tree = {"state": state, **split_tree(mesh, 0)}
    with Checkpoints(folder / "written by two") as checkpoints:
        checkpoints.save(STEPS, tree, score=0.5, about={"epoch": 1})
    arrays = dict(enumerate(jax.tree.leaves(hosts.gathered(tree))))
    with Checkpoints(folder / "written by one") as checkpoints, pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored, "_load", unless_second(stored._load))
        found = checkpoints.restore(split_tree(mesh, 0))
        assert found.tree["parts"].sharding.is_equivalent_to(tree["parts"].sharding, 2)
        restored = hosts.gathered(found.tree)
        # The damaged ones make way.
        checkpoints.save(2, found.tree)
    np.savez(folder / f"process {jax.process_index()}.npz", *arrays.values(), losses=losses, **restored)
    print("passed over:", *found.passed_over, sep="\n")


def unless_second(load):
    """Reads what the second process cannot read if it is step 2."""

    def failing(path, *args):
        found = load(path, *args)
        if path.name == "2" and not hosts.is_first():
            raise OSError("no such block")
        return found

    return failing


def talk(folder):
    number = jax.process_index()
    assert (jax.process_count(), jax.device_count(), jax.local_device_count()) == (2, 8, 4)
    assert hosts.is_first() == (number == 0)
    assert hosts.agree(number == 1) and not hosts.agree(False)
    for text in ("", "a", "größer " * 50):
        assert hosts.from_first(text if number == 0 else "something else") == text
    # A mesh in which the processes take turns.
    place = NamedSharding(make_mesh(np.asarray(jax.devices()).reshape(2, 4).T.ravel()), PartitionSpec("data"))
    rows = hosts.own_rows(16, place)
    assert rows.tolist() == [row for row in range(16) if row // 2 % 2 == number]
    np.testing.assert_array_equal(hosts.gathered(hosts.share(rows, place)), np.arange(16))
    hosts.barrier("the end")


def wait(folder):
    (folder / f"{jax.process_index()}.pid").write_text(str(os.getpid()))
    hosts.barrier("both wait")
    time.sleep(60)


def fail(folder):
    with hosts.failing_together():
        if not hosts.is_first():
            hosts.barrier("to which the first never comes")
        raise ValueError("no such data set\nand more")


def lose(folder):
    with hosts.failing_together():
        hosts.barrier("together")
        if not hosts.is_first():
            os.kill(os.getpid(), signal.SIGKILL)
        hosts.barrier("alone")


def run_out_of_space(folder):
    place = NamedSharding(make_mesh(), PartitionSpec("data"))
    rows = np.random.default_rng(0).normal(size=(800, 1000)).astype(np.float32)[hosts.own_rows(800, place)]
    with hosts.failing_together(), Checkpoints(folder / "run") as checkpoints:
        checkpoints.save(1, {"x": hosts.share(rows, place)})
        checkpoints.wait()
        if not hosts.is_first():
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        checkpoints.save(2, {"x": hosts.share(rows, place)})


TASKS = {task.__name__: task for task in (train, talk, wait, fail, lose, run_out_of_space)}
if __name__ == "__main__":
    hosts.initialize()
    TASKS[sys.argv[1]](Path(sys.argv[2]))
