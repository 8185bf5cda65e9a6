"""Flax (Linen) modules: parameters, a call of `cnnjax.functional`, and one probe point."""

from cnnjax.nn.activation import RECORD, SLOTS, Activation, PReLU
from cnnjax.nn.blocks import (
    BasicBlock,
    BottleneckBlock,
    Layer,
    ModuleDef,
    Multiplier,
    PreActivationBlock,
    PreActivationBottleneckBlock,
    PreActivationLayer,
    pad_shortcut,
)
from cnnjax.nn.branches import Branches
from cnnjax.nn.embedding import Embed
from cnnjax.nn.inverted import FusedInvertedResidual, InvertedResidual
from cnnjax.nn.layers import Conv, ConvTranspose, Dense, DepthwiseConv, Dropout, Pool, SeparableConv
from cnnjax.nn.norm import NORMS, BatchNorm, ChannelNorm, GroupNorm, InstanceNorm, LayerNorm
from cnnjax.nn.squeeze import SqueezeExcite
from cnnjax.nn.stack import Stack, restack, unstack
from cnnjax.nn.standardized import WSConv

__all__ = [
    "NORMS",
    "RECORD",
    "SLOTS",
    "Activation",
    "BasicBlock",
    "BatchNorm",
    "BottleneckBlock",
    "Branches",
    "ChannelNorm",
    "Conv",
    "ConvTranspose",
    "Dense",
    "DepthwiseConv",
    "Dropout",
    "Embed",
    "FusedInvertedResidual",
    "GroupNorm",
    "InstanceNorm",
    "InvertedResidual",
    "Layer",
    "LayerNorm",
    "ModuleDef",
    "Multiplier",
    "PReLU",
    "Pool",
    "PreActivationBlock",
    "PreActivationBottleneckBlock",
    "PreActivationLayer",
    "SeparableConv",
    "SqueezeExcite",
    "Stack",
    "WSConv",
    "pad_shortcut",
    "restack",
    "unstack",
]
