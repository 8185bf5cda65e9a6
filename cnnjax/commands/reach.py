"""Receptive fields, read off a traced program: which entries of the image each entry of an array can depend on.

Along an axis, entry i of an array sees the entries low + i jump, ..., high + i jump of the image (Araujo et al. 2019). A
convolution, a slice, a padding or a concatenation maps these three numbers; pooling is made of slices. Where two branches
meet, the wider one counts.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jax.extend.core import Literal


class Span(NamedTuple):
    """What entry 0 along one axis sees of the image, and the step from one entry to the next."""

    low: int = 0
    high: int = 0
    jump: int = 1

    @property
    def size(self) -> int:
        """Entries of the image between the first and the last that are seen."""
        return self.high - self.low + 1

    def moved(self, entries: int) -> "Span":
        """The span of entry `entries` of the same array."""
        return Span(self.low + entries * self.jump, self.high + entries * self.jump, self.jump)


Field = tuple[Span, ...]
"""A span for each spatial axis; empty where positions are gone (flattened, averaged) or no window describes them."""
Mark = Callable[[str, Field], Field]


def follow(jaxpr: Any, inputs: Sequence[Field | None], mark: Mark) -> list[Field | None]:
    """The fields of a program's outputs, arrays `(batch, *spatial, channels)`.

    Args:
      jaxpr: of the program (`jax.make_jaxpr(...).jaxpr`).
      inputs: their fields, None for one that does not depend on the image.
      mark: called as mark(name, field) for every array named by `jax.ad_checkpoint.checkpoint_name`, in the order of
        execution, a loop's body as often as it runs; the field goes on as what it returns.
    """
    fields: dict[Any, Field] = {v: f for v, f in zip(jaxpr.invars, inputs, strict=True) if f is not None}
    for equation in jaxpr.eqns:
        known = [None if isinstance(v, Literal) else fields.get(v) for v in equation.invars]
        if all(field is None for field in known):
            continue
        for variable, field in zip(equation.outvars, _outputs(equation, known, mark), strict=True):
            if field is not None:
                fields[variable] = field
    return [None if isinstance(v, Literal) else fields.get(v) for v in jaxpr.outvars]


def _outputs(equation: Any, known: list[Field | None], mark: Mark) -> Sequence[Field | None]:
    name, parameters = equation.primitive.name, equation.params
    if name == "name":
        return [mark(parameters["name"], known[0] or ())]
    if name == "scan":
        return _scanned(equation, known, mark)
    if name == "cond":
        # The branch of other platforms: it is what the one for CPU computes, and plainer.
        return follow(_opened(parameters["branches"][-1]), known[1:], mark)
    for inner in (parameters.get("jaxpr"), parameters.get("call_jaxpr")):
        if inner is not None:
            return follow(_opened(inner), known, mark)
    shapes = [variable.aval.shape for variable in equation.invars]
    rule = _WINDOWS.get(name)
    if rule is not None and known[0]:
        return [rule(parameters, known, shapes)]
    merged = _merged([field for field in known if field is not None])
    # The channels may be split and joined again, as a shuffle does.
    spatial = slice(1, 1 + len(merged))
    sizes = {shape[spatial] for shape, field in zip(shapes, known, strict=True) if field}
    return [merged if {variable.aval.shape[spatial]} == sizes else () for variable in equation.outvars]


def _scanned(equation: Any, known: list[Field | None], mark: Mark) -> list[Field | None]:
    """A loop over its constants, its carry and slices of arrays: what the body gives for the carry goes into it again."""
    body = _opened(equation.params["jaxpr"])
    # Carries keep their shape inside, slices lose an axis. (What the equation says of it differs between versions of JAX.)
    carried = _same_shapes(equation.outvars, body.outvars)
    fixed = _same_shapes(equation.invars, body.invars) - carried
    carry, slices = known[fixed : fixed + carried], known[fixed + carried :]
    for _ in range(equation.params["length"]):
        carry = follow(body, [*known[:fixed], *carry, *slices], mark)[:carried]
    return [*carry, *[()] * (len(equation.outvars) - carried)]


def _same_shapes(outer: Sequence[Any], inner: Sequence[Any]) -> int:
    return sum(a.aval.shape == b.aval.shape for a, b in zip(outer, inner, strict=True))


def _opened(jaxpr: Any) -> Any:
    """The program itself of one that is closed over its constants."""
    return getattr(jaxpr, "jaxpr", jaxpr)


def _merged(fields: Sequence[Field]) -> Field:
    if not all(fields) or len({len(field) for field in fields}) != 1:
        return ()
    axes = zip(*fields, strict=True)
    return tuple(Span(min(s.low for s in a), max(s.high for s in a), max(s.jump for s in a)) for a in axes)


def _conv(parameters: Mapping[str, Any], known: list[Any], shapes: list[tuple[int, ...]]) -> Field:
    if math.prod(parameters["lhs_dilation"]) != 1:
        return ()
    window = [shapes[1][axis] for axis in parameters["dimension_numbers"].rhs_spec[2:]]
    rows = zip(
        known[0],
        window,
        parameters["padding"],
        parameters["rhs_dilation"],
        parameters["window_strides"],
        strict=True,
    )
    return tuple(
        Span(first.low, first.moved((size - 1) * dilation).high, first.jump * stride)
        for span, size, (low, _), dilation, stride in rows
        for first in [span.moved(-low)]
    )


def _slice(parameters: Mapping[str, Any], known: list[Any], shapes: list[tuple[int, ...]]) -> Field:
    starts = parameters["start_indices"][1:-1]
    strides = (parameters["strides"] or (1,) * len(shapes[0]))[1:-1]
    return tuple(
        span.moved(start)._replace(jump=span.jump * stride)
        for span, start, stride in zip(known[0], starts, strides, strict=True)
    )


def _pad(parameters: Mapping[str, Any], known: list[Any], shapes: list[tuple[int, ...]]) -> Field:
    config = parameters["padding_config"][1:-1]
    if any(interior for _, _, interior in config):
        return ()
    return tuple(span.moved(-low) for span, (low, _, _) in zip(known[0], config, strict=True))


def _concatenate(parameters: Mapping[str, Any], known: list[Any], shapes: list[tuple[int, ...]]) -> Field:
    axis = parameters["dimension"]
    if axis in (0, len(shapes[0]) - 1):
        return _merged([field for field in known if field is not None])
    # Of circular padding the image itself counts; what is wrapped around to its ends does not.
    largest = max(range(len(shapes)), key=lambda i: shapes[i][axis])
    before = sum(shape[axis] for shape in shapes[:largest])
    field = list(known[largest])
    field[axis - 1] = field[axis - 1].moved(-before)
    return tuple(field)


_WINDOWS = {"conv_general_dilated": _conv, "slice": _slice, "pad": _pad, "concatenate": _concatenate}
