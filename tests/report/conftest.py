"""Made-up studies, each built once, and a page of one of them."""

from pathlib import Path

import pytest

from cnnjax import report

from .synthetic import Study, make, partial

SMALL = {"activation": ["relu", "sigmoid"], "architecture": ["plain", "plain + bn"], "depth": [10, 30]}


@pytest.fixture(scope="session")
def study() -> Study:
    return make()


@pytest.fixture(scope="session")
def small() -> Study:
    return make(axes=SMALL)


@pytest.fixture(scope="session")
def unfinished(small: Study) -> Study:
    return partial(small)


@pytest.fixture(scope="session")
def page(small: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report.write(*small, tmp_path_factory.mktemp("report"))
