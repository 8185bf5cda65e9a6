"""Optimizers, schedules of the learning rate, and what stays fixed: for training runs and for studies alike."""

from cnnjax.optim.freeze import Freeze, freeze
from cnnjax.optim.muon import muon
from cnnjax.optim.optimizers import OPTIMIZERS, Optimizer, adaptive_clip
from cnnjax.optim.schedules import SCHEDULES, Schedule
from cnnjax.optim.titles import title

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Freeze",
    "Optimizer",
    "Schedule",
    "adaptive_clip",
    "freeze",
    "muon",
    "title",
]
