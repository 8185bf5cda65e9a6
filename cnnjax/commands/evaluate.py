"""`cnnjax evaluate`: what a trained network does on a whole split."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

Which = Annotated[str, arg(metavar="{last,best,STEP}")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure the network of a run on a split: loss, accuracies, calibration, the classes it confuses."""

    folder: Annotated[Positional[Path], arg(metavar="DIR", help_behavior_hint="")]
    """The folder of the run."""
    split: Literal["train", "validation", "test"] = "test"
    """Which images."""
    checkpoint: Which = "last"
    """The newest checkpoint, the best one on the validation split, or that of a step."""
    views: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: the recipe's)")] = None
    """Views of each image whose predictions are averaged: none, flip, flip_shift, five_crop, ten_crop."""
    json: Annotated[bool, arg(help_behavior_hint="")] = False
    """Print all of it as JSON."""

    def __call__(self, command: str) -> int:
        """Prints the metrics."""
        from cnnjax.report.run_metrics import PER_CLASS, percent, shares
        from cnnjax.training.network import evaluate, trained

        found = trained(self.folder, which=self.checkpoint)
        report = evaluate(found, self.split, views=self.views)
        if self.json:
            print(json.dumps({"step": found.step, "split": self.split, **report}))
            return 0
        for reason in found.passed_over:
            print(f"note: {reason}")
        print(
            f"{found.info['name']} at step {found.step:,} on {report['examples']:,} {self.split} images of {found.data.name}"
        )
        for name, value in shares(report):
            print(f"{name}: {percent(value)}")
        print(f"loss: {report['loss']:.4f}")
        for each in PER_CLASS:
            if each in report:
                print(f"{each.removeprefix('class_').replace('_', ' ')} by class:")
                for name, value in zip(found.data.class_names, report[each], strict=True):
                    print(f"  {name}: {percent(value)}")
        for note in found.info["data"]["notes"]:
            print(f"note: {note}")
        return 0
