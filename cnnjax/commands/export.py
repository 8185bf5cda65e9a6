"""`cnnjax export`: a trained network as a program that needs none of this code, and as bare weights."""

import dataclasses
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from cnnjax.commands.evaluate import Which


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """Write the network of a run as StableHLO, which JAX alone runs at any batch size, and its weights as safetensors."""

    folder: Annotated[Positional[Path], arg(metavar="DIR", help_behavior_hint="")]
    """The folder of the run."""
    out: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: DIR/export)")] = None
    """Where to."""
    checkpoint: Which = "last"
    """The newest checkpoint, the best one on the validation split, or that of a step."""

    def __call__(self, command: str) -> int:
        """Writes the files."""
        from cnnjax.training import export
        from cnnjax.training.network import trained

        found = trained(self.folder, which=self.checkpoint)
        out = self.out or self.folder / "export"
        export.export(
            found.model,
            found.variables,
            image_shape=found.data.image_shape,
            mean=found.data.mean,
            std=found.data.std,
            class_names=found.data.class_names,
            folder=out,
            about={
                "name": found.info["name"],
                "step": found.step,
                "model": found.recipe.model,
                "options": found.recipe.config()["options"],
                "label_kind": found.data.label_kind,
            },
        )
        for path in sorted(out.iterdir()):
            print(f"{path} ({path.stat().st_size:,} bytes)")
        return 0
