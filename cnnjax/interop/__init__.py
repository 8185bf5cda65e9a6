"""Weights in files: our own (`save_variables`), and torchvision's (`torchvision.load`, `torchvision.save`)."""

from cnnjax.interop import torchvision
from cnnjax.interop.flat import load_variables, save_variables

__all__ = ["load_variables", "save_variables", "torchvision"]
