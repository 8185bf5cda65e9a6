import collections
import os
import pickle
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.interop.pth import LEGACY, read_pth, write_pth
from cnnjax.interop.state_dict import read_state_dict, write_state_dict

# Both hold the same state dict, written by torch 2.13.0; `legacy.pth` with _use_new_zipfile_serialization=False.
ZIPPED, LEGACY_FILE = (Path(__file__).with_name(f"{name}.pth") for name in ("zipped", "legacy"))
TENSORS = {
    # A parameter, transposed and in the middle of the next one's storage.
    "conv.weight": np.arange(12, 24, dtype=np.float32).reshape(3, 4).T,
    "conv.whole": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "norm.half": np.array([1.5, -2.25], np.float16),
    "norm.brain": np.array([[1.5], [-2.25]], jnp.bfloat16),
    "norm.num_batches_tracked": np.array(7, np.int64),
    "norm.flag": np.array([True, False]),
    "empty": np.zeros((0, 3), np.float32),
}


def assert_same(found):
    assert list(found) == list(TENSORS)
    for name, array in TENSORS.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array)


def zipped(path, content, **records):
    """A file as torch.save makes it, of a pickle that is given."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for name, data in records.items():
            archive.writestr(f"archive/{name}", data)
    return path


@pytest.mark.parametrize("path", [ZIPPED, LEGACY_FILE], ids=["zipped", "legacy"])
def test_files_of_torch(path):
    assert_same(read_pth(path))
    assert_same(read_state_dict(path))


def test_what_is_written_is_read(tmp_path):
    for name in ("weights.pth", "again.pt", "weights.safetensors"):
        write_state_dict(tmp_path / name, TENSORS)
        found = read_state_dict(tmp_path / name)
        assert_same({key: found[key] for key in TENSORS})
    assert (tmp_path / "weights.pth").read_bytes() == (tmp_path / "again.pt").read_bytes()
    with pytest.raises(ValueError, match=r"written to .safetensors, .pth or .pt; got 'weights.npz'"):
        write_state_dict(tmp_path / "weights.npz", TENSORS)


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("ran",))


@pytest.mark.parametrize(
    ("held", "match"),
    [
        (
            {"a": Evil()},
            r"it holds \w+\.mkdir, .* may run any code: save the state dict",
        ),
        ({"a": print}, "it holds __builtin__.print"),
        ({"epoch": 3}, "its entry 'epoch' is no tensor but of type int: save the state dict alone"),
        ({"state_dict": {"a": 1}}, "its entry 'state_dict' is no tensor but of type dict"),
        ([1, 2], "it holds no state dict but something of type list"),
        (collections.OrderedDict(a=collections.OrderedDict()), "its entry 'a' is no tensor but of type Ord"),
        (np.zeros(3), r"it holds numpy\S+, and a pickle that holds more than tensors"),
        (collections.Counter("a"), "it holds collections.Counter"),
    ],
)
def test_pickles_that_hold_anything_but_tensors(held, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps(held, 2)
    with pytest.raises(ValueError, match=f"weights.pth is refused: {match}"):
        read_pth(zipped(tmp_path / "weights.pth", content))
    # The older format: three pickles in front, one behind.
    system = pickle.dumps({"little_endian": True}, 2)
    old = LEGACY + pickle.dumps(1001, 2) + system + content + pickle.dumps([], 2)
    (tmp_path / "old.pth").write_bytes(old)
    with pytest.raises(ValueError, match=f"old.pth is refused: {match}"):
        read_pth(tmp_path / "old.pth")
    assert not (tmp_path / "ran").exists()


def forged(*, storage=b"ctorch\nFloatStorage\n", offset=0, size=(2,), stride=(1,), length=2, kind="storage"):
    """A state dict of one tensor, as torch pickles it, with any numbers in it."""

    def plain(value):
        return pickle.dumps(value, 2)[2:-1]

    pid = b"(" + plain(kind) + storage + plain("0") + plain("cpu") + plain(length) + b"tQ"
    rest = plain(offset) + plain(size) + plain(stride) + b"\x89}t"
    return b"\x80\x02}(" + plain("a") + b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + rest + b"Ru."


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (dict(size=(3,)), r"a tensor of shape \(3,\) reaches past the end of its storage"),
        (dict(offset=1), "reaches past the end"),
        (dict(size=(2, 2), stride=(2, 1)), "reaches past the end"),
        (dict(offset=-1), "by something else than a storage and sizes"),
        (dict(stride=(-1,)), "by something else than a storage and sizes"),
        (dict(stride=(1, 1)), "by something else than a storage and sizes"),
        (dict(size=("2",)), "by something else than a storage and sizes"),
        (dict(length=10**6), "cut off: storage 0 has less than 1000000 numbers"),
        (dict(kind="module"), "a storage of an unknown kind"),
        (dict(storage=b"ctorch\nQInt8Storage\n"), "it holds torch.QInt8Storage"),
    ],
)
def test_tensors_that_do_not_lie_in_their_storage(options, match, tmp_path):
    data = {"data/0": np.array([1, 2], np.float32).tobytes()}
    right = read_pth(zipped(tmp_path / "right.pth", forged(), **data))
    np.testing.assert_array_equal(right["a"], [1, 2])
    with pytest.raises(ValueError, match=match):
        read_pth(zipped(tmp_path / "wrong.pth", forged(**options), **data))


@pytest.mark.parametrize("path", [ZIPPED, LEGACY_FILE], ids=["zipped", "legacy"])
def test_files_cut_off(path, tmp_path):
    whole = path.read_bytes()
    for length in (len(whole) - 1, len(whole) // 2, 20):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cut.pth is (no whole file of torch.save|refused)"):
            read_state_dict(tmp_path / "cut.pth")


def test_files_of_other_kinds(tmp_path):
    path = tmp_path / "weights.pth"
    with pytest.raises(
        FileNotFoundError, match="there is no file .*weights.pth: name one that holds weights"
    ):
        read_state_dict(path)
    for content in (b"", b"<!DOCTYPE html>", pickle.dumps({"a": 1})):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="neither a safetensors file nor one of torch.save: it starts"):
            read_state_dict(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"")
    with pytest.raises(ValueError, match="a zip archive that torch.save did not write"):
        read_state_dict(path)
    zipped(path, forged(), byteorder=b"big")
    with pytest.raises(ValueError, match="written on a big-endian machine"):
        read_state_dict(path)
    write_state_dict(tmp_path / "a.safetensors", TENSORS)
    path.write_bytes((tmp_path / "a.safetensors").read_bytes()[:-3])
    with pytest.raises(ValueError, match="no whole safetensors file .*: it was cut off"):
        read_state_dict(path)


def test_a_pickle_cannot_change_the_reader(tmp_path):
    """BUILD sets attributes of whatever a pickle can name: the next file is read as ever."""
    state = pickle.dumps({"__call__": 1, "__defaults__": 1}, 2)[2:-1]
    slots = b"N" + state + b"\x86"
    for name in (
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ccollections\nOrderedDict\n",
        b"ctorch\nFloatStorage\n",
    ):
        for change in (state, slots):
            content = b"\x80\x02" + name + change + b"b0}."
            try:
                found = read_pth(zipped(tmp_path / "changing.pth", content))
                assert found == {}
            except ValueError:
                pass
            assert_same(read_pth(ZIPPED))


def test_writing_is_deterministic_and_whole(tmp_path):
    write_pth(tmp_path / "a.pth", TENSORS)
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        assert archive.testzip() is None
        assert archive.read("archive/version") == b"3\n"
