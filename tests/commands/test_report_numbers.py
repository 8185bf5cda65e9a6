"""The numbers of a report are those of the tables that the engine stored."""

import json
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from cnnjax.cli import main
from cnnjax.frame import Frame

from .conftest import FILE

# No network survives the second rate; the cell "lost" has no other.
DIVERGING = FILE.replace(
    'grid={"initializer": ["he_normal", "xavier_normal"], "depth": [3]}',
    'grid={"arm": {"some": {"depth": 3}, "lost": {"depth": 3, "learning_rate": 1e20}}}',
).replace("learning_rates=[0.1, 0.01]", "learning_rates=[0.1, 1e20]")


class Page(HTMLParser):
    """The texts of the tables by their ids, and the values by which they are sorted; the facts of the study by name."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.sorted, self.facts = {}, {}, {}
        self._rows, self._order, self._cell = [], [], None
        self._name = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag == "table":
            self._rows = self.tables[found["id"]] = []
            self._order = self.sorted[found["id"]] = []
        elif tag == "tr":
            self._rows.append([])
            self._order.append([])
        elif tag in ("td", "th", "dt", "dd"):
            self._cell = ""
            if tag == "td":
                self._order[-1].append(found.get("data-s"))
            elif tag == "th":
                self._order[-1].append(found["data-key"])

    def handle_data(self, data):
        if self._cell is not None:
            self._cell += data

    def handle_endtag(self, tag):
        if self._cell is None:
            return
        if tag in ("td", "th"):
            self._rows[-1].append(self._cell.strip())
        elif tag == "dt":
            self._name = self._cell
        elif tag == "dd":
            self.facts[self._name] = self._cell
        if tag in ("td", "th", "dt", "dd"):
            self._cell = None

    def column(self, name, key):
        """The texts of a column of a table."""
        at = self.sorted[name][0].index(key)
        return [row[at] for row in self.tables[name][1:]]

    def frame(self, name) -> Frame:
        """A table as it is sorted: the keys of the columns, and of every entry the exact value."""
        texts, orders = self.tables[name], self.sorted[name]
        rows = [
            [text if order is None else order for text, order in zip(*row, strict=True)]
            for row in zip(texts[1:], orders[1:], strict=True)
        ]
        return pd.DataFrame(rows, columns=orders[0])


@pytest.fixture(scope="session")
def diverging(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diverging")
    (folder / "study.py").write_text(DIVERGING)
    assert main(["run", str(folder / "study.py"), "--out", str(folder / "out"), "--quiet"]) == 0
    return folder / "out"


@pytest.fixture(params=["finished", "diverging"])
def folder(request):
    made = request.getfixturevalue(request.param)
    return getattr(made, "folder", made)


def stored(folder, name) -> Frame:
    return pd.read_parquet(folder / f"{name}.parquet")


def written(folder, name) -> Frame:
    return pd.read_csv(folder / "report" / "tables" / f"{name}.csv", float_precision="round_trip")


def page(folder):
    return Page((folder / "report" / "index.html").read_text())


def axes(folder):
    return list(json.loads((folder / "study.json").read_text())["axes"])


def test_some_runs_of_the_second_study_diverge(diverging):
    statuses = stored(diverging, "runs").groupby(["arm", "learning_rate"])["status"].agg(set).to_dict()
    lost, done = {"diverged"}, {"finished"}
    assert statuses == {("lost", 1e20): lost, ("some", 0.1): done, ("some", 1e20): lost}


def test_the_file_of_runs_is_the_table_of_runs(folder):
    runs, file = stored(folder, "runs"), written(folder, "runs")
    assert list(file.columns) == list(runs.columns)
    for name, column in runs.items():
        np.testing.assert_array_equal(file[name].isna(), column.isna(), err_msg=name)
        known = column.notna()
        assert file[name][known].tolist() == column[known].tolist(), name


def test_the_runs_on_the_page_are_those_of_the_table(folder):
    runs, shown = stored(folder, "runs"), page(folder).frame("runs")
    assert set(runs.columns) - set(shown.columns) <= {"cell", "diverged_step", "diverged_layer"}
    for name in set(shown.columns) - {"selected"}:
        known = runs[name].notna()
        assert (shown[name][~known] == "").all(), name
        if pd.api.types.is_numeric_dtype(runs[name]):
            np.testing.assert_array_equal(shown[name][known].astype(float), runs[name][known].astype(float))
        else:
            assert shown[name][known].tolist() == runs[name][known].tolist()
    texts = page(folder).column("runs", "selected")
    assert texts == ["yes" if chosen else "no" for chosen in runs["selected"]]


def test_accuracies_are_shown_in_percent_with_one_digit(folder):
    accuracies = stored(folder, "runs")["test_accuracy"]
    expected = ["–" if np.isnan(value) else f"{100 * value:.1f}" for value in accuracies]
    assert page(folder).column("runs", "test_accuracy") == expected


def test_cells_are_the_runs_at_the_selected_rate(folder):
    runs, cells = stored(folder, "runs"), written(folder, "cells").set_index("cell")
    shown = page(folder).frame("cells").set_index("cell")
    assert list(cells.index) == sorted(runs["cell"].unique()) == [int(cell) for cell in shown.index]
    for cell, own in runs[runs["selected"]].groupby("cell"):
        row, ratio = cells.loc[cell], own["gradient_ratio_log10"]
        done = own[own["status"] == "finished"]
        expected = {
            "gradient_ratio_log10": np.median(ratio),
            "gradient_ratio_log10_min": ratio.min(),
            "gradient_ratio_log10_max": ratio.max(),
            "gradient_slope": np.median(own["gradient_slope"]),
            "test_accuracy": np.mean(done["test_accuracy"]) if len(done) else np.nan,
            "test_accuracy_sd": np.std(done["test_accuracy"], ddof=1) if len(done) else np.nan,
            "validation_accuracy": np.mean(done["validation_accuracy"]) if len(done) else np.nan,
            "seeds": len(done),
            "diverged": len(own) - len(done),
            "learning_rate": own["learning_rate"].iloc[0] if len(done) else np.nan,
        }
        assert row[list(expected)].to_dict() == pytest.approx(expected, nan_ok=True, rel=1e-12)
        trained = bool(len(done)) and expected["test_accuracy"] >= 0.2
        assert row["verdict"] == ("trainable" if trained else "untrainable")
        on_page = shown.loc[str(cell)]
        assert float(on_page["gradient_ratio_log10"]) == pytest.approx(
            expected["gradient_ratio_log10"], rel=1e-12
        )
        accuracy = float(on_page["test_accuracy"] or "nan")
        assert accuracy == pytest.approx(expected["test_accuracy"], rel=1e-12, nan_ok=True)


def band(rows, keys, column) -> Frame:
    """Median, minimum, maximum and number of a column over seeds."""
    stats = rows.groupby(keys, sort=True)[column].agg(["median", "min", "max", "count"])
    return stats.rename(columns={"min": "low", "max": "high", "count": "n"})


def selected(folder, table) -> Frame:
    """The rows of a table that belong to runs at the selected rate, with the axes of the grid."""
    runs = stored(folder, "runs")
    return stored(folder, table).merge(runs[runs["selected"]][["run", *axes(folder)]], on="run")


@pytest.mark.parametrize(
    ("name", "column", "last"),
    [
        ("gradient_by_layer", "gradient_log10_second_moment", False),
        ("activation_by_layer", "output_log10_second_moment", False),
        ("correlation_by_layer", "correlation", False),
        ("gradient_by_layer_end", "gradient_log10_second_moment", True),
    ],
)
def test_a_figure_by_layer_is_drawn_from_the_table_of_layers(folder, name, column, last):
    rows = selected(folder, "layers")
    rows = rows[rows["step"] == (rows["step"].max() if last else 0)]
    if last:
        runs = stored(folder, "runs")
        rows = rows[rows["run"].isin(runs.loc[runs["status"] == "finished", "run"])]
    keys = [*axes(folder), "layer"]
    drawn = written(folder, name)
    assert drawn["x"].tolist() == drawn["layer"].tolist()
    drawn = drawn.set_index(keys).sort_index()[["median", "low", "high", "n"]]
    pd.testing.assert_frame_equal(drawn, band(rows, keys, column), rtol=1e-6, check_dtype=False)


@pytest.mark.parametrize(
    ("name", "column"), [("loss_by_step", "loss"), ("accuracy_by_step", "validation_accuracy")]
)
def test_a_figure_by_step_is_drawn_from_the_table_of_curves(folder, name, column):
    rows = selected(folder, "curves")
    rows[column] = rows[column].where(np.isfinite(rows[column]))
    keys = [*axes(folder), "step"]
    drawn = written(folder, name).set_index(keys).sort_index()[["median", "low", "high", "n"]]
    pd.testing.assert_frame_equal(drawn, band(rows, keys, column), rtol=1e-12, check_dtype=False)


def test_values_are_counted_from_cells(folder):
    cells, values = written(folder, "cells"), written(folder, "values")
    for _, row in values.iterrows():
        own = cells[cells[row["axis"]].astype(str) == row["value"]]
        assert row["cells"] == len(own) > 0
        for flow in ("stable", "vanishing", "exploding"):
            assert row[flow] == (own["flow"] == flow).sum()
        assert row["trainable"] == (own["verdict"] == "trainable").sum()


def test_the_page_tells_the_circumstances_that_were_recorded(folder):
    info = json.loads((folder / "study.json").read_text())
    facts = page(folder).facts
    assert facts["versions"] == ", ".join(f"{name} {version}" for name, version in info["versions"].items())
    assert facts["learning rates"].split(", ") == [f"{rate:g}" for rate in info["learning_rates"]]
    assert facts["device"] == "8 × cpu (cpu)" and info["device"]["count"] == 8
    assert (facts["precision"], facts["steps"], facts["seeds"]) == ("float32", "4", "0, 1")
    assert facts["runs of one device"] == "one after the other (map)" and info["run_axis"] == "map"
    assert facts["peak memory"] == f"{info['peak_memory_gib']:.2f} GiB"
    assert facts["finished"] == info["finished"] and facts.get("commit") == info["commit"]
    assert info["command"] in (folder / "report" / "index.html").read_text()
