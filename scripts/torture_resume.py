"""Kills a training run again and again, and compares its end with that of the same run left alone.

    python scripts/torture_resume.py [--kills 20] [--terms 4] [--damages 4] [--steps 3000] [--seed 0] [--out DIR]

Both are runs of the real commands, `cnnjax train digits-smoke` and `cnnjax resume`, on one device. SIGKILL comes while
Python imports and XLA compiles, somewhere in training, evaluation and looks into the layers, and while a checkpoint is
written; SIGTERM (a preemption) once training is on its way. After some of the kills a file of the newest checkpoint is cut
off or deleted. Prints what happened each time. The exit status is 0 if the run went on from the newest whole checkpoint
every time, and if parameters, optimizer, log without times, looks into the layers and evaluation are equal in the end, bit
for bit.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.training import journal
from cnnjax.training.checksums import leaves
from cnnjax.training.network import trained

LENGTHS = {"record-every": 10, "evaluate-every": 30, "checkpoint-every": 20, "probe-every": 100}
TIMES = ("seconds", "images_per_second", "input_wait")
# Programs that compile in half of the time; both runs have the same.
XLA_FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
LONGEST_SECONDS = 900
# What a process says on stderr.
BEGUN = re.compile(r": (?:beginning|going on from step ([\d,]+)) of ")
DAMAGED = re.compile(r"step (\d+) is damaged: .*; that of step (\d+) is taken")
# Files without which the arrays cannot be read.
DAMAGES = ("state/d/*", "state/_METADATA", "state/manifest.ocdbt", "_CHECKPOINT_METADATA")


@dataclasses.dataclass(frozen=True)
class Blow:
    """One thing that happened to the run.

    Attributes:
      sent: the signal, and what was damaged behind it.
      when: in which phase, after how many seconds.
      begun: the step from which the process went on; None if it had not come so far.
      reached: the last step in its log.
      said: its last words.
      wrong: what should have been otherwise.
    """

    sent: str
    when: str
    begun: int | None
    reached: int
    said: str
    wrong: str


class Victim:
    """A run in a folder that is not left alone.

    Args:
      folder: of the run.
      steps: of the run.
      chance: decides all moments.
    """

    def __init__(self, folder: Path, steps: int, chance: random.Random) -> None:
        self.folder, self.steps, self.chance = folder, steps, chance
        self._stderr = folder.with_name(f"{folder.name}.stderr")
        self._damaged: set[int] = set()
        self._started = 0.0

    def whole(self) -> list[int]:
        """The steps of the checkpoints, oldest first, without those that were damaged here."""
        found = [path for path in (self.folder / "checkpoints").glob("*") if path.name.isdigit()]
        return sorted(int(path.name) for path in found if path.stat().st_ino not in self._damaged)

    def reached(self) -> int:
        """The last step in the log."""
        path = self.folder / journal.LOG
        found = re.findall(rb'\{"step": (\d+),.*\n', path.read_bytes()[-4000:]) if path.exists() else []
        return int(found[-1]) if found else 0

    def begun(self) -> int | None:
        """The step from which the last process went on."""
        found = BEGUN.search(self.said())
        return int((found[1] or "0").replace(",", "")) if found else None

    def said(self) -> str:
        """What the last process wrote to stderr."""
        return self._stderr.read_text(errors="replace")

    def saving(self) -> bool:
        """Whether the last process has begun to write a checkpoint, and not ended."""
        with contextlib.suppress(FileNotFoundError):
            halves = (self.folder / "checkpoints").glob("*.orbax-checkpoint-tmp*")
            return any(half.stat().st_mtime > self._started for half in halves)
        return False

    def start(self) -> subprocess.Popen:
        """The run, or its going on where it was."""
        self._started = time.time()
        begins = not (self.folder / journal.RUN).exists()
        lengths = [text for name, value in LENGTHS.items() for text in (f"--{name}", str(value))]
        new = ["train", "digits-smoke", "--out", str(self.folder), "--duration", str(self.steps), *lengths]
        command = [sys.executable, "-m", "cnnjax.cli", *(new if begins else ["resume", str(self.folder)])]
        with self._stderr.open("w") as stderr:
            environment = {"XLA_FLAGS": XLA_FLAGS, "JAX_PLATFORMS": "cpu", **os.environ}
            return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=stderr)

    def finish(self) -> float:
        """Goes on to the end; returns the seconds to the first record.

        Raises:
          RuntimeError: the run ended with an error.
        """
        process, begun, old = self.start(), time.monotonic(), self.reached()
        wait(process, lambda: self.reached() > old)
        seconds = time.monotonic() - begun
        if process.wait(LONGEST_SECONDS):
            raise RuntimeError(f"{self.folder} ended with status {process.returncode}: {self.said()}")
        return seconds

    def strike(self, number: signal.Signals, due: Callable[["Victim"], bool], *, damage: bool) -> Blow:
        """Lets the run go on, sends a signal when it is due, and looks at what is left."""
        expected, harmed = next(reversed(self.whole()), 0), self._is_damaged()
        process, started = self.start(), time.monotonic()
        wait(process, lambda: due(self))
        when = f"{self._phase(expected)}, {time.monotonic() - started:.1f} s"
        process.send_signal(number)
        process.wait(LONGEST_SECONDS)
        wrong = "; ".join(self._wrong(number, process.returncode, expected, harmed))
        begun, reached, said = self.begun(), self.reached(), self._last_words()
        sent = number.name + (f", {self._damage()}" if damage else "")
        return Blow(sent, when, begun, reached, said, wrong)

    def _last_words(self) -> str:
        lines = [line for line in self.said().splitlines() if line.strip()]
        noticed = [f"step {newer} is damaged, {older} taken" for newer, older in DAMAGED.findall(self.said())]
        return " / ".join([*noticed, *(line[:100] for line in lines[-1:])])

    def _phase(self, expected: int) -> str:
        if self.begun() is None:
            return "starting"
        if self.saving():
            return "saving"
        return "compiling" if self.reached() == expected else "training"

    def _wrong(self, number: signal.Signals, status: int, expected: int, harmed: bool) -> Iterator[str]:
        begun, noticed = self.begun(), bool(DAMAGED.search(self.said()))
        if status != (-number if number == signal.SIGKILL else 128 + number):
            yield f"ended with status {status}"
        if begun not in (None, expected):
            yield f"should have gone on from {expected}"
        if begun is not None and noticed != harmed:
            yield "the damage was not noticed" if harmed else "nothing was damaged"
        if number == signal.SIGTERM:
            said = journal.read_status(self.folder)
            if said is None or said.state != "stopped" or said.step != self.whole()[-1]:
                yield f"stopped without a checkpoint of its last step ({said})"

    def _is_damaged(self) -> bool:
        paths = [path for path in (self.folder / "checkpoints").glob("*") if path.name.isdigit()]
        return any(path.stat().st_ino in self._damaged for path in paths)

    def _damage(self) -> str:
        """Harms the newest checkpoint if there is another one to fall back to; in words."""
        if len(self.whole()) < 2 or self._is_damaged():
            return "nothing to damage"
        folder = self.folder / "checkpoints" / str(self.whole()[-1])
        path = self.chance.choice(sorted(folder.glob(self.chance.choice(DAMAGES))))
        self._damaged.add(folder.stat().st_ino)
        if self.chance.random() < 0.5:
            path.unlink()
            return f"{folder.name}/{path.name[:20]} deleted"
        os.truncate(path, path.stat().st_size // 2)
        return f"{folder.name}/{path.name[:20]} cut off"


def wait(process: subprocess.Popen, due: Callable[[], bool]) -> None:
    """Returns when it is due, or the process has ended."""
    until = time.monotonic() + LONGEST_SECONDS
    while process.poll() is None and not due():
        if time.monotonic() > until:
            process.kill()
            raise TimeoutError(f"nothing happened in {LONGEST_SECONDS} s")
        time.sleep(0.005)


def moment(kind: str, victim: Victim, advance: int, startup: float) -> Callable[[Victim], bool]:
    """When to strike.

    Args:
      kind: "starting", "training" or "saving".
      victim: whose chance decides.
      advance: the most steps that the run may get ahead.
      startup: seconds to its first record.
    """
    chance = victim.chance
    if kind == "starting":
        until = time.monotonic() + chance.uniform(0, startup)
        return lambda victim: time.monotonic() > until
    first = next(reversed(victim.whole()), 0)
    # The last steps are for the end.
    target = min(first + chance.randint(1, advance), victim.steps - 2 * LENGTHS["checkpoint-every"])
    later = chance.uniform(0, 0.2)

    def due(victim: Victim) -> bool:
        if victim.begun() is None or victim.reached() < target:
            return False
        if kind == "saving":
            return victim.saving()
        time.sleep(later)
        return True

    return due


def differences(one: Path, other: Path) -> Iterator[str]:
    """What differs between the ends of two runs."""
    states = [dict(leaves(trained(folder).state)) for folder in (one, other)]
    if states[0].keys() != states[1].keys():
        yield "the arrays"
    for path in states[0].keys() & states[1].keys():
        if not np.array_equal(states[0][path], states[1][path], equal_nan=True):
            yield path
    for name in (journal.LOG, journal.LAYERS):
        if timeless(one / name) != timeless(other / name):
            yield name
    if (one / journal.EVALUATION).read_text() != (other / journal.EVALUATION).read_text():
        yield journal.EVALUATION


def timeless(path: Path) -> list[dict[str, Any]]:
    """The records of a log without what depends on the machine's mood; NaN is equal to NaN."""
    records = map(json.loads, path.read_text().splitlines())
    return [{k: repr(v) for k, v in record.items() if k not in TIMES} for record in records]


def torture(folder: Path, options: argparse.Namespace) -> int:
    """Two runs below a folder, one left alone and one not; returns the exit status."""
    chance = random.Random(options.seed)
    alone = Victim(folder / "alone", options.steps, chance)
    startup = alone.finish()
    print(f"left alone: {options.steps} steps, the first record after {startup:.1f} s\n", flush=True)
    kinds = [("starting", "training", "saving", "training")[i % 4] for i in range(options.kills)]
    blows = [(signal.SIGKILL, kind) for kind in kinds] + [(signal.SIGTERM, "training")] * options.terms
    chance.shuffle(blows)
    late = [i for i, (number, kind) in enumerate(blows) if number == signal.SIGKILL and kind != "starting"]
    damaged = set(chance.sample(late, min(options.damages, len(late))))
    victim = Victim(folder / "killed", options.steps, chance)
    advance = max(int(1.2 * options.steps / (len(late) + options.terms)), 1)
    print("| # | sent | in which phase | went on from | reached | last words |\n" + "| --- " * 6 + "|")
    wrong = []
    for i, (number, kind) in enumerate(blows):
        blow = victim.strike(number, moment(kind, victim, advance, startup), damage=i in damaged)
        begun = "-" if blow.begun is None else blow.begun
        said = f"{blow.said}{f' **{blow.wrong}**' if blow.wrong else ''}"
        print(f"| {i + 1} | {blow.sent} | {blow.when} | {begun} | {blow.reached} | {said} |", flush=True)
        wrong += [f"blow {i + 1}: {blow.wrong}"] if blow.wrong else []
    victim.finish()
    wrong += [f"{name} differs" for name in differences(alone.folder, victim.folder)]
    print(f"\n{len(wrong)} faults: {'; '.join(wrong)}" if wrong else "\nequal in the end, bit for bit")
    return 1 if wrong else 0


def main(args: Sequence[str] | None = None) -> int:
    """Parses the arguments and returns the exit status."""
    parser = argparse.ArgumentParser(usage=__doc__.strip().splitlines()[2].strip())
    for name, default in (("kills", 20), ("terms", 4), ("damages", 4), ("steps", 3000), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path, help="keeps the runs in this new folder")
    options = parser.parse_args(args)
    if options.out:
        options.out.mkdir(parents=True)
        return torture(options.out, options)
    with tempfile.TemporaryDirectory() as folder:
        return torture(Path(folder), options)


if __name__ == "__main__":
    sys.exit(main())
