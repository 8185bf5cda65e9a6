import numpy as np
import pandas as pd

from cnnjax.study.tables import mark_diverged, select_learning_rates


def runs_of(accuracy: dict, **columns) -> pd.DataFrame:
    """`accuracy`: from (cell, learning rate) to the validation accuracies of its seeds."""
    rows = [
        {
            "cell": cell,
            "learning_rate": rate,
            "validation_accuracy": a,
            "validation_loss": 1.0,
            "status": "finished",
        }
        for (cell, rate), values in accuracy.items()
        for a in values
    ]
    frame = pd.DataFrame(rows).assign(**columns)
    return frame.assign(run=range(len(frame)))


def selected(frame: pd.DataFrame) -> set:
    chosen = select_learning_rates(frame).query("selected")
    return set(zip(chosen["cell"], chosen["learning_rate"], strict=True))


def test_the_mean_over_seeds_decides_in_each_cell():
    frame = runs_of(
        {(0, 0.1): [0.9, 0.1], (0, 0.01): [0.6, 0.6], (1, 0.1): [0.8, 0.7], (1, 0.01): [0.1, 0.9]}
    )
    assert selected(frame) == {(0, 0.01), (1, 0.1)}


def test_a_run_without_accuracy_counts_as_nothing_right():
    assert selected(runs_of({(0, 0.1): [0.9, np.nan], (0, 0.01): [0.5, 0.5]})) == {(0, 0.01)}


def test_equal_accuracies_are_decided_by_loss_then_by_the_smaller_rate():
    frame = runs_of({(0, 0.1): [0.5], (0, 0.01): [0.5], (1, 0.1): [0.5], (1, 0.01): [0.5]})
    frame["validation_loss"] = [0.1, 0.2, 0.3, 0.3]
    assert selected(frame) == {(0, 0.1), (1, 0.01)}


def test_a_cell_with_an_unfinished_run_has_no_choice_yet():
    frame = runs_of({(0, 0.1): [0.5], (1, 0.1): [0.5]}, status=["finished", "unfinished"])
    assert selected(frame) == {(0, 0.1)}


def test_divergence_is_marked_at_the_first_step_it_was_seen():
    runs = pd.DataFrame({"run": [4, 5, 6], "status": "finished", "test_loss": [1.0, np.nan, np.nan]})
    runs = runs.assign(
        diverged_step=pd.array([None] * 3, "Int64"), diverged_layer=pd.array([None] * 3, "string")
    )
    curves = pd.DataFrame(
        {
            "run": [4, 5, 5, 6],
            "step": [20, 10, 20, 20],
            "broken_step": [np.nan, 7, 10, np.nan],
            "broken_layer": [0, 1, 0, 0],
        }
    )
    marked = mark_diverged(runs, curves, ["stem", "head"]).set_index("run")
    assert marked["status"].to_dict() == {4: "finished", 5: "diverged", 6: "diverged"}
    assert marked.loc[5, ["diverged_step", "diverged_layer"]].tolist() == [7, "head"]
    # Run 6 broke in its very last update: the step is known, the layer is not.
    assert marked.loc[6, "diverged_step"] == 20 and pd.isna(marked.loc[6, "diverged_layer"])
