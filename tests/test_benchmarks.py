"""The benchmarks at toy size: what is measured against what, the arithmetic of the table, and their options."""

import importlib
import json
import os
import re
import runpy
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
COMPARING = (
    "bench_conv",
    "bench_depth",
    "bench_grid",
    "bench_models",
    "bench_run_axis",
    "bench_scaling",
    "bench_train",
)
FOREIGN = ("bench_grid", "bench_models", "bench_train")
pytestmark = pytest.mark.usefixtures("importable_scripts")


@pytest.fixture
def benchmarking():
    return importlib.import_module("benchmarking")


@pytest.fixture
def bench(benchmarking):
    """Makes a bench whose sides answer with known milliseconds, one after the other, and remembers who was asked."""

    def make(milliseconds, *, rounds=3, only=""):
        bench = benchmarking.Bench(["nothing to start"], {}, rounds=rounds, only=only)
        answers = {side: iter(times) for side, times in milliseconds.items()}
        bench.asked, bench.closed = [], []

        def ask(side, case):
            bench.asked.append((side, case))
            return benchmarking.Reply(next(answers[side]), None, 0.0, "a device")

        bench.ask, bench.close = ask, lambda *sides: bench.closed.append(sides)
        return bench

    return make


TIMES = {"ours": [2.0, 1.0, 300.0], "other": [6.0, 500.0, 5.0]}


@pytest.mark.parametrize(
    ("bounds", "ratio", "required", "met"),
    [
        ({"at_least": 3}, 3.0, "3 times faster", True),
        ({"at_least": 3.1}, 3.0, "3.1 times faster", False),
        ({"at_most": 0.34}, 1 / 3, "ours <= 0.34 other", True),
        ({"at_most": 0.33}, 1 / 3, "ours <= 0.33 other", False),
        ({}, 3.0, "", None),
    ],
)
def test_medians_are_compared_with_what_is_required(bench, bounds, ratio, required, met):
    made = bench(TIMES)
    made.compare("case", "ours", "other", **bounds)
    (row,) = made.rows
    assert (row.case, row.ours, row.other) == ("case", 2.0, 6.0)
    assert row.ratio == pytest.approx(ratio)
    assert (row.required, row.met) == (required, met)


def test_sides_are_asked_in_turn(bench):
    made = bench(TIMES)
    made.compare("case", "ours", "other", rounds=2)
    assert made.asked == [("ours", "case"), ("other", "case")] * 2
    assert (made.rows[0].ours, made.rows[0].other) == (1.5, 253.0)


def test_a_row_may_hold_the_time_of_a_part(bench):
    made = bench(TIMES)
    made.compare("case", "ours", "other", at_least=2, per=4, name="the part")
    (row,) = made.rows
    assert (row.case, row.ours, row.other, row.ratio) == ("the part", 0.5, 1.5, 3.0)


def test_only_what_is_wanted_is_measured_by_the_name_that_is_shown(bench):
    made = bench(TIMES, only="wide")
    made.compare("case", "ours", "other", name="narrow")
    made.compare("wide", "ours", "other", name="narrow")
    assert made.asked == [] and made.rows == []
    made.compare("case", "ours", "other", name="very wide")
    assert [row.case for row in made.rows] == ["very wide"]
    made.compare_all(["narrow", "narrower"], "ours", "other", at_most=1)
    assert len(made.rows) == 1


@pytest.mark.parametrize(("at_most", "met"), [(1.4, False), (1.5, True)])
def test_short_cases_have_the_median_over_processes_of_their_ratios(bench, at_most, met):
    # The ratios are 1 / 3, 4 and 1.5; that of the medians would be 1.
    made = bench({"ours": [2.0, 4.0, 6.0], "other": [6.0, 1.0, 4.0]})
    made.compare_all(["case"], "ours", "other", at_most=at_most)
    (row,) = made.rows
    assert (row.ours, row.other, row.ratio) == (4.0, 4.0, 1.5)
    assert (row.required, row.met) == (f"ours <= {at_most} other", met)
    assert made.closed == [("ours", "other")] * 3


def test_short_cases_share_the_rounds_among_the_processes(bench):
    made = bench({"ours": [1.0] * 18, "other": [1.0] * 18}, rounds=9)
    made.compare_all(["a", "b"], "ours", "other", at_most=1)
    one_process = [(side, case) for case in "ab" for _ in range(3) for side in ("ours", "other")]
    assert made.asked == one_process * 3


def test_the_table_is_one_of_markdown(benchmarking):
    rows = [
        benchmarking.Row("a case", 0.51234, 1234.5, 2409.5, "20 times faster", True),
        benchmarking.Row("another", 12.0, None, None, "<= 4", False),
        benchmarking.Row("b", 1.0, 2.0, 2.0, "", None),
    ]
    assert benchmarking._table(rows) == "\n".join(
        [
            "| case    | ours  | other | ratio | required        | verdict |",
            "| ------- | ----- | ----- | ----- | --------------- | ------- |",
            "| a case  | 0.512 | 1,234 | 2,410 | 20 times faster | met     |",
            "| another | 12    |       |       | <= 4            | NOT MET |",
            "| b       | 1     | 2     | 2     |                 |         |",
        ]
    )


def test_a_number_that_rounds_to_a_thousand_is_written_out(benchmarking):
    assert benchmarking._cells(benchmarking.Row("a case", 999.7, None, None, "", None))[1] == "1,000"


SCRIPT = """
import sys, time
import benchmarking
from benchmarking import main

def sleeping(seconds, value=None):
    def make():
        print("what a library prints")
        def run():
            time.sleep(seconds)
            return value
        return run
    return make

def broken():
    raise RuntimeError("this workload is broken")

def measure(bench):
    bench.compare("sleep", "ours", "other", at_least=2)
    bench.compare("sleep", "ours", "other", name="sleep more", at_least=9)
    bench.compare("sleep", "ours", "foreign", name="sleep elsewhere", at_most=1.5)
    if bench.wants("value"):
        reply = bench.ask("ours", "value")
        bench.add(benchmarking.Row("value", reply.value, None, None, "", None))
        assert reply.peak_gib > 0
    if bench.wants("broken"):
        bench.compare("broken", "ours", "other")

benchmarking.jax_device = lambda: "a device"
if __name__ == "__main__":
    if sys.argv[1:] == ["foreign"]:
        benchmarking.serve({"sleep": sleeping(0.02)}, lambda: "another device")
        sys.exit()
    ours = {"sleep": sleeping(0.02), "value": sleeping(0, 17), "broken": broken}
    sides = {"ours": ours, "other": {"sleep": sleeping(0.1)}}
    main("A fake.", sides, measure, commands={"foreign": [sys.executable, sys.argv[0], "foreign"]})
"""


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    """Runs a benchmark of workloads that sleep for known times."""
    folder = tmp_path_factory.mktemp("fake")
    (folder / "bench_fake.py").write_text(textwrap.dedent(SCRIPT))
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS)}

    def run(*options):
        command = [
            sys.executable,
            str(folder / "bench_fake.py"),
            "--json",
            str(folder / "table.json"),
            *options,
        ]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
        return done, folder / "table.json"

    return run


def test_a_benchmark_from_its_options_to_its_table(fake):
    done, table = fake("--rounds", "2", "--only", "e")
    assert done.returncode == 1 and "this workload is broken" in done.stderr
    assert "the process of a side ended while it measured 'broken'; its message is above" in done.stderr
    done, table = fake("--rounds", "3", "--only", "sleep")
    assert done.returncode == 0, done.stderr
    written = json.loads(table.read_text())
    rows = {row["case"]: row for row in written["rows"]}
    assert {case: row["met"] for case, row in rows.items()} == {
        "sleep": True,
        "sleep more": False,
        "sleep elsewhere": True,
    }
    assert rows["sleep"]["ours"] == pytest.approx(20, rel=0.5)
    assert rows["sleep"]["ratio"] == pytest.approx(5, rel=0.5)
    assert rows["sleep"]["ratio"] == pytest.approx(rows["sleep"]["other"] / rows["sleep"]["ours"])
    assert rows["sleep elsewhere"]["ratio"] == pytest.approx(1, rel=0.5)
    lines = done.stdout.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:5]] == list(rows)
    assert [line.split("|")[6].strip() for line in lines[2:5]] == ["met", "NOT MET", "met"]
    assert lines[5] == "; ".join(written["circumstances"])
    assert "on a device, another device" in lines[5] and "what a library prints" not in done.stdout


def test_a_workload_may_return_a_number(fake):
    done, table = fake("--only", "value")
    assert done.returncode == 0, done.stderr
    assert json.loads(table.read_text())["rows"][0]["ours"] == 17


@pytest.mark.parametrize("file", sorted(SCRIPTS.glob("bench_*.py")), ids=lambda file: file.stem)
def test_help_tells_what_is_measured_and_every_option_of_the_usage(file, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(file), "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(file), run_name="__main__")
    printed = capsys.readouterr().out
    docstring = re.search(r'"""(.*?)"""', file.read_text(), re.DOTALL)
    assert docstring is not None and docstring[1].strip() in printed
    usage = printed.split("options:")[1]
    for option in set(re.findall(r"--[a-z]+(?=[ \]])", docstring[1])) - {"--torch"}:
        assert option in usage
    assert "--side" not in usage


@pytest.fixture
def started(benchmarking, monkeypatch):
    """Starts a script up to the point where it would measure; gives its sides, commands and `measure`."""

    def start(name, *options):
        caught = []

        def main(description, workloads, measure, *, commands=None, arguments=None):
            caught.append(SimpleNamespace(sides=workloads, measure=measure, commands=commands or {}))

        monkeypatch.setattr(benchmarking, "main", main)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *options])
        runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
        return caught[0]

    return start


@pytest.mark.parametrize("name", COMPARING)
def test_every_case_that_is_compared_is_one_of_both_sides(benchmarking, started, monkeypatch, name):
    script = started(name, *(["--torch-python", "python"] if name in FOREIGN else []))
    asked = set()

    def ask(self, side, case):
        asked.add((side, case))
        assert side in script.commands or callable(script.sides[side][case])
        return benchmarking.Reply(1.0, 1.0, 1.0, "a device")

    monkeypatch.setattr(benchmarking.Bench, "ask", ask)
    # A fresh process that imports the package takes seconds.
    monkeypatch.setattr(subprocess, "run", lambda *command, **options: SimpleNamespace(stdout="1.5"))
    bench = benchmarking.Bench(["nothing to start"], script.commands, rounds=1, only="")
    script.measure(bench)
    assert len(bench.rows) >= 4 and len({row.case for row in bench.rows}) == len(bench.rows)
    # Of the cases of these sides only some directions of a convolution are of no row.
    own = {(side, case) for side, cases in script.sides.items() for case in cases}
    directions = ("forward", "input gradient", "kernel gradient", "both gradients")
    assert all(case.endswith(directions) for _, case in own - asked)


def test_plain_flax_has_the_architectures_to_the_last_parameter():
    bench_models = importlib.import_module("bench_models")
    for name in bench_models.CPU:
        # It leaves if the count is another.
        assert bench_models.flax_model(name) is not None


@pytest.mark.slow
def test_both_sides_of_an_architecture_learn():
    bench_models = importlib.import_module("bench_models")
    for make in (bench_models.make, bench_models.flax_model):
        step, state = bench_models.training_step(make("mobilenet_v2"), size=32, batch=4)
        losses = [float((state := step(*state[:3]))[-1]) for _ in range(3)]
        assert np.isfinite(losses).all() and losses[-1] < losses[0]


def test_the_sides_in_processes_of_their_own_serve_the_cases_of_the_grid(benchmarking, monkeypatch):
    served = []
    monkeypatch.setattr(benchmarking, "serve", lambda workloads, device: served.append(set(workloads)))
    runpy.run_path(str(SCRIPTS / "grid_flax.py"), run_name="__main__")
    grid = importlib.import_module("grid")
    assert served == [{grid.STEADY, grid.FROM_NOTHING}]


@pytest.mark.parametrize("direction", ["forward", "both gradients"])
@pytest.mark.parametrize(
    ("kernel", "options"),
    [((3, 3, 4, 8), {"stride": 2}), ((3, 3, 2, 4), {"groups": 2}), ((3, 3, 1, 4), {"groups": 4})],
    ids=["dense", "grouped", "depthwise"],
)
def test_both_sides_of_a_convolution_compute_the_same(kernel, options, direction):
    bench_conv = importlib.import_module("bench_conv")
    ours, other = (
        bench_conv.single(conv, (2, 6, 6, 4), kernel, options, direction)()
        for conv in (bench_conv.F.conv, bench_conv.lax_conv)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, other)


def test_every_way_of_laying_out_runs_computes_the_same(monkeypatch):
    bench_run_axis = importlib.import_module("bench_run_axis")
    monkeypatch.setattr(bench_run_axis, "DEPTH", 2)
    monkeypatch.setattr(bench_run_axis, "BATCH", 4)
    automatic, *others = (bench_run_axis.way(name, 4, 3)() for name in bench_run_axis.WAYS)
    assert len(others) == 6 and automatic.shape == (8, 2, 3, 3, 3, 3)
    for other in others:
        np.testing.assert_allclose(other, automatic, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_what_depth_costs_at_toy_size():
    bench_depth = importlib.import_module("bench_depth")
    flow = bench_depth.step(bench_depth.probes.gradient_flow, 3, 2, 4, 2)()
    assert len(flow.layers) == 4 and np.isfinite(flow.columns["gradient_log10_second_moment"]).all()
    assert bench_depth.memory(3, False)() > 0


@pytest.fixture
def toy_grid(monkeypatch):
    """A grid of networks of three layers, of one program."""
    grid = importlib.import_module("grid")
    toy = {"ACTIVATIONS": ("relu",), "INITIALIZERS": ("he_normal",), "SEEDS": 8, "DEPTH": 3, "WIDTH": 2}
    for name, value in (toy | {"BATCH": 4, "SEGMENT": 2, "WHOLE": 4}).items():
        monkeypatch.setattr(grid, name, value)
    # It reads the grid when it is imported.
    sys.modules.pop("bench_grid", None)
    return grid


def test_a_grid_records_every_layer_of_every_run(toy_grid):
    (segment,) = importlib.import_module("bench_grid").steady()()
    assert segment.first.table.shape[:2] == (8, 3)
    assert np.isfinite(segment.last.columns["update_to_kernel_log10"]).all()


def test_a_grid_is_measured_on_any_number_of_devices(toy_grid, monkeypatch):
    # As the six runs of a program of the real grid on a machine of 4 cores.
    monkeypatch.setattr(toy_grid, "SEEDS", 6)
    assert len(importlib.import_module("bench_grid").steady()()) == 1
