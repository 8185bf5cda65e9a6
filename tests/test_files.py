import fcntl
import os
import signal
import subprocess
import sys
import threading

import pytest

from cnnjax.files import holder, locked, replacing, sweep

HOLDER = """
import sys, time
from pathlib import Path
from cnnjax.files import locked
with locked(Path(sys.argv[1])):
    print("inside", flush=True)
    time.sleep(60)
"""


def test_replacing_leaves_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half of the new")
        raise RuntimeError
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_replacing_makes_folders(tmp_path):
    path = tmp_path / "a" / "b"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists() and temporary.parent == path.parent
    assert path.read_text() == "new"


def test_what_a_kill_left_is_swept_and_nothing_else(tmp_path):
    (tmp_path / "parts").mkdir()
    kept = [tmp_path / "runs.parquet", tmp_path / ".hidden", tmp_path / "parts" / "mine.tmp"]
    left = [tmp_path / ".runs.parquet.0123.tmp", tmp_path / "parts" / ".state.npz.4567.tmp"]
    for path in [*kept, *left]:
        path.write_text("x")
    sweep(tmp_path)
    assert all(path.exists() for path in kept) and not any(path.exists() for path in left)


def test_a_folder_is_for_one_process_until_it_dies(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "inside\n"
    message = f"process {holder.pid} is at work in {tmp_path}: wait for it"
    with pytest.raises(ValueError, match=message), locked(tmp_path):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with locked(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_who_holds_a_folder_is_told_without_taking_it(tmp_path):
    assert holder(tmp_path / "none") is None and holder(tmp_path) is None
    process = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "inside\n"
    assert [holder(tmp_path), holder(tmp_path)] == [process.pid, process.pid]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert (tmp_path / ".lock").read_text() == str(process.pid) and holder(tmp_path) is None
    with locked(tmp_path):
        assert holder(tmp_path) == os.getpid()
        (tmp_path / ".lock").write_text("")
        assert holder(tmp_path) == 0
    assert holder(tmp_path) is None


def test_a_folder_can_be_taken_although_somebody_just_asks_who_has_it(tmp_path):
    # `holder` does this for some microseconds.
    file = (tmp_path / ".lock").open("w")
    fcntl.flock(file, fcntl.LOCK_SH)
    timer = threading.Timer(0.015, file.close)
    timer.start()
    with locked(tmp_path):
        assert file.closed
    timer.join()
