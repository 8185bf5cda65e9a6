import base64

import pandas as pd
import pytest
from matplotlib.figure import Figure

from cnnjax.report import sheet
from cnnjax.report.plates import Plate


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (float("nan"), ""),
        (0.25, "0.25 s"),
        (59.6, "1 min 0 s"),
        (61, "1 min 1 s"),
        (3723, "1 h 2 min 3 s"),
    ],
)
def test_duration(seconds, text):
    assert sheet.duration(seconds) == text


def test_device():
    assert sheet.device({"count": 2, "kind": "H", "platform": "gpu"}) == "2 × H (gpu)"


@pytest.mark.parametrize(("largest", "kind", "ending"), [(10**9, "svg+xml", "svg"), (0, "png", "png")])
def test_a_figure_is_written_and_carried_by_the_page(tmp_path, monkeypatch, largest, kind, ending):
    monkeypatch.setattr(sheet, "LARGEST", largest)
    table = pd.DataFrame({"step": [1, 2], "loss": [0.5, float("nan")]})
    plate = Plate("one", "lead", "Title", "Caption.", "Alternative.", Figure(figsize=(2, 1)), table, True)
    shown = sheet.put_figure(plate, 3, tmp_path)
    assert (shown["number"], shown["name"], shown["width"], shown["height"]) == (3, "one", 192, 96)
    assert shown["folded"] and shown["caption"] == "Caption."
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert written == {"figures/one.svg", "figures/one.png", "tables/one.csv"}
    assert (tmp_path / "tables/one.csv").read_text() == "step,loss\n1,0.5\n2,\n"
    head, content = shown["image"].split(",")
    assert head == f"data:image/{kind};base64"
    assert base64.b64decode(content) == (tmp_path / f"figures/one.{ending}").read_bytes()
