"""A functional research codebase for convolutional networks: where gradients vanish, layer by layer."""

import importlib.metadata

__version__ = importlib.metadata.version("cnnjax")
