"""How long a run is, and at which steps something is due."""

import dataclasses

KINDS = ("record", "evaluate", "checkpoint", "probe")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How long a run is and what is done on the way; all lengths in steps. At the end everything is done once more.

    Attributes:
      steps: of the run.
      batch_size: of all devices together.
      seed: of the initial parameters, the order of the examples, augmentation and dropout.
      record_every: steps between two records.
      evaluate_every: steps between two evaluations on the validation split, each with a record.
      checkpoint_every: steps between two checkpoints.
      probe_every: steps between two looks into every layer; 0 for none.
    """

    steps: int
    batch_size: int
    seed: int = 0
    record_every: int = 100
    evaluate_every: int = 1000
    checkpoint_every: int = 1000
    probe_every: int = 0

    def __post_init__(self):
        least = {"steps": 1, "batch_size": 1, "seed": 0, "probe_every": 0}
        for field in dataclasses.fields(self):
            value, smallest = getattr(self, field.name), least.get(field.name, 1)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{field.name} must be an integer, got {value!r}")
            if value < smallest:
                raise ValueError(f"{field.name} must be {smallest} or more, got {value}")

    def due(self, what: str, step: int) -> bool:
        """Whether one of `KINDS` is due behind so many steps."""
        every = getattr(self, f"{what}_every")
        at_end = step == self.steps and what != "probe"
        due = bool(every) and (at_end or step % every == 0)
        return due or (what == "record" and self.due("evaluate", step))

    def next_due(self, step: int) -> int:
        """The first step behind `step` at which something is due."""
        every = [getattr(self, f"{kind}_every") for kind in KINDS]
        return min(self.steps, *(step - step % each + each for each in every if each))
