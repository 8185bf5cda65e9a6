"""What two sets of named arrays do not have in common, as a text."""

from collections.abc import Iterator, Mapping
from typing import Any

# Names of a kind that an error shows.
_SHOWN = 4


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    """What a file lacks, has too much, and has in another shape, each as a text.

    Args:
      found, expected: arrays, or other things with a shape.
    """
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    misshapen = [
        f"{name} {tuple(found[name].shape)} for {tuple(leaf.shape)}"
        for name, leaf in expected.items()
        if name in found and tuple(found[name].shape) != tuple(leaf.shape)
    ]
    kinds = {
        "missing": missing,
        "extra": extra,
        "of another shape than the model's": misshapen,
    }
    for kind, names in kinds.items():
        if names:
            rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            yield f"{kind}: {', '.join(names[:_SHOWN])}{rest}"
