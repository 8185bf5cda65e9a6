"""What mean-field theory says of the networks of a study, for the report to draw over what was measured."""

from collections.abc import Mapping, Sequence

import pandas as pd

from cnnjax import probes
from cnnjax.frame import Frame
from cnnjax.study.plan import Program

COLUMNS = (
    "cell",
    "layer",
    "path",
    "activation",
    "log10_second_moment",
    "gradient_log10_second_moment",
    "segment",
    "reason",
)


def predictions(programs: Sequence[Program], image_shape: Sequence[int]) -> Frame:
    """A row for each cell and layer, as `probes.Prediction.frame` has them; none of a cell that theory does not cover.

    Cells that differ only in how they are trained have the same network, which is followed once.
    """
    frames = []
    for program in programs:
        known: dict[str, Frame | None] = {}
        for run in {run.cell: run for run in program.runs}.values():
            network = repr((run.initializer, run.numbers))
            if network not in known:
                known[network] = _predicted(program, run.initializer, run.numbers, image_shape)
            if (frame := known[network]) is not None:
                frames.append(frame.assign(cell=run.cell))
    if not frames:
        return pd.DataFrame(columns=[*COLUMNS])
    rows: Frame = pd.concat(frames)
    return rows[[*COLUMNS]].sort_values(["cell", "layer"], ignore_index=True)


def _predicted(
    program: Program, initializer: object, numbers: Mapping[str, float], image_shape: Sequence[int]
) -> Frame | None:
    """The prediction for one network; None where theory has nothing to say."""
    model = program.make_model(initializer, **numbers)
    try:
        return probes.predict(model, image_shape, batch=program.batch_size).frame()
    except ValueError:
        return None
