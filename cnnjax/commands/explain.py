"""`cnnjax explain`: what a trained model sees in a picture."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import UseAppendAction, arg

from cnnjax.commands.options import parse_option

if TYPE_CHECKING:
    import jax
    import numpy as np

    from cnnjax.explain import Explanation
    from cnnjax.models import Model

# Of ImageNet's training images; torchvision's weights expect them, but for two models that were trained elsewhere.
IMAGENET_CLASSES = 1000
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALVES = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
ELSEWHERE = {"googlenet": HALVES, "inception_v3": HALVES}
TOP = 5


@dataclasses.dataclass(frozen=True)
class Explain:
    """Show what a trained model sees in a picture: its likeliest classes, and a map of the evidence over the picture."""

    model: Annotated[str, arg(metavar="NAME", help_behavior_hint="")]
    """The name of a model; `cnnjax models` lists them."""
    weights: Annotated[Path, arg(metavar="FILE", help_behavior_hint="")]
    """Its variables: of cnnjax.interop.save_variables, or a .pth or .safetensors file of torchvision's."""
    image: Annotated[Path, arg(metavar="FILE", help_behavior_hint="")]
    """A picture. It is scaled to cover the model's size, and its center cut out."""
    method: Annotated[str, arg(metavar="NAME")] = "gradcam"
    """gradcam, gradcam++, guided, integrated_gradients or occlusion."""
    layer: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: the method's)")] = None
    """The layer to look at, as in stage3[1]/layer2; a wrong name lists them."""
    target: Annotated[int | None, arg(metavar="K", help_behavior_hint="(default: the predicted one)")] = None
    """The class to explain."""
    out: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: IMAGE-METHOD.png)")] = None
    """Where to write the overlay."""
    size: Annotated[
        tuple[int, int] | None, arg(metavar="H W", help_behavior_hint="(default: the model's)")
    ] = None
    """Height and width at which the model sees the picture."""
    mean: Annotated[
        tuple[float, ...] | None, arg(metavar="M ...", help_behavior_hint="(default: ImageNet's)")
    ] = None
    """Of each channel of the training data, from 0 to 1. googlenet and inception_v3 take 0.5, as torchvision's; models of
    other data than ImageNet have no default."""
    std: Annotated[
        tuple[float, ...] | None, arg(metavar="S ...", help_behavior_hint="(default: ImageNet's)")
    ] = None
    """Deviation of each channel of the training data."""
    option: Annotated[
        UseAppendAction[tuple[tuple[str, ...], ...]],
        arg(metavar="NAME=VALUE ...", help_behavior_hint="(may be repeated)"),
    ] = ()
    """Options of the model, as in num_classes=100 norm=none."""
    faithfulness: Annotated[bool, arg(help_behavior_hint="")] = False
    """Print the areas under the deletion and insertion curves, too."""

    def __call__(self, command: str) -> int:
        """Writes the overlay and prints the classes."""
        import numpy as np

        from cnnjax import explain, models
        from cnnjax.explain.pictures import check_ending

        model = models.create(
            self.model, **dict(parse_option(word) for words in self.option for word in words)
        )
        out = self.out or Path(f"{self.image.stem}-{self.method}.png")
        check_ending(out)
        shape = self._shape()
        normalization = self._normalization(shape[-1])
        picture = explain.read_picture(self.image, size=shape[:2], channels=shape[-1])
        variables = load_weights(self.weights, model, shape)
        chosen = self._with_layer(model, variables, shape)
        scores, found, areas = chosen._compute(model, variables, picture, normalization)
        heat = explain.enlarge(np.asarray(found.maps[0]))
        explain.write_picture(out, explain.overlay(explain.enlarge(picture), heat))
        for line in chosen._lines(np.asarray(scores), found, areas):
            print(line)
        print(f"overlay: {out}")
        return 0

    def _shape(self) -> tuple[int, int, int]:
        """Of the picture as the model sees it."""
        from cnnjax import models

        image = models.VARIANTS[self.model].image
        if len(image) != 3:
            raise ValueError(f"{self.model} takes no pictures: its inputs have shape {image}")
        height, width = self.size or image[:2]
        if min(height, width) < 1:
            raise ValueError(f"--size takes a height and a width of 1 or more; got {height} {width}")
        return height, width, image[-1]

    def _normalization(self, channels: int) -> "list[jax.Array]":
        """Mean and deviation of the training data."""
        import jax.numpy as jnp

        from cnnjax import models

        imagenet = models.options(self.model)["num_classes"] == IMAGENET_CLASSES and channels == 3
        found = []
        for name, usual in ELSEWHERE.get(self.model, IMAGENET).items():
            values = getattr(self, name) or (usual if imagenet else None)
            if values is None:
                raise ValueError(
                    f"{self.model} is no model of ImageNet: give --mean and --std of its training data"
                )
            if len(values) != channels:
                raise ValueError(
                    f"--{name} takes a number for each of {channels} channels; got {len(values)}"
                )
            if name == "std" and min(values) <= 0:
                raise ValueError(f"--std takes positive numbers; got {min(values)}")
            found.append(jnp.asarray(values, jnp.float32))
        return found

    def _with_layer(self, model: "Model", variables: Any, shape: tuple[int, ...]) -> "Explain":
        """The same with the layer that a class activation map takes by default."""
        import jax
        import jax.numpy as jnp

        from cnnjax import explain

        if self.layer is not None or not self.method.startswith("gradcam"):
            return self
        images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        return dataclasses.replace(self, layer=explain.last_spatial_layer(model, variables, images))

    def _compute(
        self,
        model: "Model",
        variables: Any,
        picture: "np.ndarray",
        normalization: "list[jax.Array]",
    ) -> "tuple[jax.Array, Explanation, dict[str, jax.Array]]":
        """The scores of the classes, the map, and the areas under its curves where they are asked for."""
        import jax

        from cnnjax import data, explain

        @jax.jit
        def compute(variables: Any, pictures: jax.Array) -> Any:
            mean, std = normalization
            images = data.normalize(pictures, mean, std)
            found = explain.explain(
                self.method, model, variables, images, target=self.target, layer=self.layer
            )
            curves = dict(deletion=explain.deletion, insertion=explain.insertion) if self.faithfulness else {}
            areas = {
                name: curve(model, variables, images, found.maps, target=self.target).areas[0]
                for name, curve in curves.items()
            }
            function, _ = explain.cut(model, variables, images, None)
            return function(images)[0], found, areas

        return compute(variables, picture[None])

    def _lines(
        self, scores: "np.ndarray", found: "Explanation", areas: "dict[str, jax.Array]"
    ) -> Iterator[str]:
        """What was found, as text."""
        import jax

        probabilities = jax.nn.softmax(scores)
        best = (-scores).argsort(kind="stable")
        for index in best[:TOP]:
            yield f"class {index}: {probabilities[index]:.1%}"
        place = "" if self.layer is None else f" at {self.layer}"
        yield f"{self.method} of class {best[0] if self.target is None else self.target}{place}"
        if found.completeness_error is not None and found.difference is not None:
            error, difference = float(found.completeness_error[0]), float(found.difference[0])
            yield f"completeness error {error:.2g} of a score difference of {difference:.3g}"
        for name, area in areas.items():
            yield f"area under the {name} curve {float(area):.3f}"


def load_weights(path: Path, model: "Model", image: tuple[int, ...]) -> dict[str, Any]:
    """The variables of a model from a file of ours or of torchvision's.

    Raises:
      FileNotFoundError: there is no such file.
      TypeError, ValueError: it is of another kind, was cut off, or holds the weights of another model.
    """
    from cnnjax import interop
    from cnnjax.interop.torchvision_names import FAMILIES

    if type(model) in FAMILIES and path.is_file() and not _holds_ours(path):
        return interop.torchvision.load(path, model, image=image)
    return interop.load_variables(path, model, image)


def _holds_ours(path: Path) -> bool:
    """Whether a file is one of `save_variables`."""
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return any(name.startswith("params/") for name in file.keys())
    except safetensors.SafetensorError:
        return False
