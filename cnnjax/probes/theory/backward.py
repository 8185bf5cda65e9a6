"""Second moments of gradients, back through the steps of a model."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnjax.probes.theory import density
from cnnjax.probes.theory.signals import BROKEN, Gradient, Passage, Row, log, same, spread
from cnnjax.probes.theory.walk import (
    Activate,
    Aside,
    Fork,
    Join,
    Linear,
    Normalize,
    Repeat,
    Scale,
    Step,
    Unknown,
)


class Backward:
    """The way back: fills in the gradients of the rows. A segment begins anew where the chain is broken."""

    def __init__(self) -> None:
        self.segment = -1
        # For each `Join` on the way: the gradient behind it, and what it left on the tape.
        self._joined: list[tuple[Gradient | None, Any]] = []

    def run(self, tape: Sequence[tuple[Step, Any]], gradient: Gradient | None) -> Gradient | None:
        """The gradient in front of the steps of a tape."""
        for step, saved in reversed(tape):
            if isinstance(step, Repeat):
                gradient = self._repeat(saved, gradient)
            elif isinstance(step, Activate):
                gradient = self._activate(saved, gradient)
            elif isinstance(step, Unknown):
                gradient = None
            elif isinstance(step, Join):
                gradient = self._join(saved, gradient)
            elif isinstance(step, Fork):
                gradient = self._fork(gradient)
            elif gradient is not None and not isinstance(step, Aside):
                gradient = _back(step, saved, gradient)
        return gradient

    def _activate(self, saved: Passage, gradient: Gradient | None) -> Gradient | None:
        if saved.law is None or saved.response is None:
            return None
        gradient = self._begun(gradient)
        if gradient.weights is not None or saved.log_slope is None:
            slope = density.activated(saved.response, saved.law.log_q)[1]
            behind = gradient.mean() if gradient.weights is None else gradient.profile
            new = _scaled(gradient.log_scale, slope * slope * behind, saved.law.weights)
        else:
            top = float(saved.log_slope.max())
            new = _scaled(gradient.log_scale + top, gradient.profile * np.exp(saved.log_slope - top))
        saved.row.segment, saved.row.log_gradient = self.segment, new.log_scale + log(new.mean())
        return new

    def _begun(self, gradient: Gradient | None) -> Gradient:
        if gradient is None:
            self.segment += 1
        return gradient or Gradient(0.0, np.ones(()))

    def _join(self, saved: Any, gradient: Gradient | None) -> Gradient | None:
        gradient = None if saved is BROKEN else self._begun(gradient)
        self._joined.append((gradient, saved))
        return gradient if gradient is None or saved is None else _averaged(gradient)

    def _fork(self, branch: Gradient | None) -> Gradient | None:
        around, saved = self._joined.pop() if self._joined else (None, None)
        if around is None or branch is None:
            return None
        passed, weights = around.profile, None
        if around.weights is not None:
            assert saved is not None
            kernel, weights = saved
            passed = kernel().T @ passed
        top = max(around.log_scale, branch.log_scale)
        inner = branch.profile if weights is None else branch.mean()
        total = math.exp(around.log_scale - top) * passed + math.exp(branch.log_scale - top) * inner
        return _scaled(top, total, weights)

    def _repeat(self, saved: Any, gradient: Gradient | None) -> Gradient | None:
        tapes, blocks = saved
        change = before = None
        i = len(blocks) - 1
        while i >= 0:
            tape = tapes[i] if i < len(tapes) else _for_rows(tapes[-1], blocks[i])
            new = self.run(tape, gradient)
            before, change = change, _gradient_change(gradient, new)
            gradient = new
            # Blocks that share a tape are alike.
            alike = i - len(tapes)
            if gradient is not None and change is not None and alike > 0 and same(change, before):
                _extrapolate_gradients(blocks[i - alike : i + 1], float(change[0]))
                gradient = dataclasses.replace(
                    gradient, log_scale=gradient.log_scale + alike * float(change[0])
                )
                i -= alike
            i -= 1
        return gradient


def _for_rows(tape: list, rows: list[Row]) -> list:
    """The tape of a block, for the rows of another block that is like it."""
    fresh = iter(rows)
    return [
        (step, dataclasses.replace(saved, row=next(fresh)) if isinstance(step, Activate | Aside) else saved)
        for step, saved in tape
    ]


def _extrapolate_gradients(blocks: list[list[Row]], change: float) -> None:
    """Continues from the last block toward the first, by `change` a block."""
    for k, block in enumerate(reversed(blocks[:-1]), start=1):
        for row, last in zip(block, blocks[-1], strict=True):
            row.segment, row.log_gradient = last.segment, last.log_gradient + k * change


def _back(step: Step, saved: Any, gradient: Gradient) -> Gradient | None:
    if isinstance(step, Normalize):
        if not math.isfinite(saved):
            return None
        averaged = _averaged(gradient)
        return Gradient(averaged.log_scale + saved, averaged.profile)
    if isinstance(step, Scale):
        factor = 2 * math.log(abs(step.factor)) if step.factor else -math.inf
        return dataclasses.replace(gradient, log_scale=gradient.log_scale + factor)
    assert isinstance(step, Linear)
    gradient = gradient if step.reach and gradient.weights is None else _averaged(gradient)
    profile = spread(gradient.profile, [reach.T for reach in step.reach])
    return _scaled(gradient.log_scale + log(step.variance * step.fan_out), profile)


def _gradient_change(old: Gradient | None, new: Gradient | None) -> np.ndarray | None:
    if old is None or new is None or old.profile.shape != new.profile.shape:
        return None
    return np.concatenate([[new.log_scale - old.log_scale], np.ravel(new.profile - old.profile)])


def _averaged(gradient: Gradient) -> Gradient:
    return Gradient(gradient.log_scale, np.asarray(gradient.mean()))


def _scaled(log_scale: float, profile: np.ndarray, weights: np.ndarray | None = None) -> Gradient:
    """With the largest entry of the profile at 1."""
    top = float(np.max(profile))
    if top <= 0:
        return Gradient(-math.inf, np.zeros_like(profile), weights)
    return Gradient(log_scale + math.log(top), profile / top, weights)
