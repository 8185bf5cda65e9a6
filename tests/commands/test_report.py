import shutil

import pandas as pd
import pytest

from cnnjax.cli import main


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished.folder, tmp_path / "tiny")


def test_the_page_is_written_again(copied, capsys):
    shutil.rmtree(copied / "report")
    assert main(["report", str(copied)]) == 0
    assert (copied / "report" / "index.html").exists()
    output = capsys.readouterr().out
    assert "8 runs, in " in output
    assert output.endswith(f"report: {copied}/report/index.html\n")


def test_an_unfinished_study_has_a_page_too(copied, capsys):
    runs = pd.read_parquet(copied / "runs.parquet")
    late = runs["cell"] == 1
    runs.loc[late, "status"] = "unfinished"
    runs.loc[late, ["test_accuracy", "validation_accuracy", "gradient_ratio_log10"]] = float("nan")
    runs.loc[late, ["flow"]] = None
    runs.loc[late, "selected"] = False
    runs.to_parquet(copied / "runs.parquet")
    for name in ("curves", "layers"):
        (copied / f"{name}.parquet").unlink()
    assert main(["report", str(copied)]) == 0
    assert "unfinished" in capsys.readouterr().out
    assert "4 of 8 runs are done" in (copied / "report" / "index.html").read_text()


def test_a_folder_without_a_study(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    error = f"cnnjax: {tmp_path} holds no study (no study.json): name the folder that `cnnjax run` printed\n"
    assert capsys.readouterr().err == error


def test_a_truncated_table_is_named(copied, capsys):
    table = copied / "layers.parquet"
    table.write_bytes(table.read_bytes()[:100])
    assert main(["report", str(copied)]) == 2
    assert f"{table} is not a whole Parquet file" in capsys.readouterr().err
