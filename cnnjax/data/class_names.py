"""What the classes of a set are called."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

_CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree
wolf woman worm
"""

WELL_KNOWN: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "cifar10": (
            *("airplane", "automobile", "bird", "cat", "deer"),
            *("dog", "frog", "horse", "ship", "truck"),
        ),
        "cifar100": tuple(_CIFAR100.split()),
        "fashion_mnist": (
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
    }
)
"""Names in the order of the labels, for folders that do not hold them. Those of digits are their numbers."""


def class_names(name: str, num_classes: int, folder: Path | None = None) -> tuple[str, ...]:
    """The names of the classes of the set `name[/config][:version]`, in the order of their labels.

    They are read from the file `label.labels.txt` (or another `*.labels.txt` with as many lines) that TFDS writes
    into the set's folder, or else taken from `WELL_KNOWN`; where neither has them, they are the numbers.
    """
    for file in () if folder is None else _label_files(folder):
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        if len(names := tuple(filter(None, lines))) == num_classes:
            return names
    known = WELL_KNOWN.get(name.partition(":")[0], ())
    return known if len(known) == num_classes else tuple(map(str, range(num_classes)))


def _label_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.labels.txt"), key=lambda file: (file.name != "label.labels.txt", file.name))
