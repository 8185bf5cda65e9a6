"""What a study's networks are drawn from, read from its configuration: the options of a cell, and a grid over sigma_w2."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cnnjax import models
from cnnjax.frame import Info
from cnnjax.report import tables

__all__ = ["Ensemble", "gaussian_grid", "options_of"]

MODELS = ("mlp", "plain")
# Neither norm nor skip, and no zeros that leak in at the borders.
PLAIN = {"initializer": "gaussian", "norm": None, "skip": False, "padding": "CIRCULAR"}


@dataclass(frozen=True)
class Ensemble:
    """The networks of a study over sigma_w2 and depth.

    Attributes:
      activation: its name.
      sigma_b2: variance of the biases.
      axis: of the grid, the one that sets sigma_w2.
      sigma_w2: fan_in times the variance of the kernels' entries, by the label of that axis, in its order.
    """

    activation: str
    sigma_b2: float
    axis: str
    sigma_w2: Mapping[str, float]


def options_of(info: Info, labels: Mapping[str, str]) -> dict[str, Any]:
    """The model and its options at these labels of axes, those left out at their defaults.

    Args:
      info: what study.json holds.
      labels: by axis, as in `tables.Axis.labels`; an axis that is not among them sets nothing.
    """
    config = info["config"]
    chosen = {"model": config["model"], **config["options"]}
    for axis, label in labels.items():
        chosen |= _settings(info, axis)[label]
    return models.options(chosen["model"]) | chosen


def gaussian_grid(info: Info) -> Ensemble:
    """The ensemble of a study of `depth` and the gain of Gaussian kernels, of variance gain^2 / fan_in.

    Args:
      info: what study.json holds.

    Raises:
      ValueError: the study is no such grid; the text says why.
    """
    grid = tables.axes(info)
    others = [axis for axis in grid if axis.name != "depth"]
    if len(grid) != 2 or len(others) != 1 or not _is_gain(info, others[0].name):
        names = ", ".join(axis.name for axis in grid) or "none"
        raise ValueError(
            f"expected a study over two axes, depth and one that sets the gain and nothing else; {info['name']!r} "
            f"has the axes {names}"
        )
    axis = others[0].name
    fixed = {one.name: one.labels[0] for one in tables.axes(info, at_least=1) if len(one.labels) == 1}
    options = options_of(info, fixed)
    _check_plain(info, options)
    sigma_w2 = {label: _square(settings["gain"]) for label, settings in _settings(info, axis).items()}
    return Ensemble(options["activation"], _square(options["bias_std"]), axis, sigma_w2)


def _settings(info: Info, axis: str) -> dict[str, dict[str, Any]]:
    """What each value of an axis sets, by its label."""
    values = info["config"]["grid"][axis]
    if isinstance(values, Mapping):
        return {tables.label(name): dict(settings) for name, settings in values.items()}
    labels = (tables.label(value) for value in info["axes"][axis])
    return {label: {axis: value} for label, value in zip(labels, values, strict=True)}


def _is_gain(info: Info, axis: str) -> bool:
    return all(set(settings) == {"gain"} for settings in _settings(info, axis).values())


def _square(root: float) -> float:
    # 0.5 is 0.5 again, when sqrt(0.5) was written into the study.
    return float(f"{root * root:.12g}")


def _check_plain(info: Info, options: Mapping[str, Any]) -> None:
    if options["model"] not in MODELS:
        raise ValueError(
            f"expected a study of {' or '.join(MODELS)}; {info['name']!r} is one of {options['model']}"
        )
    for name, expected in PLAIN.items():
        if options.get(name, expected) != expected:
            raise ValueError(
                f"mean-field theory of the correlation expects {name}={expected!r}; {info['name']!r} has "
                f"{name}={options[name]!r}"
            )
