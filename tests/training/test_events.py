import math
import struct
import sys

import pytest

from cnnjax.training.events import LAYERS, SCALARS, Events

REASON = "pip install -e '.[test]'"


def events_of(folder):
    """The scalars of all event files as {name: {step: value}}, as TensorBoard reads them: a start takes back later steps."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2", reason=REASON)
    found = {}
    for file in sorted(folder.iterdir()):
        data, at = file.read_bytes(), 0
        while at < len(data):
            # Length, its checksum, the event, its checksum.
            (size,) = struct.unpack("<Q", data[at : at + 8])
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + size])
            at += size + 16
            if event.HasField("session_log"):
                found = {name: {s: v for s, v in of.items() if s < event.step} for name, of in found.items()}
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


@pytest.fixture
def installed():
    pytest.importorskip("tensorboardX", reason=REASON)


def test_a_record_has_a_scalar_for_each_column(tmp_path, installed):
    record = {column: i / 8 for i, column in enumerate(SCALARS)}
    with Events(tmp_path) as events:
        events.record({"step": 100, "seconds": 2.0, **record})
        events.record({"step": 200, "loss": 0.5})
    found = events_of(tmp_path)
    assert found["train/loss"] == {100: 0.0, 200: 0.5}
    assert found["validation/top5"] == {100: list(SCALARS).index("validation_top5") / 8}
    assert sorted(found) == sorted(SCALARS.values())


def test_what_is_not_finite_is_left_out_without_a_word(tmp_path, installed, caplog, capfd):
    with Events(tmp_path) as events:
        events.record(
            {"step": 1, "loss": math.nan, "accuracy": None, "gradient_norm": math.inf, "epoch": 1.0}
        )
        events.look({"step": 1, "layers": ["a", "b"], "gradient_log10_second_moment": [-math.inf, -3.0]})
    assert events_of(tmp_path) == {"train/epoch": {1: 1.0}, "gradient/b": {1: -3.0}}
    assert not caplog.records and capfd.readouterr() == ("", "")


def test_layers_have_curves_at_most_so_many(tmp_path, installed):
    names = [f"stack[{i}]/layer" for i in range(1000)]
    with Events(tmp_path) as events:
        events.look({"step": 5, "layers": names, "gradient_log10_second_moment": list(range(1000))})
    found = events_of(tmp_path)
    assert len(found) == LAYERS
    assert found["gradient/stack_0_/layer"] == {5: 0.0}
    assert found["gradient/stack_999_/layer"] == {5: 999.0}


def test_a_run_that_goes_on_takes_back_what_is_done_again(tmp_path, installed):
    with Events(tmp_path) as events:
        for step in (0, 10, 20, 30):
            events.record({"step": step, "loss": 1.0})
    with Events(tmp_path, step=10) as events:
        events.record({"step": 20, "loss": 2.0})
    assert len(list(tmp_path.iterdir())) == 2
    assert events_of(tmp_path) == {"train/loss": {0: 1.0, 10: 1.0, 20: 2.0}}


def test_events_can_be_read_while_the_run_goes_on(tmp_path, installed):
    with Events(tmp_path) as events:
        events.record({"step": 1, "loss": 1.0})
        assert events_of(tmp_path) == {"train/loss": {1: 1.0}}


def test_without_the_package_the_error_names_the_extra(tmp_path, monkeypatch):
    for module in ("tensorboardX", "tensorboardX.event_file_writer"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ImportError, match=r"need the package tensorboardX: pip install 'cnnjax\[tensorboard\]'"
    ):
        Events(tmp_path / "events")
    assert not (tmp_path / "events").exists()
