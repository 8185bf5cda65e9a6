"""The cache of decoded arrays: built once, and never an obstacle."""

from pathlib import Path

import numpy as np
import pytest

from cnnjax.data import cache

ARRAYS = {"images": np.arange(5000, dtype=np.uint8), "name": np.asarray("train")}


def never() -> dict[str, np.ndarray]:
    raise AssertionError("built although it is cached")


def assert_cached(key: str) -> None:
    found = cache.load_or_build(key, never)
    assert found.keys() == ARRAYS.keys() and str(found["name"]) == "train"
    np.testing.assert_array_equal(found["images"], ARRAYS["images"])


def test_built_once_and_under_its_own_name_only(cache_folder):
    cache.load_or_build("set", lambda: ARRAYS)
    assert_cached("set")
    assert [file.name for file in cache_folder.iterdir()] == ["set.npz"]


@pytest.mark.parametrize("damage", [lambda data: data[:-100], lambda data: data[:1000], lambda data: b""])
def test_a_truncated_file_is_built_again(cache_folder, damage):
    cache.load_or_build("set", lambda: ARRAYS)
    file = cache_folder / "set.npz"
    file.write_bytes(damage(file.read_bytes()))
    cache.load_or_build("set", lambda: ARRAYS)
    assert_cached("set")


def test_a_changed_byte_is_noticed(cache_folder):
    cache.load_or_build("set", lambda: ARRAYS)
    file = cache_folder / "set.npz"
    data = bytearray(file.read_bytes())
    data[2000] ^= 1
    file.write_bytes(data)
    found = cache.load_or_build("set", lambda: {"images": np.zeros(1)})
    np.testing.assert_array_equal(found["images"], np.zeros(1))


def test_a_pickle_is_never_loaded(cache_folder):
    cache_folder.mkdir(parents=True)
    np.savez(cache_folder / "set.npz", images=np.array([{}], object))
    found = cache.load_or_build("set", lambda: ARRAYS)
    assert found is ARRAYS


def test_an_unwritable_folder_costs_a_warning_only(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CNNJAX_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="set will be decoded again next time.*set CNNJAX_CACHE to a folder"):
        assert cache.load_or_build("set", lambda: ARRAYS) is ARRAYS


@pytest.mark.parametrize(
    "platform, variables, expected",
    [
        ("linux", {}, "home/.cache/cnnjax"),
        ("linux", {"XDG_CACHE_HOME": "/xdg"}, "/xdg/cnnjax"),
        ("darwin", {}, "home/Library/Caches/cnnjax"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/cnnjax"),
        ("linux", {"CNNJAX_CACHE": "/chosen"}, "/chosen"),
    ],
)
def test_where_it_lies(monkeypatch, platform, variables, expected):
    for name in ("CNNJAX_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("home"))
    assert cache.cache_dir() == Path(expected)
