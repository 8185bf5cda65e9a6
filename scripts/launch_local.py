"""Runs a command in several processes on this machine that compute together, as on several hosts.

    scripts/launch_local [-n PROCESSES] [-d DEVICES_EACH] -- COMMAND ...

Each process gets CNNJAX_COORDINATOR, CNNJAX_PROCESSES and CNNJAX_PROCESS, which `cnnjax.training.hosts.initialize` reads,
and that many virtual CPU devices. Every line that it writes comes out with its number before it. Ctrl-C and SIGTERM are
passed on to all. When one dies, the others get SIGTERM, after 10 s SIGKILL; after a signal they have a minute to end by
themselves. The exit status is that of the first that died, 128 and the signal's number if it was killed.
"""

import argparse
import contextlib
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import IO, Any

GRACE = 10.0
# After a signal: what a process may take to save when another one is done.
PATIENCE = 60.0


def main(args: Sequence[str] | None = None) -> int:
    """Parses the arguments, runs the command, and returns the exit status."""
    parser = argparse.ArgumentParser("launch_local", usage=__doc__.strip().splitlines()[2].strip())
    parser.add_argument("-n", type=int, default=2, metavar="PROCESSES", help="2 if not given")
    parser.add_argument("-d", type=int, default=1, metavar="DEVICES_EACH", help="1 if not given")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    given = parser.parse_args(args)
    if given.n < 1 or given.d < 1:
        parser.error(f"PROCESSES and DEVICES_EACH must be 1 or more, got {given.n} and {given.d}")
    if shutil.which(given.command[0]) is None:
        parser.error(f"there is no command {given.command[0]!r}")
    return Group(given.command, list(environments(given.n, given.d))).wait()


def environments(processes: int, devices: int) -> Iterator[dict[str, str]]:
    """The environment of each process."""
    address = f"127.0.0.1:{free_port()}"
    # XLA takes the last of several equal flags.
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}".strip()
    for process in range(processes):
        yield {
            "JAX_PLATFORMS": "cpu",
            "PYTHONUNBUFFERED": "1",
            **os.environ,
            "XLA_FLAGS": flags,
            "CNNJAX_COORDINATOR": address,
            "CNNJAX_PROCESSES": str(processes),
            "CNNJAX_PROCESS": str(process),
            # Nobody outside of this machine is expected.
            "JAX_COORDINATOR_BIND_ADDRESS": address,
        }


def free_port() -> int:
    """A TCP port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Group:
    """Processes that run one command and end together."""

    def __init__(self, command: Sequence[str], environments: Sequence[dict[str, str]]) -> None:
        self.ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.writing = threading.Lock()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.threads: list[threading.Thread] = []
        self.signalled = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.pass_on)
        for environment in environments:
            # A session of its own: a terminal sends Ctrl-C to all of a session, and each is to get it once.
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            self.processes.append(process)
            self._start(self._watch, process)
            for source, target in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
                self._start(self._prefix, len(self.processes) - 1, source, target)

    def wait(self) -> int:
        """Returns the exit status of the group once nothing of it is left."""
        status = 0
        for _ in self.processes:
            status = self.ended.get()
            if status:
                break
        if self.signalled:
            self._wait_for_all(PATIENCE)
        self._send(signal.SIGTERM)
        self._wait_for_all(GRACE)
        self._kill()
        for thread in self.threads:
            thread.join()
        return 128 - status if status < 0 else status

    def pass_on(self, number: int, frame: Any) -> None:
        """The handler of a signal."""
        self.signalled = True
        self._send(number)

    def _send(self, number: int) -> None:
        for process in self.processes:
            process.send_signal(number)

    def _wait_for_all(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(until - time.monotonic(), 0))

    def _kill(self) -> None:
        """Ends what still runs, and what the processes have started themselves."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

    def _start(self, target: Any, *args: Any) -> None:
        self.threads.append(threading.Thread(target=target, args=args, daemon=True))
        self.threads[-1].start()

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        self.ended.put(process.wait())

    def _prefix(self, number: int, source: IO[bytes], target: Any) -> None:
        for line in source:
            with self.writing:
                target.buffer.write(b"[%d] %b\n" % (number, line.rstrip(b"\r\n")))
                target.flush()


if __name__ == "__main__":
    sys.exit(main())
