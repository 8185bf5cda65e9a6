"""The small study, run once to its end."""

import pytest

from cnnjax.study import Store, run

from .small import STUDY


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return run(STUDY, tmp_path_factory.mktemp("small"), quiet=True, command="the command")
