"""`cnnjax summary`: a model's layers in a table."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg

from cnnjax.commands.options import parse_value

if TYPE_CHECKING:
    from cnnjax.commands.layers import Row
    from cnnjax.commands.reach import Field

COUNTED = (
    "A row counts all of its repetitions. FLOPs: products with kernels in one forward pass of one image, a multiply-add as "
    "2; biases, norms, activations and pooling are left out. Activations: the outputs of convolutions, dense layers, norms "
    "and activations for one image in float32, which a backward pass keeps at most. Receptive field: entries of the image "
    "along an axis, at the first and the last repetition; statistics of norms are not counted; – where positions are gone."
)


@dataclasses.dataclass(frozen=True)
class Summary:
    """Show the layers of a model: shapes, parameters, FLOPs, receptive fields. Nothing is computed."""

    model: Annotated[Positional[str | None], arg(metavar="MODEL", help_behavior_hint="(none: list them)")] = (
        None
    )
    """The name of a model."""
    image: Annotated[tuple[int, ...], arg(metavar="H W C")] = (32, 32, 3)
    """Height, width and channels of the images."""
    option: Annotated[
        UseAppendAction[tuple[tuple[str, ...], ...]],
        arg(metavar="NAME=VALUE ...", help_behavior_hint="(may be repeated)"),
    ] = ()
    """Options of the model, as in depth=50 activation=tanh norm=none."""
    list: Annotated[bool, arg(help_behavior_hint="")] = False
    """List the models and their options."""

    def __call__(self, command: str) -> int:
        """Prints the table."""
        from cnnjax.commands.cells import console

        if self.model is None or self.list:
            _list_models()
            return 0
        from cnnjax import models
        from cnnjax.commands.layers import rows

        if len(self.image) < 2 or min(self.image) < 1:
            raise ValueError(
                f"--image takes the size of each axis and the channels, each 1 or more; got {_by(self.image)}"
            )
        options = dict(_option(word) for words in self.option for word in words)
        found = rows(models.create(self.model, **options), self.image)
        out = console()
        out.print(_table(_title(self.model, options, self.image), found))
        out.print(_totals(found))
        out.print(COUNTED, style="dim")
        return 0


def _option(word: str) -> tuple[str, Any]:
    name, equals, value = word.partition("=")
    if not (name and equals and value):
        raise ValueError(f"--option takes NAME=VALUE, as in depth=50; got {word!r}")
    return name, parse_value(value)


def _list_models() -> None:
    from cnnjax import models

    for name in models.names():
        print(f"{name}: {', '.join(f'{k}={v}' for k, v in models.options(name).items())}")


def _title(model: str, options: dict[str, Any], image: tuple[int, ...]) -> str:
    chosen = "".join(f", {name}={value}" for name, value in options.items())
    return f"{model}{chosen}, images {_by(image)}"


def _table(title: str, rows: "list[Row]") -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("layer", no_wrap=True)
    for name in ("×", "output", "kernel", "receptive field", "parameters", "FLOPs"):
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
            f"{row.flops:,}",
        )
    return table


def _totals(rows: "list[Row]") -> str:
    parameters, flops, size = (
        sum(getattr(r, n) for r in rows) for n in ("parameters", "flops", "output_bytes")
    )
    memory = f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"
    return f"{parameters:,} parameters, {flops:,} FLOPs, {memory} of activations"


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _field(field: "Field") -> str:
    sizes = list(dict.fromkeys(span.size for span in field))
    return "x".join(map(str, sizes if len(sizes) == 1 else [span.size for span in field])) or "–"
