import math

import numpy as np
import pytest

from cnnjax.report import style
from cnnjax.report.run_figures import POINTS, best, curves
from cnnjax.training import journal

from ..made_up_run import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return journal.read_run(make_run(tmp_path_factory.mktemp("runs") / "a", look_every=0))


def plates(run, log=None):
    return {plate.name: plate for plate in curves(run.info, run.log if log is None else log)}


def lines(plate):
    """The lines of all panels by the column that they draw."""
    found = [line for axes in plate.figure.axes for line in axes.get_lines()]
    return {line.get_gid(): np.asarray(line.get_xydata(), float) for line in found if line.get_gid()}


def shaded(plate):
    patches = [patch for patch in plate.figure.axes[0].patches if patch.get_gid() == "not-finite"]
    boxes = [
        patch.get_window_extent().transformed(plate.figure.axes[0].transData.inverted()) for patch in patches
    ]
    return [(round(box.x0), round(box.x1)) for box in boxes]


def test_the_figures_of_a_whole_run(run):
    found = plates(run)
    assert list(found) == ["learning", "gradient_norm", "speed"]
    assert found["learning"].section == "lead" and len(found["learning"].figure.axes) == 3
    for plate in found.values():
        assert plate.table["step"].tolist() == run.log["step"].tolist()
        assert plate.figure.get_figwidth() == style.WIDTH


def test_lines_are_the_log(run):
    drawn = lines(plates(run)["learning"])
    np.testing.assert_allclose(drawn["loss"], np.c_[run.log["step"], np.log10(run.log["loss"])])
    np.testing.assert_allclose(drawn["accuracy"], run.log[["step", "accuracy"]])
    known = run.log[run.log["validation_loss"].notna()]
    np.testing.assert_allclose(
        drawn["validation_loss"], np.c_[known["step"], np.log10(known["validation_loss"])]
    )
    np.testing.assert_allclose(drawn["best"], [best(run.info, run.log)])
    np.testing.assert_allclose(lines(plates(run)["speed"])["input_wait"], run.log[["step", "input_wait"]])


def test_the_best_is_the_first_of_equal_ones(run):
    log = run.log.assign(validation_accuracy=math.nan)
    assert best(run.info, log) is None and best(run.info, log.head(0)) is None
    log.loc[[3, 5, 7], "validation_accuracy"] = [0.5, 0.75, 0.75]
    assert best(run.info, log) == (600, 0.75)


def test_labels_of_several_classes_are_judged_by_their_ranking(run):
    info = run.info | {"data": run.info["data"] | {"label_kind": "multi"}}
    log = run.log.assign(validation_mean_average_precision=1 - run.log["validation_accuracy"])
    row = log["validation_accuracy"].idxmin()
    found = best(info, log)
    assert found == (log.loc[row, "step"], 1 - log.loc[row, "validation_accuracy"])
    plate = next(curves(info, log))
    drawn = lines(plate)
    np.testing.assert_allclose(drawn["best"], [found])
    assert drawn.keys() >= {"validation_accuracy", "validation_mean_average_precision"}
    words = [text.get_text() for text in plate.figure.legends[0].get_texts()]
    assert words == ["training", "validation", "validation, mean average precision"]
    assert "Ring: the best validation mean average precision, " in plate.caption


def test_long_logs_are_averaged(run, tmp_path):
    long = journal.read_run(make_run(tmp_path, steps=2 * POINTS + 1, every=1, look_every=0, evaluated=()))
    plate = plates(long)["learning"]
    drawn = lines(plate)["accuracy"]
    # Groups of three: the last one has two.
    assert len(drawn) == math.ceil((2 * POINTS + 1) / 3)
    np.testing.assert_allclose(drawn[0], [3, long.log["accuracy"][:3].mean()])
    assert drawn[-1, 0] == 2 * POINTS + 1
    assert "a mean over 3 records, which the table holds one by one" in plate.caption
    assert len(plate.table) == 2 * POINTS + 1
    assert "a mean over the steps since the point before" in plates(run)["learning"].caption


def test_where_the_loss_is_not_finite_it_is_shaded(run):
    log = run.log.copy()
    log.loc[[10, 11, 40], "loss"] = [math.nan, math.inf, math.nan]
    plate = plates(run, log)["learning"]
    assert shaded(plate) == [(1000, 1200), (4000, 4100)]
    assert "Shaded: records without a finite loss." in plate.caption
    drawn = lines(plate)["loss"]
    assert np.isnan(drawn[[10, 11, 40], 1]).all() and np.isfinite(np.delete(drawn[:, 1], [10, 11, 40])).all()
    assert not shaded(plates(run)["learning"])


def test_a_loss_on_its_way_to_divergence_does_not_flatten_the_rest(run):
    log = run.log.copy()
    log.loc[63, "loss"] = 1e30
    _, high = plates(run, log)["learning"].figure.axes[0].get_ylim()
    assert high < math.log10(math.log(10)) + 1.5


def test_skipped_steps_are_marked(run):
    log = run.log.copy()
    log.loc[[4, 8], "skipped"] = [2, 1]
    plate = plates(run, log)["gradient_norm"]
    assert lines(plate)["skipped"][:, 0].tolist() == [500, 900]
    assert "updates were left out (3 in all)" in plate.caption
    assert "left out" not in plates(run)["gradient_norm"].caption


@pytest.mark.parametrize(
    ("missing", "names", "panels"),
    [
        (("validation_loss", "validation_accuracy"), ["learning", "gradient_norm", "speed"], 3),
        (("learning_rate",), ["learning", "gradient_norm", "speed"], 2),
        (("loss", "accuracy", "gradient_norm"), ["learning", "speed"], 3),
        (("images_per_second", "input_wait"), ["learning", "gradient_norm"], 3),
        (("images_per_second",), ["learning", "gradient_norm", "speed"], 3),
        (("input_wait", "seconds", "skipped"), ["learning", "gradient_norm", "speed"], 3),
    ],
)
def test_logs_that_lack_columns(run, missing, names, panels):
    found = plates(run, run.log.assign(**dict.fromkeys(missing, math.nan)))
    assert list(found) == names and len(found["learning"].figure.axes) == panels
    for plate in found.values():
        plate.figure.draw_without_rendering()
    assert ("never evaluated" in found["learning"].caption) == ("validation_loss" in missing)


def test_one_record_or_none(run):
    found = plates(run, run.log.head(1))
    assert list(found) == ["learning", "gradient_norm", "speed"]
    for axes in found["learning"].figure.axes[::2]:
        # A single value has a tick to be read by.
        assert len(axes.get_yticks()) > 0
    assert not plates(run, run.log.head(0))
