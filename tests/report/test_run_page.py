import json
import math
import re
import shutil
from html.parser import HTMLParser

import pandas as pd
import pytest

from cnnjax.report import run_answer, run_page
from cnnjax.training import journal

from ..made_up_run import make_run

NOTE = "104 of the <10,000> test images are not the official ones."


class Reader(HTMLParser):
    """Collects what a page loads and links to, its ids, images and texts."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.links, self.ids, self.images = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.loads += [found[name] for name in ("src",) if name in found]
        self.links += [found["href"]] if "href" in found else []
        self.ids += [found["id"]] if "id" in found else []
        self.images += [found] if tag == "img" else []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "a", layers=6, notes=(NOTE,))


@pytest.fixture(scope="module")
def page(folder):
    return run_page.write(folder)


def words(page):
    return re.sub(r'src="data:[^"]*"', "", page.read_text()).split("<script>")[0]


def rows(text, name):
    """The texts of a table's cells."""
    table = re.search(rf'<table id="{name}">.*?</table>', text, re.S).group()
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>.*?</tr>", table, re.S)][1:]


def test_the_page_needs_nothing_but_itself(page, folder):
    assert page == folder / "report" / "index.html"
    reader = Reader(page.read_text())
    assert reader.loads and all(load.startswith("data:image/") for load in reader.loads)
    assert not re.search(r"url\(|@import|https?://", words(page))
    assert "default-src 'none'" in page.read_text() and page.stat().st_size < 2e6
    assert len(reader.ids) == len(set(reader.ids))
    assert all(image["alt"] and image["width"] and image["height"] for image in reader.images)


def test_every_figure_has_its_files(page):
    reader = Reader(page.read_text())
    for link in reader.links:
        assert (page.parent / link).stat().st_size > 0
    names = {path.stem for path in (page.parent / "figures").iterdir()}
    assert names == {
        *("learning", "gradient_norm", "speed", "confusion", "class_accuracy", "reliability"),
        *("gradient_by_layer", "activation_by_layer", "saturated_by_layer", "dead_by_layer"),
    }
    for name in names:
        assert {path.suffix for path in page.parent.glob(f"*/{name}.*")} == {".svg", ".png", ".csv"}
    assert not list(page.parent.rglob(".*"))


def test_warnings_and_the_answer_come_first(page, folder):
    text, run = words(page), journal.read_run(folder)
    first = run_answer.paragraph(run)[0]
    warning = NOTE.replace("<", "&lt;").replace(">", "&gt;")
    assert (
        text.index("<h1>")
        < text.index(warning)
        < text.index(first)
        < text.index("<figure")
        < text.index("<h2>")
    )


def test_figures_are_in_order(page):
    found = re.findall(r'<figure id="(\w+)">', words(page))
    assert found[:4] == ["learning", "gradient_norm", "speed", "gradient_by_layer"]
    assert found[-3:] == ["confusion", "class_accuracy", "reliability"]
    numbers = re.findall(r"<b>Figure (\d+)\.", words(page))
    assert numbers == [str(i + 1) for i in range(len(found))]


def test_tables_hold_the_numbers(page, folder):
    run, text = journal.read_run(folder), words(page)
    log = pd.read_csv(page.parent / "tables" / "log.csv")
    assert log["loss"].to_numpy() == pytest.approx(run.log["loss"].to_numpy())
    assert len(pd.read_csv(page.parent / "tables" / "layers.csv")) == len(run.layers)
    test = run.evaluation["test"]
    split, images, _, accuracy, *_ = rows(text, "splits")[1]
    assert (split, images) == ("test", "10,000") and accuracy.startswith(f"{100 * test['accuracy']:.2f} [")
    pairs = rows(text, "pairs")
    assert pairs[0][:2] == ["cat", "dog"] and int(pairs[0][2]) == test["confusion"][3][5]
    assert len(pairs) == run_page.PAIRS
    assert len(pd.read_csv(page.parent / "tables" / "confused_pairs.csv")) > run_page.PAIRS


def test_what_differs_from_the_defaults_stands_first(page):
    text = words(page)
    changed, all_of_it = rows(text, "changed"), rows(text, "recipe")
    assert ["model", "cifar_resnet20", "lenet5"] in changed
    assert ["schedule.boundaries", "3200, 4800", "none"] in changed
    assert not [row for row in changed if row[1] == row[2]]
    assert [row for row in all_of_it if row[:2] == ["batch_size", "128"]] and len(all_of_it) > len(changed)


def test_who_repeats_the_run_finds_what_is_needed(page):
    text = words(page)
    for part in (
        "<code>cnnjax train cifar10-resnet20</code>",
        "<dt>device</dt><dd>2 × made up (gpu)</dd>",
        "<dt>versions</dt><dd>python 3.12.1, cnnjax 0.1.0, jax 0.12.0</dd>",
        "<dt>commit</dt><dd>0123456789abcdef</dd>",
        "<dt>parameters</dt><dd>272,474</dd>",
        "<dt>time</dt><dd>1 min 57 s</dd>",
        "cifar10; 10 classes; images of 32×32×3; 45,000 for training, 5,000 for validation, 10,000 for the test",
        "mean 0.4914, 0.4822, 0.4465; deviation 0.247, 0.2435, 0.2616",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("options", "figures"),
    [
        ({"until": 0, "state": "failed", "error": "out of memory", "look_every": 0}, 0),
        ({"until": 100, "state": "stopped", "look_every": 0}, 3),
        ({"until": 300, "state": "running", "evaluate_every": 0, "look_every": 100, "layers": 2}, 7),
        ({"every": 3200, "diverged": 0, "state": "failed", "error": "not finite", "look_every": 0}, 2),
        ({"every": 3200, "look_every": 0, "evaluated": ("validation",), "classes": 2, "names": False}, 6),
    ],
    ids=["nothing", "one record", "no validation", "never finite", "no test"],
)
def test_runs_that_lack_parts(tmp_path, options, figures):
    folder = make_run(tmp_path, **{"evaluated": (), **options})
    text = words(run_page.write(folder))
    assert text.count("<figure") == figures
    assert "nan" not in text and "None" not in text
    if options.get("error"):
        assert f"This run failed at step {journal.read_status(folder).step:,}" in text
    if figures == 0:
        assert "has not recorded a step yet" in text and "As files" not in text


def test_run_json_with_the_least_that_there_may_be(tmp_path):
    info = {"name": "x", "recipe": {"model": "mlp"}, "command": "", "data": {"name": "y", "num_classes": 3}}
    journal.write_info(tmp_path, info)
    journal.append(tmp_path / "log.jsonl", {"step": 5, "loss": 1.0, "accuracy": math.nan})
    text = words(run_page.write(tmp_path))
    assert "mlp on y has been trained for 5 steps." in text and "<dd>y; 3 classes</dd>" in text


def test_a_page_is_replaced(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("report"))
    (copy / "layers.jsonl").unlink()
    (copy / "evaluation.json").unlink()
    (copy / "report").mkdir()
    (copy / "report" / "index.html").write_text("old")
    assert run_page.write(copy).read_text().startswith("<!doctype html>")


def test_damage_is_named_and_nothing_written(tmp_path):
    folder = make_run(tmp_path / "a", until=100, evaluated=(), look_every=0)
    (folder / "evaluation.json").write_text(json.dumps({"step": 3})[:-2])
    with pytest.raises(ValueError, match="evaluation.json is no whole JSON file"):
        run_page.write(folder)
    assert not (folder / "report").exists()
