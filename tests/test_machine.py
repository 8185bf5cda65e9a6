import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from cnnjax import machine


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A folder for the package that is in no git tree, whatever lies above it."""
    monkeypatch.delenv("GIT_DIR", raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    file = tmp_path / "package" / "machine.py"
    file.parent.mkdir()
    file.write_text("first\n")
    monkeypatch.setattr(machine, "__file__", str(file))
    return tmp_path


def git(folder, *arguments):
    """The output of a git command; skips the test where there is no git."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    command = [
        "git",
        "-C",
        str(folder),
        "-c",
        "user.name=n",
        "-c",
        "user.email=e",
        "-c",
        "commit.gpgsign=false",
    ]
    return subprocess.run([*command, *arguments], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(outside):
    """A git tree with one commit that holds the package and a file beside it."""
    (outside / "beside.txt").write_text("first\n")
    git(outside, "init", "--quiet")
    git(outside, "add", "package", "beside.txt")
    git(outside, "commit", "--quiet", "--no-verify", "-m", "first")
    return outside


def test_versions_are_those_that_are_installed():
    found = machine.versions()
    assert list(found) == ["python", "cnnjax", "jax", "jaxlib", "flax", "optax", "numpy"]
    assert found.pop("python") == platform.python_version()
    assert found == {name: importlib.metadata.version(name) for name in found}
    assert found["jax"] == jax.__version__ and found["numpy"] == np.__version__


def test_the_device_is_counted_and_named():
    two = [SimpleNamespace(platform="gpu", device_kind="NVIDIA H100")] * 2
    expected = {"platform": "gpu", "kind": "NVIDIA H100", "count": 2, "machine": platform.machine()}
    assert machine.device(two) == expected
    assert machine.device(jax.devices()) == expected | {"platform": "cpu", "kind": "cpu", "count": 8}


@pytest.mark.parametrize(
    ("backend", "default"), [("cpu", "float32"), ("gpu", "platform default (below float32)")]
)
def test_precision_is_what_jax_is_set_to_or_the_default_of_the_platform(monkeypatch, backend, default):
    monkeypatch.setattr(machine.jax, "default_backend", lambda: backend)
    assert machine.precision() == default
    jax.config.update("jax_default_matmul_precision", "highest")
    try:
        assert machine.precision() == "highest"
    finally:
        jax.config.update("jax_default_matmul_precision", None)
    assert machine.precision() == default


def test_the_commit_of_the_source_tree(repository):
    assert machine.commit() == git(repository, "rev-parse", "HEAD")


def test_only_edits_of_the_package_are_changes(repository):
    head = git(repository, "rev-parse", "HEAD")
    (repository / "beside.txt").write_text("second\n")
    (repository / "package" / "notes.txt").write_text("of no commit\n")
    assert machine.commit() == head
    (repository / "package" / "machine.py").write_text("second\n")
    assert machine.commit() == f"{head}+changes"
    git(repository, "add", "package")
    assert machine.commit() == f"{head}+changes"
    git(repository, "commit", "--quiet", "--no-verify", "-m", "second")
    assert machine.commit() == git(repository, "rev-parse", "HEAD") != head


def test_no_commit_outside_of_a_source_tree(outside):
    assert machine.commit() is None


def test_no_commit_in_a_tree_without_one(outside):
    git(outside, "init", "--quiet")
    assert machine.commit() is None


def test_no_commit_without_git(repository, monkeypatch):
    monkeypatch.setenv("PATH", str(repository / "nothing"))
    assert machine.commit() is None


def test_no_commit_where_git_does_not_answer(repository, monkeypatch):
    def silent(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(machine.subprocess, "run", silent)
    assert machine.commit() is None


def test_an_installed_package_has_not_the_commit_of_the_project_around_it(repository, monkeypatch):
    (repository / ".gitignore").write_text(".venv\n")
    installed = repository / ".venv" / "site-packages" / "package" / "machine.py"
    installed.parent.mkdir(parents=True)
    installed.write_text("installed\n")
    monkeypatch.setattr(machine, "__file__", str(installed))
    assert machine.commit() is None


@pytest.mark.parametrize(
    ("content", "expected"), [("1048576\n", 2**20), ("max\n", None), (f"{2**60}\n", None), (None, None)]
)
def test_the_memory_of_the_host_is_what_its_container_grants(tmp_path, monkeypatch, content, expected):
    if content is not None:
        (tmp_path / "memory.max").write_text(content)
    monkeypatch.setattr(machine, "CONTAINER_LIMIT", tmp_path / "memory.max")
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert machine.host_memory() == (expected or whole)


def resident_gib():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/statm")
def test_peak_memory_grows_by_what_is_touched():
    before = machine.peak_memory_gib()
    assert before > 0.95 * resident_gib()
    # What lies between the memory in use and its peak is filled first.
    more = 0.2
    touched = np.ones(int((before - resident_gib() + more) * 2**30), np.uint8)
    after = machine.peak_memory_gib()
    assert after - before == pytest.approx(more, abs=more / 4)
    del touched
    assert machine.peak_memory_gib() == pytest.approx(after, abs=0.02)


def test_peak_memory_is_told_in_bytes_on_macos(monkeypatch):
    usage = SimpleNamespace(ru_maxrss=3 * 2**30)
    monkeypatch.setattr(machine.resource, "getrusage", lambda who: usage)
    monkeypatch.setattr(machine.sys, "platform", "darwin")
    assert machine.peak_memory_gib() == 3
    monkeypatch.setattr(machine.sys, "platform", "linux")
    assert machine.peak_memory_gib() == 3 * 2**10
