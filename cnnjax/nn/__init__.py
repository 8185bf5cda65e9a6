"""Flax (Linen) modules: parameters, a call of `cnnjax.functional`, and one probe point."""

from cnnjax.nn.activation import RECORD, SLOTS, Activation, PReLU
from cnnjax.nn.blocks import (
    BasicBlock,
    BottleneckBlock,
    Layer,
    Multiplier,
    PreActivationBlock,
    PreActivationLayer,
    pad_shortcut,
)
from cnnjax.nn.layers import Conv, ConvTranspose, Dense, DepthwiseConv, Dropout, SeparableConv
from cnnjax.nn.norm import NORMS, BatchNorm, GroupNorm, InstanceNorm, LayerNorm
from cnnjax.nn.stack import Stack, restack, unstack

__all__ = [
    "NORMS",
    "RECORD",
    "SLOTS",
    "Activation",
    "BasicBlock",
    "BatchNorm",
    "BottleneckBlock",
    "Conv",
    "ConvTranspose",
    "Dense",
    "DepthwiseConv",
    "Dropout",
    "GroupNorm",
    "InstanceNorm",
    "Layer",
    "LayerNorm",
    "Multiplier",
    "PReLU",
    "PreActivationBlock",
    "PreActivationLayer",
    "SeparableConv",
    "Stack",
    "pad_shortcut",
    "restack",
    "unstack",
]
