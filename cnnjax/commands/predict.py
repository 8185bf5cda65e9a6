"""`cnnjax predict`: what a trained network sees in pictures."""

import dataclasses
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from cnnjax.commands.evaluate import Which


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict:
    """Name the likeliest classes of pictures by the network of a run."""

    folder: Annotated[Positional[Path], arg(metavar="DIR", help_behavior_hint="")]
    """The folder of the run."""
    images: Annotated[Positional[tuple[Path, ...]], arg(metavar="IMAGE ...", help_behavior_hint="")]
    """Pictures. Each is scaled, and its center cut out, as in evaluations."""
    checkpoint: Which = "last"
    """The newest checkpoint, the best one on the validation split, or that of a step."""
    count: Annotated[int, arg(metavar="N")] = 5
    """How many classes to name."""

    def __call__(self, command: str) -> int:
        """Prints the classes."""
        from cnnjax.training import predict
        from cnnjax.training.network import probabilities_of, trained

        if not self.images:
            raise ValueError("name the pictures, too: cnnjax predict DIR IMAGE ...")
        found = trained(self.folder, which=self.checkpoint)
        pictures = predict.read_images(self.images, image_shape=found.data.image_shape, note=print)
        probabilities = probabilities_of(found, pictures)
        tops = predict.top(probabilities, count=self.count, class_names=found.data.class_names)
        for path, top in zip(self.images, tops, strict=True):
            print(f"{path}: {', '.join(f'{name} {probability:.1%}' for name, probability in top)}")
        return 0
