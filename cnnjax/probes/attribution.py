"""Attribution: which part of a network kills the gradient, or makes it explode.

One part at a time has its backward pass replaced by one that cannot be blamed, while the forward pass stays as it is, bit
for bit; what the gradient at the first layer then gains or loses is that part's doing.

What cannot be blamed is an isometry, up to the factor by which signals have to be scaled. In a network that keeps its
signal, z -> f(z) -> W f(z) = z' -> ..., an activation multiplies the root mean square by r = |f(z)| / |z|, and the kernel
behind it makes up for that by 1 / r (He et al. 2015). So

  activation: the derivative becomes the constant r. ReLU halves the second moment both ways and is innocent; a sigmoid's
    derivative is at most 1/4 while it passes the signal on at full size, and it is guilty.
  kernel: its transpose becomes the nearest isometry times 1 / r, where the shapes allow one, else its own result is
    rescaled to that norm. (Where a norm reads the kernel's output, 1 / r is divided by the norm's factor, too: the norm
    undoes the kernel's scale.) Under ReLU, He's kernels are innocent and Xavier's are guilty. What zero padding loses is the
    kernel's, too.
  norm: the Jacobian becomes the constant factor by which the norm scaled its signal. What remains is its doing: with batch
    norm, that it divides by the deviation from the mean, which is less than the signal that the activation passed on.
  statistics: mean and variance are constants in the backward pass.
  skip: nothing passes it. The change is what the gradient owes to it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from cnnjax import functional as F
from cnnjax.functional.names import lookup
from cnnjax.probes.backward import check_batch, first_gradient
from cnnjax.probes.parts import KINDS, Kind, Layout, Part, find_parts
from cnnjax.probes.replacement import FACTORS, ISOMETRIES, MEASURED, SWITCHES, measuring, replacing
from cnnjax.probes.trees import at_path, put_at_path

ALL = "all"
"""In the column `layer`: every part of the kind at once."""


def attribute_gradient(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    labels: jax.Array,
    *,
    kinds: Sequence[Kind] = KINDS,
    by_layer: bool = True,
    loss: Callable[[jax.Array, jax.Array], jax.Array] = F.cross_entropy,
    train: bool = True,
    key: jax.Array | None = None,
    precision: str | None = "highest",
) -> pd.DataFrame:
    """How the gradient at the first layer changes when one part's backward pass is replaced (see the module's text).

    The gradient is that of the mean loss with respect to the first layer's pre-activations; parts before them have no
    share in it and no row. Compiles two programs, whatever the depth. Each row takes a forward and a backward pass, so
    with `by_layer` the time grows with the square of the depth.

    Only parts made of `cnnjax.nn` are seen: its activations and norms, any module with a kernel, and shortcuts that are
    added by `nn.Layer` or a pre-activation block, projections included. Pooling and multipliers stay as they are.

    Args:
      model, variables, images, labels, loss, train, key, precision: as in `gradient_flow`.
      kinds: those to look at.
      by_layer: whether each layer gets rows of its own; False gives a row for each kind only.

    Returns:
      A row for each replacement, the untouched network first (`kind` "none"):
        kind: of the part;
        layer: its name as in `Flow.layers`, or `ALL`;
        replacement: "constant factor", "isometry", "rescaled", "isometry or rescaled", "constant statistics" or "cut";
        gradient_log10_second_moment: at the first layer, with the replacement;
        change: by how many orders of magnitude that is more than untouched. Positive where the part shrinks the gradient,
          infinite where nothing arrived before, 0 where still nothing does.

    Raises:
      ValueError: an unknown kind (with the nearest), `variables` lack "params", there are not as many labels as images,
        the model has no probe point, or a label is out of range.
      TypeError: the images are not floating point.
    """
    check_batch(variables, images, labels)
    for kind in kinds:
        lookup(dict.fromkeys(KINDS), kind, "kind of part")
    rngs = {} if key is None else {"dropout": key}
    stream = rngs or {"dropout": jax.random.key(0)}
    layout = Layout.of(*find_parts(model, variables, images, train=train, rngs=stream))
    if not layout.rows:
        raise ValueError(f"{type(model).__name__} has no probe point: use cnnjax.nn.Activation in its layers")
    chosen = _chosen(layout, kinds, by_layer)

    def measured(variables: Any) -> Any:
        with nn.intercept_methods(measuring):
            options: dict[str, Any] = dict(train=train, mutable=["batch_stats", MEASURED], rngs=rngs)
            return model.apply(variables, images, **options)[1].get(MEASURED, {})

    def moment(variables: Any, switches: jax.Array) -> jax.Array:
        collections = {**variables, SWITCHES: layout.tree(switches)}
        options: dict[str, Any] = dict(intervene=replacing, loss=loss, train=train, rngs=rngs)
        return first_gradient(model, collections, images, labels, **options)

    with jax.default_matmul_precision(precision):
        factors = layout.factors(jax.jit(measured)(variables))
        fixed = {**variables, FACTORS: layout.tree(factors), ISOMETRIES: _isometries(layout, variables)}
        masks = jnp.asarray(np.stack([mask for *_, mask in chosen]), jnp.float32)
        moments = jax.jit(lambda v, m: jax.lax.map(lambda one: moment(v, one), m))(fixed, masks)
    return _frame(chosen, np.asarray(moments, np.float64))


def _isometries(layout: Layout, variables: Mapping[str, Any]) -> dict[str, Any]:
    """The isometry nearest to each kernel that can have one: the polar factor of its center, zero elsewhere."""
    tree: dict[str, Any] = {}
    for part in layout.parts:
        if part.isometric:
            kernel = np.asarray(at_path(variables["params"], (*part.path, "kernel")), np.float64)
            leading = len(layout.lengths[part])
            center = tuple((size - 1) // 2 for size in kernel.shape[leading:-2])
            left, _, right = np.linalg.svd(kernel[(slice(None),) * leading + center], full_matrices=False)
            put_at_path(tree, part.switch, jnp.asarray(left @ right, jnp.float32))
    return tree


def _chosen(layout: Layout, kinds: Sequence[Kind], by_layer: bool) -> list[tuple[str, str, str, np.ndarray]]:
    """(kind, layer, replacement, switches) of every row of the table."""
    chosen: list[tuple[str, str, str, np.ndarray]] = [("none", ALL, "", np.zeros(layout.size, bool))]
    for kind in kinds:
        rows = [row for row in layout.rows if row[0].kind == kind and not row[0].passive]
        positions = [layout.offsets[part] + index for part, index, _ in rows]
        masks = np.arange(layout.size) == np.asarray(positions, int)[:, None]
        words = [_replacement(part) for part, _, _ in rows]
        if rows:
            chosen.append((kind, ALL, " or ".join(sorted(set(words))), masks.any(axis=0)))
        if by_layer:
            names = [name for *_, name in rows]
            chosen += zip([kind] * len(rows), names, words, masks, strict=True)
    return chosen


def _replacement(part: Part) -> str:
    if part.kind == "kernel":
        return "isometry" if part.isometric else "rescaled"
    return {"statistics": "constant statistics", "skip": "cut"}.get(part.kind, "constant factor")


def _frame(chosen: Sequence[tuple[str, str, str, np.ndarray]], moments: np.ndarray) -> pd.DataFrame:
    untouched = moments[0]
    same = moments == untouched
    change = np.subtract(moments, untouched, out=np.zeros_like(moments), where=~same)
    kinds, layers, replacements, _ = zip(*chosen, strict=True)
    return pd.DataFrame(
        {
            "kind": kinds,
            "layer": layers,
            "replacement": replacements,
            "gradient_log10_second_moment": moments,
            "change": change,
        }
    )
