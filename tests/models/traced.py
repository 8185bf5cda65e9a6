"""What is known of a model without computing anything."""

import functools

import jax

from cnnjax import models


def inputs(name):
    """One input of a variant, as a shape."""
    variant = models.VARIANTS[name]
    return jax.ShapeDtypeStruct((1, *variant.image), variant.dtype)


def output_shapes(model, x):
    """The shapes, for one image, of what each part of the model itself puts out, by the part's name."""

    def run(x):
        return model.init_with_output(jax.random.key(0), x, capture_intermediates=True)[1]["intermediates"]

    captured = jax.eval_shape(run, x)
    return {
        part: tree["__call__"][0].shape[1:]
        for part, tree in captured.items()
        if isinstance(tree, dict) and "__call__" in tree
    }


def parameters_of(model, x):
    """Shapes of a model's parameters by their paths, for inputs of that shape."""
    made = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    found = jax.tree_util.tree_leaves_with_path(made)
    return {"/".join(key.key for key in path): leaf.shape for path, leaf in found}


@functools.cache
def parameters(name, **options):
    """The same of a variant, for inputs of its paper's."""
    return parameters_of(models.create(name, **options), inputs(name))
