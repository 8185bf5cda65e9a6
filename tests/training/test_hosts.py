"""Several processes: they compute what one does, write and read the same checkpoints, and end together."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from cnnjax.training import clusters, hosts
from cnnjax.training.checkpoints import Checkpoints
from cnnjax.training.parallel import make_mesh

from . import hosts_worker

LAUNCH = Path(__file__).parents[2] / "scripts" / "launch_local.py"


def start(*command, processes=2):
    """The launcher, running a command in processes with four devices each."""
    launcher = [sys.executable, LAUNCH, "-n", str(processes), "-d", "4", "--", *command]
    return subprocess.Popen(launcher, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(*command, **options):
    process = start(*command, **options)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def worker(task, folder):
    return sys.executable, hosts_worker.__file__, task, str(folder)


def test_two_processes_with_four_devices_each_train_as_one_with_eight(tmp_path):
    mesh = make_mesh()
    assert mesh.shape["data"] == 8
    with Checkpoints(tmp_path / "written by one", last=3) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, hosts_worker.split_tree(mesh, step))
    cut_off(tmp_path / "written by one" / "3")

    status, output = run(*worker("train", tmp_path))
    assert status == 0, output
    for process, reason in enumerate(("another process cannot read it", "no such block")):
        assert f"[{process}] the checkpoint of step 3 is damaged: " in output
        assert f"[{process}] the checkpoint of step 2 is damaged: {reason}\n" in output

    losses, state = hosts_worker.training(mesh)
    ours = {"state": state, **hosts_worker.split_tree(mesh, 0)}
    with Checkpoints(tmp_path / "written by two") as checkpoints:
        found = checkpoints.restore(ours)
        assert (found.step, found.about, checkpoints.best) == (3, {"epoch": 1}, 3)
    for process in (0, 1):
        theirs = np.load(tmp_path / f"process {process}.npz")
        # The same numbers as one process computes, and those of the checkpoint bit for bit.
        np.testing.assert_allclose(theirs["losses"], losses, rtol=0, atol=1e-5)
        for number, (restored, computed) in enumerate(
            zip(jax.tree.leaves(found.tree), jax.tree.leaves(ours), strict=True)
        ):
            np.testing.assert_array_equal(restored, theirs[f"arr_{number}"])
            np.testing.assert_allclose(restored, computed, rtol=0, atol=1e-5)
        # What one process had written, and two have read.
        expected = hosts.gathered(hosts_worker.split_tree(mesh, 1))
        np.testing.assert_array_equal(theirs["parts"], expected["parts"])
        np.testing.assert_array_equal(theirs["copies"], expected["copies"])
    with Checkpoints(tmp_path / "written by one") as checkpoints:
        assert checkpoints.steps == [1, 2]
        assert sorted(path.name for path in checkpoints.folder.glob("*.damaged")) == [
            "2.damaged",
            "3.damaged",
        ]
        jax.tree.map(
            np.testing.assert_array_equal,
            checkpoints.restore(hosts_worker.split_tree(mesh, 0)).tree,
            expected,
        )


def cut_off(folder):
    """Halves every file with numbers in it."""
    for path in folder.rglob("d/*"):
        os.truncate(path, path.stat().st_size // 2)


def test_they_agree_and_exchange(tmp_path):
    status, output = run(*worker("talk", tmp_path))
    assert status == 0, output


def test_when_one_fails_the_others_say_so_and_end(tmp_path):
    status, output = run(*worker("fail", tmp_path))
    assert status == 1
    assert "[0] ValueError: no such data set" in output
    assert "[1] process 1 ends because process 0 failed: ValueError: no such data set\n" in output


@pytest.mark.slow
def test_when_one_cannot_write_nobody_waits_for_it(tmp_path):
    begun = time.monotonic()
    status, output = run(*worker("run_out_of_space", tmp_path))
    assert status == 1 and time.monotonic() - begun < 60
    text = "the checkpoint of step 2 could not be written to .*: File too large; those of step 1 are intact"
    assert re.search(r"\[1\] OSError: " + text, output)
    # The launcher may have ended the first process before it had its say.
    with Checkpoints(tmp_path / "run") as checkpoints:
        assert checkpoints.restore({"x": jax.ShapeDtypeStruct((800, 1000), jnp.float32)}).step == 1


@pytest.mark.slow
def test_when_one_is_lost_the_other_says_so(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    # Without the launcher, which would end the other one itself.
    variables = os.environ | {clusters.COORDINATOR: address, clusters.PROCESSES: "2"}
    pair = [
        subprocess.Popen(
            worker("lose", tmp_path),
            env=variables | {clusters.PROCESS: number},
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in "01"
    ]
    said = [process.communicate(timeout=60)[1] for process in pair]
    assert pair[1].returncode == -signal.SIGKILL and pair[0].returncode != 0
    assert "ConnectionError: the connection to another process is lost" in said[0]


def test_when_one_is_killed_the_launcher_ends_the_other(tmp_path):
    launcher = start(*worker("wait", tmp_path))
    pids = [int(text) for text in wait_for(lambda: [read(tmp_path / f"{i}.pid") for i in (0, 1)])]
    os.kill(pids[1], signal.SIGKILL)
    launcher.communicate(timeout=30)
    assert launcher.returncode == 128 + signal.SIGKILL
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def read(path):
    return path.read_text() if path.exists() else ""


def wait_for(find):
    """What `find` finds, once that is nothing empty."""
    until = time.monotonic() + 60
    while not all(found := find()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


TALK = "print('hello'); import sys; print('world', file=sys.stderr); print('end', end='')"
SIGNALLED = """
import os, signal, sys, time
def end(number, frame):
    # The last one takes a while to save.
    time.sleep(int(os.environ["CNNJAX_PROCESS"]))
    print("got", number)
    sys.exit(7)
signal.signal(getattr(signal, sys.argv[1]), end)
print("ready", flush=True)
time.sleep(60)
"""


def test_the_launcher_numbers_lines():
    status, output = run(sys.executable, "-c", TALK, processes=3)
    assert status == 0
    expected = [f"[{process}] {word}" for process in range(3) for word in ("hello", "world", "end")]
    assert sorted(output.splitlines()) == sorted(expected)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_the_launcher_passes_signals_on(name):
    launcher = start(sys.executable, "-c", SIGNALLED, name)
    assert sorted(launcher.stdout.readline() for _ in range(2)) == ["[0] ready\n", "[1] ready\n"]
    number = getattr(signal, name)
    launcher.send_signal(number)
    output, _ = launcher.communicate(timeout=30)
    assert sorted(output.splitlines()) == [f"[0] got {number}", f"[1] got {number}"]
    assert launcher.returncode == 7


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["-n", "0", "--", "true"], "must be 1 or more, got 0 and 1"),
        (["--", "no-such-command"], "there is no command 'no-such-command'"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_the_launcher_says_what_is_wrong(args, text):
    done = subprocess.run([sys.executable, LAUNCH, *args], capture_output=True, text=True)
    assert done.returncode == 2 and text in done.stderr


def test_alone_everything_is_as_it_is():
    mesh = make_mesh()
    assert hosts.is_first() and hosts.agree(True) and not hosts.agree(False)
    assert hosts.from_first("text") == "text"
    hosts.barrier("nothing to wait for")
    split = NamedSharding(mesh, PartitionSpec("data"))
    assert hosts.own_rows(16, split).tolist() == list(range(16))
    tree = {"a": np.arange(16), "b": np.ones((8, 3), np.float32)}
    shared, copied = hosts.share(tree, split), hosts.everywhere(tree, mesh)
    assert shared["b"].sharding.is_equivalent_to(split, 2) and copied["b"].is_fully_replicated
    for found in (shared, copied):
        jax.tree.map(np.testing.assert_array_equal, hosts.gathered(found), tree)
    key = jax.random.key(3)
    assert jnp.array_equal(hosts.everywhere(key, mesh), key)
    with pytest.raises(ValueError, match="as it was"), hosts.failing_together():
        raise ValueError("as it was")


ALONE = "from cnnjax.training import hosts; hosts.START_SECONDS = 1; hosts.initialize()"


def test_nobody_waits_forever_for_the_others():
    variables = {clusters.COORDINATOR: "127.0.0.1:1", clusters.PROCESSES: "2", clusters.PROCESS: "1"}
    command = [sys.executable, "-c", ALONE]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert (
        "process 1 of 2, with the coordinator 127.0.0.1:1, has waited 1 s for the others: start all"
        in done.stderr
    )


def test_a_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        text = f"cannot listen at port {port}: Address already in use; choose another coordinator"
        with pytest.raises(ConnectionError, match=text):
            hosts.initialize(coordinator=f"localhost:{port}", processes=2, process=0)


def test_too_late():
    jax.devices()
    with pytest.raises(RuntimeError, match="call initialize.. before jax.devices.. and the first array"):
        hosts.initialize(coordinator="127.0.0.1:1", processes=2, process=1)
