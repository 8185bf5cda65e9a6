"""Worker processes end with the process that started them, and only then."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

SCRIPT = """
import multiprocessing, sys, time
from cnnjax.data.workers import obey_parent

def work(ready):
    obey_parent(0, 1)
    ready.set()
    time.sleep(600)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    worker = context.Process(target=work, args=(ready,), daemon=True)
    worker.start()
    ready.wait()
    print(worker.pid, flush=True)
    time.sleep(600)
"""


def alive(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_worker_ends_with_its_parent_alone(tmp_path):
    file = tmp_path / "script.py"
    file.write_text(SCRIPT)
    with subprocess.Popen([sys.executable, str(file)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        for sent in (signal.SIGINT, signal.SIGTERM):
            os.kill(worker, sent)
        time.sleep(0.2)
        assert alive(worker)
        parent.kill()
    deadline = time.monotonic() + 30
    while alive(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)
