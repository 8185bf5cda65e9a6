import numpy as np

from cnnjax import models, probes
from cnnjax.study import Store, Study, plan, run
from cnnjax.study.predictions import predictions

STUDY = Study(
    name="predicted",
    question="?",
    model="plain",
    options={"width": 4, "activation": "tanh", "padding": "CIRCULAR"},
    grid={"initializer": ["gaussian", "delta_orthogonal"], "gain": [0.8, 1.2], "depth": [4, 6]},
    seeds=2,
    learning_rates=[0.1, 0.01],
    steps=0,
    batch_size=8,
)


def test_every_cell_has_the_prediction_of_its_network():
    table = predictions(plan(STUDY), (8, 8, 1))
    cells = {run.cell: run for program in plan(STUDY) for run in program.runs}
    assert table.groupby("cell")["layer"].max().tolist() == [3, 5] * 4
    for cell in (0, 5):
        options = {**STUDY.options, **cells[cell].labels}
        expected = probes.predict(models.create("plain", **options), (8, 8, 1), batch=8).frame()
        own = table[table["cell"] == cell].reset_index(drop=True)
        for column in expected:
            np.testing.assert_array_equal(own[column], expected[column], err_msg=column)


def test_a_study_stores_them_and_makes_a_lost_table_again(tmp_path):
    store = run(STUDY, tmp_path, quiet=True)
    table = store.table("theory")
    (tmp_path / "theory.parquet").unlink()
    run(STUDY, tmp_path, quiet=True)
    assert Store(tmp_path).table("theory").equals(table)
    # Delta-orthogonal tanh networks of gain 0.8 lose the gradient as theory says they do.
    layers = store.table("layers").merge(store.table("runs")[["run", "cell"]], on="run")
    measured = layers.groupby(["cell", "layer"])["gradient_log10_second_moment"].median()
    first, last = measured.loc[(5, 0)], measured.loc[(5, 4)]
    own = table[table["cell"] == 5].set_index("layer")["gradient_log10_second_moment"]
    assert abs((first - last) - (own[0] - own[4])) < 0.5


def test_cells_that_theory_does_not_cover_have_no_rows():
    study = STUDY.replace(model="lenet5", options={"padding": "SAME"}, grid={"gain": [1.0]})
    table = predictions(plan(study), (8, 8, 1))
    assert set(table["cell"]) <= {0} and list(table.columns)[:2] == ["cell", "layer"]
