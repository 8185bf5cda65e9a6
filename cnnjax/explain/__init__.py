"""What a network looks at: maps of the evidence for a class, pictures of filters and features, and how faithful they are.

`cnnjax.explain.figures`, which imports the report's style, draws them.
"""

from cnnjax.explain.cam import grad_cam, grad_cam_plus_plus, last_spatial_layer
from cnnjax.explain.cut import cut, layer_shapes
from cnnjax.explain.faithfulness import Curve, blurred, deletion, insertion
from cnnjax.explain.grids import channel_pictures, first_layer_filters, image_grid
from cnnjax.explain.guided import guided_backpropagation
from cnnjax.explain.integrated import IntegratedGradients, integrated_gradients
from cnnjax.explain.methods import METHODS, Explanation, explain
from cnnjax.explain.occlusion import occlusion
from cnnjax.explain.overlay import enlarge, overlay
from cnnjax.explain.pictures import read_picture, write_picture

__all__ = [
    "METHODS",
    "Curve",
    "Explanation",
    "IntegratedGradients",
    "blurred",
    "channel_pictures",
    "cut",
    "deletion",
    "enlarge",
    "explain",
    "first_layer_filters",
    "grad_cam",
    "grad_cam_plus_plus",
    "guided_backpropagation",
    "image_grid",
    "insertion",
    "integrated_gradients",
    "last_spatial_layer",
    "layer_shapes",
    "occlusion",
    "overlay",
    "read_picture",
    "write_picture",
]
