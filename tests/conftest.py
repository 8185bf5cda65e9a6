"""Strict mode for every test: no silent promotion of ranks or types, several devices, real data where it exists."""

import gc
import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Eight devices, and programs that compile in half of the usual time: their own speed does not matter here. XLA ends the
# process at a flag that it does not know.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
        "--xla_cpu_parallel_codegen_split_count=1",
        "--xla_cpu_use_fusion_emitters=false" if importlib.metadata.version("jaxlib") < "0.11" else "",
    ]
)

# What takes longer than this to compile is compiled once for the tests of all processes, which inherit the folder.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="cnnjax-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
# Tracing makes many objects that live for a moment: at Python's own threshold a ninth of the time goes into collecting them.
gc.set_threshold(20_000, 20, 20)


def pytest_unconfigure() -> None:
    """Takes the folder of compiled programs away, in the process that made it."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """What a file of tests has traced and compiled is of no use to the next, and to walk over it takes a collector long."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def optax_promotes():
    """Adam's bias correction in Optax, and some of its schedules, promote types."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def tfds_dir() -> Path:
    """The folder of prepared TFDS data sets, or a skip that says how to get one."""
    folder = os.environ.get("TFDS_DATA_DIR")
    if folder is None:
        pytest.skip("TFDS_DATA_DIR is not set: `cnnjax data prepare mnist` makes such a folder")
    return Path(folder)


@pytest.fixture(scope="module")
def importable_scripts():
    """The scripts import each other by their bare names."""
    folder = Path(__file__).parents[1] / "scripts"
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))
    for name, module in list(sys.modules.items()):
        if (file := getattr(module, "__file__", None)) and Path(file).parent == folder:
            del sys.modules[name]
