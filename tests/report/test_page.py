import math
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cnnjax import report
from cnnjax.report import answer

from .synthetic import Study, gaussian, make, singular_values


class Reader(HTMLParser):
    """Collects what a page loads, its ids and its images."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.loads += [
            value for name, value in attrs if value and (name == "src" or (name == "href" and tag == "link"))
        ]
        self.ids += [value for name, value in attrs if value and name == "id"]
        self.links += [value for name, value in attrs if value and name == "href"]
        if tag == "img":
            self.images.append(found)


def test_page_needs_nothing_but_itself(page: Path) -> None:
    text = page.read_text()
    reader = Reader(text)
    assert reader.loads and all(load.startswith("data:image/") for load in reader.loads)
    assert not re.search(r"url\(|@import|https?://", re.sub(r'src="data:[^"]*"', "", text))
    assert "default-src 'none'" in text
    assert page.stat().st_size < 5e6


def test_page_is_accessible(page: Path) -> None:
    reader = Reader(page.read_text())
    assert all(image["alt"] and image["width"] and image["height"] for image in reader.images)
    assert len(reader.ids) == len(set(reader.ids))
    text = page.read_text()
    assert text.count("<th ") == text.count('<th scope="col"')
    assert text.count("<table") == text.count("<caption>") > 0


def test_every_figure_has_its_files(page: Path) -> None:
    reader = Reader(page.read_text())
    for link in reader.links:
        assert (page.parent / link).stat().st_size > 0
    figures = {path.stem for path in (page.parent / "figures").iterdir()}
    assert figures >= {"gradient_by_layer", "gradient_map", "activation_by_layer", "saturated_by_layer"}
    assert figures >= {"correlation_by_layer", "loss_by_step", "accuracy_by_step", "accuracy_map"}
    assert figures >= {"gradient_by_layer_end", "ratio_against_accuracy"}
    for name in figures:
        assert {path.suffix for path in page.parent.glob(f"*/{name}.*")} == {".svg", ".png", ".csv"}


def test_page_begins_with_the_answer_and_the_lead(page: Path, small: Study) -> None:
    text = page.read_text()
    sentences = answer.paragraph(*small[:2])
    assert sentences[0] in text
    assert text.index(sentences[0]) < text.index("<figure") < text.index("<h2>")


def test_tables_hold_the_numbers(page: Path, small: Study) -> None:
    runs = pd.read_csv(page.parent / "tables" / "runs.csv")
    assert runs["test_accuracy"].to_numpy() == pytest.approx(
        small.runs["test_accuracy"].to_numpy(), nan_ok=True
    )
    drawn = pd.read_csv(page.parent / "tables" / "gradient_by_layer.csv")
    assert (drawn["median"] == -math.inf).any()
    cells = pd.read_csv(page.parent / "tables" / "cells.csv")
    assert len(cells) == 8


def test_no_temporary_file_is_left(page: Path) -> None:
    assert not [path for path in page.parent.rglob(".*")]


def test_write_replaces_an_older_page(tmp_path: Path) -> None:
    study = make(axes={"depth": [5, 10]}, seeds=1, rates=(0.1,), steps=0)
    (tmp_path / "index.html").write_text("old")
    assert report.write(*study, tmp_path) == tmp_path / "index.html"
    assert "old" not in (tmp_path / "index.html").read_text()[:3]


def test_partial_study_says_so(unfinished: Study, tmp_path: Path) -> None:
    text = report.write(*unfinished, tmp_path).read_text()
    done = (unfinished.runs["status"] != "unfinished").sum()
    assert f"not finished: {done} of {len(unfinished.runs)} runs are done" in text
    assert text.index("not finished:") < text.index("<figure")


def test_parts_from_another_machine_are_named(small: Study, tmp_path: Path) -> None:
    here = {name: small.info[name] for name in ("versions", "device", "run_axis", "precision", "commit")}
    there = here | {"versions": {"cnnjax": "0.1.0", "jax": "0.9.0"}, "run_axis": "vmap"}
    page = report.write(small.info | {"earlier": [there]}, small.runs, small.curves, small.layers, tmp_path)
    text = page.read_text()
    assert "partly computed with" in text and "jax 0.9.0, run axis vmap" in text
    assert "one after the other (map)" in text


def test_finished_study_has_no_warning(page: Path) -> None:
    assert "not finished" not in page.read_text()


@pytest.mark.parametrize(
    "options",
    [
        {"axes": {"depth": [20]}, "seeds": 1},
        {"axes": {}},
        {"axes": {"norm": [None, "batch"], "skip": [False, True]}, "rates": (0.1,)},
        {"axes": {"depth": [10, 100]}, "steps": 0},
    ],
    ids=["one depth and seed", "no axis", "labels that are not texts", "initialization only"],
)
def test_degenerate_studies(options: dict[str, Any], tmp_path: Path) -> None:
    study = make(**options)
    text = report.write(*study, tmp_path).read_text()
    assert ("single seed, so there is no band" in text) == (options.get("seeds") == 1)
    assert ("accuracy_map.svg" in text) == (
        bool(options.get("steps", 1)) and study.runs["cell"].nunique() > 1
    )
    assert "nan" not in re.sub(r'src="data:[^"]*"', "", text).split("<script>")[0]


def test_study_that_has_not_begun(small: Study, tmp_path: Path) -> None:
    empty = [
        "gradient_ratio_log10",
        "gradient_slope",
        "train_accuracy",
        "validation_accuracy",
        "test_accuracy",
    ]
    runs = small.runs.assign(status="unfinished", selected=False, flow=None, **dict.fromkeys(empty, math.nan))
    info = small.info | {"finished": None, "seconds": None, "commit": None, "peak_memory_gib": None}
    text = report.write(info, runs, small.curves.head(0), small.layers.head(0), tmp_path).read_text()
    assert "0 of 48 runs are done" in text
    assert "<figure" not in text


def test_texts_of_the_study_are_escaped(tmp_path: Path) -> None:
    study = make(axes={"depth": [5, 10]}, seeds=1, rates=(0.1,), steps=0)
    text = report.write(
        study.info | {"question": "<script>alert(1)</script>"}, *study[1:], tmp_path
    ).read_text()
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text


def test_empty_table_of_runs(small: Study, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the table of runs is empty: run the study before its report"):
        report.write(small.info, small.runs.head(0), small.curves, small.layers, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_grid_over_sigma_w2_and_depth_leads_with_its_map(tmp_path: Path) -> None:
    study = gaussian([1.0, 2.5], [4, 16], seeds=1, rates=(0.1,))
    text = report.write(*study, tmp_path).read_text()
    assert text.index('id="trainability"') < text.index('id="gradient_by_layer"') < text.index("<h2>")
    assert "6 times the depth scale" in text
    table = pd.read_csv(tmp_path / "tables" / "trainability.csv")
    # sigma_w2 = 1, sigma_b2 = 0.05: 6 xi_c = 21.8.
    assert table.loc[table["sigma_w2"] == 1, "bound"].to_numpy() == pytest.approx(21.8, abs=0.05)


def test_the_page_says_what_was_trained(tmp_path: Path) -> None:
    study = make(axes={"remedy": ["none", "clipped"]}, seeds=1, rates=(0.1,))
    grid = {"remedy": {"none": {"depth": 3}, "clipped": {"depth": 3, "optimizer": "sgd(clip=norm)"}}}
    config = {"model": "mlp", "options": {"width": 8, "depth": 2, "norm": None}, "grid": grid}
    config |= {"optimizer": "momentum", "schedule": "cosine"}
    text = report.write(study.info | {"config": config}, *study[1:], tmp_path).read_text()
    rows = re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", text)
    assert rows[:4] == [
        ("model", "mlp"),
        # Every variant has a depth of its own.
        ("options", "width=8, norm=none"),
        ("optimizer", "momentum"),
        ("schedule", "cosine"),
    ]
    assert rows[-2:] == [
        ("remedy: none", "depth=3"),
        ("remedy: clipped", "depth=3, optimizer=sgd(clip=norm)"),
    ]
    study = make(axes={"model": ["mlp", "plain"]}, seeds=1, rates=(0.1,))
    names = re.findall("<dt>(.*?)</dt>", report.write(*study, tmp_path).read_text())
    assert names[0] == "options" and not any("model" in name for name in names)


def test_measured_singular_values_lead_the_page(tmp_path: Path) -> None:
    study = make(axes={"activation": ["relu", "tanh"]}, seeds=2, rates=(0.1,), steps=0)
    measures = singular_values(
        study, {name: np.geomspace(0.1, 1, 20).reshape(2, 10) for name in ("relu", "tanh")}
    )
    text = report.write(*study, tmp_path, measures=measures).read_text()
    assert text.index('id="singular_values"') < text.index('id="gradient_by_layer"') < text.index("<h2>")
    assert pd.read_csv(tmp_path / "tables" / "singular_values.csv")["count"].sum() == 40


def test_other_studies_and_measures_have_neither(page: Path, tmp_path: Path) -> None:
    assert not {"trainability", "singular_values"} & {path.stem for path in page.parent.glob("figures/*")}
    study = make(axes={"depth": [5]}, seeds=1, rates=(0.1,), steps=0)
    number = pd.DataFrame({"run": [0], "measure": "singular_values", "index": 0, "value": 1.0})
    assert 'id="singular_values"' not in report.write(*study, tmp_path, measures=number).read_text()


def chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium on the PATH: install chromium to load the page in a browser")
    return found


def load(page: Path, fragment: str, folder: Path) -> str:
    """The document after its scripts ran."""
    command = [chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={folder}", "--dump-dom", f"{page.as_uri()}{fragment}"]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=True, env={**os.environ}
    ).stdout


@pytest.mark.parametrize("descending", [False, True])
def test_browser_sorts_the_table_of_runs(page: Path, small: Study, tmp_path: Path, descending: bool) -> None:
    text = load(page, f"#sort=runs:{'-' if descending else ''}test_accuracy", tmp_path)
    root = text[: text.index("<head>")]
    assert 'data-ready="yes"' in root and "data-error" not in root
    table = text[text.index('<table id="runs"') :]
    assert f'aria-sort="{"descending" if descending else "ascending"}"' in table[: table.index("<tbody>")]
    order = [int(run) for run in re.findall(r"<tr[^>]*><td[^>]*>(\d+)</td>", table)]
    expected = small.runs.sort_values("test_accuracy", ascending=not descending)["test_accuracy"]
    found = small.runs.set_index("run").loc[order, "test_accuracy"]
    assert found.to_numpy() == pytest.approx(expected.to_numpy(), nan_ok=True)
    assert found.iloc[-1:].isna().all() == small.runs["test_accuracy"].isna().any()
    assert "48 of 48" in text


def test_tables_from_disk_make_the_same_page(page: Path, small: Study, tmp_path: Path) -> None:
    # Parquet brings back nullable integers, booleans and texts, and float32 where the study stored it.
    runs = small.runs.astype({"diverged_step": "Int64", "diverged_layer": "string", "selected": "boolean"})
    tables = []
    for name, table in (("runs", runs), ("curves", small.curves), ("layers", small.layers)):
        table.to_parquet(tmp_path / f"{name}.parquet")
        tables.append(pd.read_parquet(tmp_path / f"{name}.parquet"))
    assert report.write(small.info, *tables, tmp_path).read_text() == page.read_text()
