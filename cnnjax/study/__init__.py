"""Ablation studies as compiled programs: a grid of networks, trained together, recorded layer by layer."""

from cnnjax.study import claims, statistics
from cnnjax.study.claims import Claim
from cnnjax.study.config import OPTIMIZERS, SCHEDULES, Study
from cnnjax.study.devices import RunDevices, one_host_device_per_core, over_runs
from cnnjax.study.execute import run
from cnnjax.study.plan import Program, Run, plan
from cnnjax.study.store import Store
from cnnjax.study.verdicts import judge, read_verdicts

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Claim",
    "Program",
    "Run",
    "RunDevices",
    "Store",
    "Study",
    "claims",
    "judge",
    "one_host_device_per_core",
    "over_runs",
    "plan",
    "read_verdicts",
    "run",
    "statistics",
]
