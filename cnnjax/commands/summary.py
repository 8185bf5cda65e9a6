"""`cnnjax summary`: what a researcher wants to know of a model before training it."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg

from cnnjax.commands.options import parse_option, parse_shape

if TYPE_CHECKING:
    from cnnjax.commands.layers import Row
    from cnnjax.commands.reach import Field

# Of a page, where the output goes to a file: nine columns.
WIDTH = 150
COUNTED = (
    "A row counts all of its repetitions. Multiply-adds: products with kernels for one image, forward and back (for the "
    "kernels' gradients and for the inputs', the images' own left out); biases, norms, activations and pools are left out. "
    "Activations: the outputs of convolutions, dense layers, norms and activations in float32, which a backward pass keeps "
    "at most. Receptive field: entries of the image along an axis, at the first and the last repetition; statistics of "
    "norms are not counted; – where positions are gone."
)


@dataclasses.dataclass(frozen=True)
class Summary:
    """Show the layers of a model: shapes, parameters, multiply-adds, memory, receptive fields. Nothing is computed."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """The name of a model; `cnnjax models` lists them."""
    input: Annotated[str | None, arg(metavar="H,W,C", help_behavior_hint="(default: the paper's)")] = None
    """Size of each axis of an image and its channels."""
    batch: Annotated[int, arg(metavar="N")] = 1
    """Images in a batch, for the memory of activations."""
    depth: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: every layer)")] = None
    """Sum up layers whose names begin with the same N parts."""
    option: Annotated[
        UseAppendAction[tuple[tuple[str, ...], ...]],
        arg(metavar="NAME=VALUE ...", help_behavior_hint="(may be repeated)"),
    ] = ()
    """Options of the model, as in depth=50 activation=tanh norm=none."""
    json: Annotated[bool, arg(help_behavior_hint="")] = False
    """Print JSON instead of a table."""

    def __call__(self, command: str) -> int:
        """Prints the table."""
        from cnnjax import models
        from cnnjax.commands.layers import folded, rows

        for name in ("batch", "depth"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name} must be 1 or more; got {value}")
        options = dict(parse_option(word) for words in self.option for word in words)
        model = models.create(self.model, **options)
        variant = models.VARIANTS[self.model]
        image = variant.image if self.input is None else parse_shape(self.input, "--input")
        found = rows(model, image, dtype=variant.dtype)
        idle = models.difference(model, model, image, dtype=variant.dtype).shared - _sums(found)["parameters"]
        gradient = _gradient(model, image, variant.dtype)
        twins = {
            name: models.difference(model, twin, image, dtype=variant.dtype)
            for name, twin in models.twins(model).items()
        }
        shown = found if self.depth is None else folded(found, self.depth)
        if self.json:
            print(_json(self.model, options, image, self.batch, shown, found, idle, gradient, twins))
            return 0
        from cnnjax.commands.cells import console

        out = console(width=WIDTH)
        out.print(_table(_title(self.model, options, image), shown, self.batch))
        out.print(_totals(found, self.batch))
        if idle:
            out.print(f"{idle:,} more parameters, of parts that run in training only")
        out.print(gradient["text"])
        for name, change in twins.items():
            out.print(
                f"Twin {name!r}: {change.shared:,} parameters stay, {change.removed:,} go, {change.added:,} come"
            )
        out.print(COUNTED, style="dim")
        return 0


def _gradient(model: Any, image: tuple[int, ...], dtype: str) -> dict[str, Any]:
    """What theory says of the first layer's gradient over that of the last hidden one, and how far it reaches."""
    from cnnjax.probes import predict

    try:
        if dtype != "float32":
            raise ValueError("theory starts from images, and these inputs are no numbers")
        predicted = predict(model, image)
    except ValueError as error:
        return {"log10_ratio": None, "text": f"Predicted gradient at initialization: none ({error})"}
    covered = [i for i, is_covered in enumerate(predicted.covered[:-1]) if is_covered]
    whole = len(covered) > 1 and covered[0] == 0 and predicted.segment[0] == predicted.segment[-2]
    if not whole:
        reasons = ", ".join(dict.fromkeys(reason for reason in predicted.reasons if reason))
        text = (
            f"Predicted gradient at initialization: theory covers {len(covered)} of {len(predicted.layers) - 1} hidden "
            f"layers and does not connect the first with the last ({reasons})"
        )
        return {"log10_ratio": None, "text": text}
    moments = predicted.gradient_log10_second_moment
    ratio = float(moments[0] - moments[-2])
    text = f"Predicted at initialization: the first layer's mean squared gradient is 10^{ratio:.2f} of the last hidden one's"
    return {"log10_ratio": ratio, "text": text}


def _json(
    model: str,
    options: Mapping[str, Any],
    image: Sequence[int],
    batch: int,
    shown: "Sequence[Row]",
    found: "Sequence[Row]",
    idle: int,
    gradient: Mapping[str, Any],
    twins: Mapping[str, Any],
) -> str:
    totals = _sums(found)
    content = {
        "model": model,
        "options": options,
        "input": image,
        "layers": [
            {**dataclasses.asdict(row), "fields": [[span.size for span in field] for field in row.fields]}
            for row in shown
        ],
        "totals": {
            **totals,
            "parameters_of_training_only": idle,
            "batch": batch,
            "activation_bytes": totals["output_bytes"] * batch,
        },
        "predicted_log10_gradient_ratio": gradient["log10_ratio"],
        "twins": {name: dataclasses.asdict(change) for name, change in twins.items()},
    }
    return json.dumps(content, indent=1, default=str)


def _title(model: str, options: Mapping[str, Any], image: tuple[int, ...]) -> str:
    chosen = "".join(f", {name}={value}" for name, value in options.items())
    return f"{model}{chosen}, images {_by(image)}"


def _table(title: str, rows: "Sequence[Row]", batch: int) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("layer", no_wrap=True)
    for name in (
        "×",
        "output",
        "kernel",
        "receptive field",
        "parameters",
        "multiply-adds",
        "backward",
        "activations",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        fields = [_field(field) for field in row.fields]
        table.add_row(
            row.name.replace("[", r"\["),
            f"{row.repeats:,}" if row.repeats > 1 else "",
            _by(row.output),
            "–" if row.kernel is None else _by(row.kernel),
            " … ".join(dict.fromkeys(fields)),
            f"{row.parameters:,}",
            f"{row.multiply_adds:,}",
            f"{row.backward_multiply_adds:,}",
            _memory(row.output_bytes * batch),
        )
    return table


def _totals(rows: "Sequence[Row]", batch: int) -> str:
    sums = _sums(rows)
    return (
        f"{sums['parameters']:,} parameters, {sums['multiply_adds']:,} multiply-adds forward and "
        f"{sums['backward_multiply_adds']:,} back, {_memory(sums['output_bytes'] * batch)} of activations at batch size "
        f"{batch}"
    )


def _sums(rows: "Sequence[Row]") -> dict[str, int]:
    names = ("parameters", "multiply_adds", "backward_multiply_adds", "output_bytes")
    return {name: sum(getattr(row, name) for row in rows) for name in names}


def _memory(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _field(field: "Field") -> str:
    sizes = list(dict.fromkeys(span.size for span in field))
    return "x".join(map(str, sizes if len(sizes) == 1 else [span.size for span in field])) or "–"
