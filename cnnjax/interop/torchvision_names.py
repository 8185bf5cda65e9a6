"""What torchvision calls the parts of our models: a table for each family.

A row is a pattern of our modules' paths, written out (without scanned stacks), and torchvision's name:

- `{s}` is any word, and stands for the same word on both sides; `*` is any word;
- `<...>` is a part that torchvision numbers, because it sits in a sequence: in the order of execution, modules without
  parameters included. `#` is that number, from 0;
- `[conv|bn]`, in a name, tells a layer's linear part from its norm.

The first row that fits a path holds.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from cnnjax.models import Model
from cnnjax.models.alexnet import AlexNet
from cnnjax.models.convnext import ConvNeXt
from cnnjax.models.densenet import DenseNet
from cnnjax.models.efficientnet import EfficientNet
from cnnjax.models.googlenet import GoogLeNet
from cnnjax.models.inception_v3 import InceptionV3
from cnnjax.models.mobilenet_v2 import MobileNetV2
from cnnjax.models.mobilenet_v3 import MobileNetV3
from cnnjax.models.resnet import ResNet
from cnnjax.models.resnet3d import ResNet3D
from cnnjax.models.shufflenet_v2 import ShuffleNetV2
from cnnjax.models.squeezenet import SqueezeNet
from cnnjax.models.vgg import VGG


@dataclass(frozen=True)
class Family:
    """How the weights of an architecture are called in torchvision.

    Attributes:
      rows: our modules and torchvision's.
      flattened: our dense layers that read flattened maps, if a convolution is in front of them: torch flattens (channels,
        height, width), and we (height, width, channels).
      optional: how the names of heads begin that a file may have and a model may lack.
      older: a regular expression of names in older files, and what it is replaced by.
    """

    rows: Mapping[str, str]
    flattened: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    older: Mapping[str, str] = field(default_factory=dict)


_SEQUENCES = {
    "<conv*/*>": "features.#",
    "<pool*>": "features.#",
    "<fc*_dropout>": "classifier.#",
    "<fc*/*>": "classifier.#",
    "<head/linear>": "classifier.#",
}
_SQUEEZENET = {
    "<conv1/*>": "features.#",
    "<pool*>": "features.#",
    "<fire*>/{part}/linear": "features.#.{part}",
    "head/linear": "classifier.1",
}
_GOOGLENET = {
    "conv{i}": "conv{i}.[conv|bn]",
    "inception{m}/branch1": "inception{m}.branch1.[conv|bn]",
    "inception{m}/branch{b}_<*>": "inception{m}.branch{b}.#.[conv|bn]",
    "inception{m}/branch4": "inception{m}.branch4.1.[conv|bn]",
    "aux{i}/conv": "aux{i}.conv.[conv|bn]",
    "aux{i}/fc1/linear": "aux{i}.fc1",
    "aux{i}/head/linear": "aux{i}.fc2",
    "head/linear": "fc",
}
_INCEPTION_V3 = {
    "conv_3b": "Conv2d_3b_1x1.[conv|bn]",
    "conv_{n}": "Conv2d_{n}_3x3.[conv|bn]",
    "mixed_{m}/{branch}": "Mixed_{m}.{branch}.[conv|bn]",
    "aux/head/linear": "AuxLogits.fc",
    "aux/{part}": "AuxLogits.{part}.[conv|bn]",
    "head/linear": "fc",
}
_RESNET = {
    "stem": "[conv|bn]1",
    "stage{s}<_down|/block_*>/layer{i}": "layer{s}.#.[conv|bn]{i}",
    "stage{s}<_down|/block_*>/shortcut": "layer{s}.#.downsample.[0|1]",
    "head/linear": "fc",
}
_RESNET3D = {
    "stem": "stem.[0|1]",
    "stage{s}<_down|/block_*>/layer{i}": "layer{s}.#.conv{i}.[0|1]",
    "stage{s}<_down|/block_*>/shortcut": "layer{s}.#.downsample.[0|1]",
    "head/linear": "fc",
}
_DENSENET = {
    "stem": "features.[conv|norm]0",
    "denseblock{b}/denselayer{j}/layer{i}": "features.denseblock{b}.denselayer{j}.[conv|norm]{i}",
    "transition{n}": "features.transition{n}.[conv|norm]",
    "final_norm": "features.norm5",
    "head/linear": "classifier",
}
_MOBILENET_V2 = {
    "<stem|last>": "features.#.[0|1]",
    "<stage*_first|stage*/block_*>/<expand|depthwise>": "features.#.conv.#.[0|1]",
    "<stage*_first|stage*/block_*>/<project/linear|project/norm>": "features.#.conv.#",
    "head/linear": "classifier.1",
}
_MOBILENET_V3 = {
    "<stem|last>": "features.#.[0|1]",
    "<block*|block*/block_*>/<squeeze>/reduce/linear": "features.#.block.#.fc1",
    "<block*|block*/block_*>/<squeeze>/expand/linear": "features.#.block.#.fc2",
    "<block*|block*/block_*>/<expand|depthwise|project>": "features.#.block.#.[0|1]",
    "dense/linear": "classifier.0",
    "head/linear": "classifier.3",
}
_EFFICIENTNET = {
    "<stem|last>": "features.#.[0|1]",
    "<stage*><_first|/block_*>/<squeeze>/reduce/linear": "features.#.#.block.#.fc1",
    "<stage*><_first|/block_*>/<squeeze>/expand/linear": "features.#.#.block.#.fc2",
    "<stage*><_first|/block_*>/<expand|layer|depthwise|project>": "features.#.#.block.#.[0|1]",
    "head/linear": "classifier.1",
}
_SHUFFLENET_V2 = {
    "stem": "conv1.[0|1]",
    "stage{s}<_down|/block_*>/branch1/depthwise": "stage{s}.#.branch1.[0|1]",
    "stage{s}<_down|/block_*>/branch1/pointwise": "stage{s}.#.branch1.[2|3]",
    "stage{s}<_down|/block_*>/branch2/pointwise1": "stage{s}.#.branch2.[0|1]",
    "stage{s}<_down|/block_*>/branch2/depthwise": "stage{s}.#.branch2.[3|4]",
    "stage{s}<_down|/block_*>/branch2/pointwise2": "stage{s}.#.branch2.[5|6]",
    "conv5": "conv5.[0|1]",
    "head/linear": "fc",
}
_CONVNEXT = {
    "<stem>": "features.#.[0|1]",
    "<stage*_down>/norm": "features.#.0",
    "<stage*_down>/conv/linear": "features.#.1",
    "<stage*>/block_{j}/depthwise": "features.#.{j}.block.[0|2]",
    "<stage*>/block_{j}/expand/linear": "features.#.{j}.block.3",
    "<stage*>/block_{j}/project/linear": "features.#.{j}.block.5",
    "<stage*>/block_{j}/layer_scale": "features.#.{j}",
    "final_norm": "classifier.0",
    "head/linear": "classifier.2",
}

FAMILIES: Mapping[type[Model], Family] = MappingProxyType(
    {
        AlexNet: Family(_SEQUENCES, flattened=("fc6/linear",)),
        VGG: Family(_SEQUENCES, flattened=("fc6/linear", "head/linear")),
        SqueezeNet: Family(_SQUEEZENET),
        GoogLeNet: Family(
            _GOOGLENET, flattened=("aux1/fc1/linear", "aux2/fc1/linear"), optional=("aux1.", "aux2.")
        ),
        InceptionV3: Family(_INCEPTION_V3, optional=("AuxLogits.",)),
        ResNet: Family(_RESNET),
        ResNet3D: Family(_RESNET3D),
        DenseNet: Family(_DENSENET, older={r"(.*denselayer\d+\.(?:norm|conv))\.([12]\.\w+)": r"\1\2"}),
        MobileNetV2: Family(_MOBILENET_V2),
        MobileNetV3: Family(_MOBILENET_V3),
        EfficientNet: Family(_EFFICIENTNET),
        ShuffleNetV2: Family(_SHUFFLENET_V2),
        ConvNeXt: Family(_CONVNEXT),
    }
)
"""The families that torchvision has, too."""


def families_of(names: Iterable[str]) -> list[type[Model]]:
    """The families that have all of these modules, which torchvision calls so."""
    given = set(names)
    expressions = {
        family: "|".join(map(_their_expression, f.rows.values())) for family, f in FAMILIES.items()
    }
    fits = {family: re.compile(e).fullmatch for family, e in expressions.items()}
    return [family for family in FAMILIES if given and all(map(fits[family], given))]


def module_names(rows: Mapping[str, str], paths: Iterable[str]) -> dict[str, str]:
    """What torchvision calls our modules, by their paths; modules that no row fits are left out.

    Args:
      rows: of a family.
      paths: of all modules, written out, in the order of execution.
    """
    patterns = [
        (re.compile(_expression(ours)), theirs) for row in rows.items() for ours, theirs in _split(*row)
    ]
    numbers: dict[str, dict[str, int]] = {}
    names = {}
    for path in paths:
        fits = ((pattern.fullmatch(path), theirs) for pattern, theirs in patterns)
        match, theirs = next(((m, t) for m, t in fits if m), (None, ""))
        if match:
            names[path] = _numbered(theirs.format(**match.groupdict()), _numbered_parts(match), numbers)
    return names


def _split(ours: str, theirs: str) -> list[tuple[str, str]]:
    """A row for a layer's linear part, and one for its norm."""
    choice = re.search(r"\[(\w+)\|(\w+)\]", theirs)
    if choice is None:
        return [(ours, theirs)]
    before, behind = theirs[: choice.start()], theirs[choice.end() :]
    return [(f"{ours}/{part}", before + choice[i] + behind) for i, part in ((1, "linear"), (2, "norm"))]


def _expression(ours: str) -> str:
    groups = ours.replace("<", "(").replace(">", ")").replace("*", r"\w+")
    return re.sub(r"\{(\w+)\}", r"(?P<\1>\\w+?)", groups)


def _their_expression(theirs: str) -> str:
    escaped = theirs.replace(".", r"\.").replace("[", "(").replace("]", ")").replace("#", r"\d+")
    return re.sub(r"\{\w+\}", r"\\w+", escaped)


def _numbered_parts(match: re.Match) -> list[str]:
    named = set(match.re.groupindex.values())
    return [match[i] for i in range(1, match.re.groups + 1) if i not in named]


def _numbered(name: str, parts: list[str], numbers: dict[str, dict[str, int]]) -> str:
    """The name with its `#` filled: how many other parts were met before in the same place."""
    for part in parts:
        before, behind = name.split("#", 1)
        seen = numbers.setdefault(before, {})
        name = f"{before}{seen.setdefault(part, len(seen))}{behind}"
    return name
