"""Second moments of pre-activations through the steps of a model."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnjax.probes.quadrature import Response, response
from cnnjax.probes.theory import density
from cnnjax.probes.theory.density import Density
from cnnjax.probes.theory.normalization import batch_norm_rate
from cnnjax.probes.theory.signals import BROKEN, Passage, Row, Signal, log, log_mean, same, spread
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


class Forward:
    """The way forward: `rows` are the layers, `tape` is what the way back needs."""

    def __init__(self, *, batch: int | None) -> None:
        self.batch = batch
        self.reason = ""
        self._forks: list[tuple[Fork, Signal | None]] = []

    def run(self, steps: Sequence[Step], signal: Signal | None, tape: list, rows: list[Row]) -> Signal | None:
        """The signal behind the steps; None where it is not known."""
        for step in steps:
            if isinstance(step, Repeat):
                signal = self._repeat(step, signal, tape, rows)
            elif isinstance(step, Activate):
                signal = self._activate(step, signal, tape, rows)
            elif isinstance(step, Aside):
                rows.append(Row(math.nan, step.reason))
                tape.append((step, Passage(rows[-1])))
            elif isinstance(step, Unknown):
                self.reason = step.reason
                tape.append((step, None))
                signal = Signal(np.zeros(()), anchored=False)
            elif isinstance(step, Normalize):
                tape.append((step, self._norm_factor(step, signal)))
                signal = Signal(np.zeros(()), varying=1.0, independent=True)
            elif isinstance(step, Fork):
                signal = self._fork(step, signal, tape)
            elif isinstance(step, Join):
                signal = self._join(step, signal, tape)
            else:
                tape.append((step, signal))
                signal = None if signal is None else self._linear(step, signal)
        return signal

    def _linear(self, step: Linear | Scale, signal: Signal) -> Signal | None:
        if isinstance(step, Scale):
            factor = 2 * math.log(abs(step.factor)) if step.factor else -math.inf
            return dataclasses.replace(signal, log_m=signal.log_m + factor, law=None, source=None)
        if step.bias > 0 and not signal.anchored:
            return None
        collapsed = any(fork.activated for fork, _ in self._forks)
        from_kernel = _through(step, signal.log_m, collapsed) + log(step.variance * step.fan_in)
        log_m = np.logaddexp(from_kernel, log(step.bias))
        varying = signal.varying
        if varying is not None and step.bias > 0:
            varying *= math.exp(log_mean(from_kernel) - log_mean(log_m))
        normed = signal.source[0] if signal.source and signal.independent and not signal.law else None
        return Signal(log_m, varying, anchored=signal.anchored, independent=varying == 1, normed=normed)

    def _activate(self, step: Activate, signal: Signal | None, tape: list, rows: list[Row]) -> Signal | None:
        phi = step.response
        if signal is None or not (signal.anchored or phi.homogeneous):
            rows.append(Row(math.nan, self.reason))
            tape.append((step, Passage(rows[-1])))
            return None
        log_q = log_mean(signal.log_m)
        rows.append(Row(log_q, self.reason))
        self.reason = ""
        if signal.law is not None:
            tape.append((step, Passage(rows[-1], phi, signal.law)))
            return self._of_law(phi, signal, signal.law)
        unique, where = np.unique(np.round(signal.log_m, 13), return_inverse=True)
        log_second, log_slope = (
            column[where].reshape(signal.log_m.shape) for column in phi.log_moments(unique)
        )
        tape.append((step, Passage(rows[-1], phi, density.gaussian(log_q), log_slope)))
        return Signal(
            log_second, _varying(phi, signal), None, (phi, log_q), signal.anchored, signal.independent
        )

    def _of_law(self, phi: Response, signal: Signal, law: Density) -> Signal:
        value, _ = density.activated(phi, law.log_q)
        second, mean = float(law.weights @ (value * value)), float(law.weights @ value)
        varying = 1 - mean * mean / second if signal.independent else None
        log_m = np.asarray(law.log_q + log(second))
        return Signal(log_m, varying, law, (phi, law.log_q), signal.anchored, signal.independent)

    def _norm_factor(self, step: Normalize, signal: Signal | None) -> float:
        """log of the factor on a gradient's second moment, back through a batch norm: 1 over the variance it removed."""
        if signal is None or not signal.varying:
            return math.nan
        factor = -(log_mean(signal.log_m) + math.log(signal.varying))
        return factor + self._finite_batch(step, signal)

    def _finite_batch(self, step: Normalize, signal: Signal) -> float:
        if self.batch is None or signal.normed is None:
            return 0.0
        phi, entries = signal.normed, self.batch * step.positions
        return math.log(batch_norm_rate(phi, batch=entries) / batch_norm_rate(phi))

    def _fork(self, step: Fork, signal: Signal | None, tape: list) -> Signal | None:
        if signal is not None and step.activated:
            signal = _with_law(signal)
        self._forks.append((step, signal))
        tape.append((step, None))
        return signal

    def _join(self, step: Join, branch: Signal | None, tape: list) -> Signal | None:
        fork, start = self._forks.pop() if self._forks else (Fork(False, False), None)
        if fork.reshapes:
            self.reason = "a shortcut that changes the shape"
        if fork.reshapes or start is None or branch is None or start.anchored != branch.anchored:
            tape.append((step, BROKEN))
            return None
        known: dict[str, Any] = dict(
            varying=_joint_share(start, branch),
            anchored=branch.anchored,
            independent=start.independent and branch.independent,
        )
        if not fork.activated:
            tape.append((step, None))
            return Signal(np.logaddexp(start.log_m, branch.log_m), **known)
        law = start.law
        assert law is not None and start.source is not None
        added, x = log_mean(branch.log_m), density.activated(start.source[0], law.log_q)[0]
        log_q = float(np.logaddexp(log_mean(start.log_m), added))
        kernel = functools.partial(
            density.transition, x * math.exp((law.log_q - log_q) / 2), (added - log_q) / 2
        )
        weights = kernel() @ law.weights
        tape.append((step, (kernel, law.weights)))
        return Signal(np.asarray(log_q), law=Density(log_q, weights / weights.sum()), **known)

    def _repeat(self, step: Repeat, signal: Signal | None, tape: list, rows: list[Row]) -> Signal | None:
        """Follows a stack until each block changes all logarithms as the one before did; the rest is a straight line."""
        tapes: list[list] = []
        change = before = None
        blocks: list[list[Row]] = []
        for i in range(step.length):
            tapes.append([])
            blocks.append([])
            new = self.run(step.steps, signal, tapes[-1], blocks[-1])
            before, change = change, _change(signal, new)
            signal = new
            if i and change is not None and before is not None and same(change, before):
                rest = step.length - 1 - i
                blocks.extend(_extrapolated(blocks[-2], blocks[-1], rest))
                signal = _shifted(signal, change, rest)
                break
        tape.append((step, (tapes, blocks)))
        rows.extend(row for block in blocks for row in block)
        return signal


def _through(step: Linear, log_m: np.ndarray, collapsed: bool) -> np.ndarray:
    """log of the sum of the second moments that each output position sees."""
    if not step.reach:
        return np.asarray(log_mean(log_m))
    if collapsed:
        return np.asarray(log_mean(log_m) + math.log(_leading(step)))
    top = float(np.max(log_m))
    if not math.isfinite(top):
        return np.asarray(top)
    return top + np.log(spread(np.exp(log_m - top), step.reach))


@functools.lru_cache(maxsize=256)
def _leading(step: Linear) -> float:
    """What the profile that survives many such layers is multiplied by."""
    return math.prod(
        float(np.abs(np.linalg.eigvals(r)).max()) if r.shape[0] == r.shape[1] else float(r.sum() / len(r))
        for r in step.reach
    )


def _with_law(signal: Signal) -> Signal:
    """The same without positions, and with the law of the pre-activation that it is the activation of."""
    log_m = log_mean(signal.log_m)
    phi, log_q = signal.source or (response("identity"), log_m)
    law = signal.law or density.gaussian(log_q)
    return dataclasses.replace(signal, log_m=np.asarray(log_m), law=law, source=(phi, log_q))


def _varying(phi: Response, signal: Signal) -> float | None:
    """The varying share behind an activation, which is known for what does not have a common part."""
    if phi.name == "identity":
        return signal.varying
    if not signal.independent or signal.log_m.ndim or not -20 < signal.log_m < 20:
        return None
    found = phi.moments(math.exp(signal.log_m))
    return float(1 - found.mean**2 / found.second)


def _joint_share(a: Signal, b: Signal) -> float | None:
    if a.varying is None or b.varying is None:
        return None
    log_a, log_b = log_mean(a.log_m), log_mean(b.log_m)
    weight = 1 / (1 + math.exp(min(log_b - log_a, 700.0)))
    return weight * a.varying + (1 - weight) * b.varying


def _change(old: Signal | None, new: Signal | None) -> np.ndarray | None:
    if (
        old is None
        or new is None
        or old.log_m.shape != new.log_m.shape
        or (old.law is None) != (new.law is None)
    ):
        return None
    with np.errstate(invalid="ignore"):
        parts = [np.ravel(new.log_m - old.log_m)]
    if old.law is not None and new.law is not None:
        parts += [[new.law.log_q - old.law.log_q], new.law.weights - old.law.weights]
    return np.concatenate(parts)


def _extrapolated(before: list[Row], last: list[Row], count: int) -> list[list[Row]]:
    return [
        [
            Row(b.log_moment + k * (b.log_moment - a.log_moment), b.reason)
            for a, b in zip(before, last, strict=True)
        ]
        for k in range(1, count + 1)
    ]


def _shifted(signal: Signal | None, change: np.ndarray, count: int) -> Signal | None:
    if signal is None:
        return None
    log_m = signal.log_m + count * change[: signal.log_m.size].reshape(signal.log_m.shape)
    law = signal.law
    if law is not None:
        law = Density(law.log_q + count * float(change[signal.log_m.size]), law.weights)
    return dataclasses.replace(signal, log_m=log_m, law=law)
