"""Caches of the tests' own, folders of images, and tiny TFDS sets in ArrayRecord, written without TensorFlow."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pytest


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CNNJAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


@pytest.fixture
def kept_cache(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that the next test run finds again, because decoding 60,000 images takes seconds."""
    if (kept := getattr(request.config, "cache", None)) is not None:
        monkeypatch.setenv("CNNJAX_CACHE", str(kept.mkdir("cnnjax")))


IMAGE = {"pythonClassName": "tensorflow_datasets.core.features.image_feature.Image"}
LABEL = {"pythonClassName": "tensorflow_datasets.core.features.class_label_feature.ClassLabel"}


SEQUENCE = {"pythonClassName": "tensorflow_datasets.core.features.sequence_feature.Sequence"}


def feature_specs(shape: tuple[int | None, ...], classes: int, *, several: bool) -> dict:
    dimensions = ["-1" if size is None else str(size) for size in shape]
    image = IMAGE | {"image": {"dtype": "uint8", "shape": {"dimensions": dimensions}}}
    label = LABEL | {"classLabel": {"numClasses": str(classes)}}
    if several:
        return {"image": image, "labels": SEQUENCE | {"sequence": {"feature": label, "length": "-1"}}}
    return {"image": image, "label": label}


def write_records(file: Path, images: np.ndarray, labels: Sequence[int] | Sequence[list[int]]) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    writer = ArrayRecordWriter(str(file), "group_size:1")
    for image, label in zip(images, labels, strict=True):
        png = io.BytesIO()
        PIL.Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(png, "png")
        example = tf_example_pb2.Example()
        example.features.feature["image"].bytes_list.value.append(png.getvalue())
        several = isinstance(label, list)
        values = example.features.feature["labels" if several else "label"].int64_list.value
        values.extend(label if several else [int(label)])
        writer.write(example.SerializeToString())
    writer.close()


@pytest.fixture
def write_set(tmp_path: Path) -> Callable[..., dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Writes `tmp_path/sets/<name>/<version>` and returns images and labels by split.

    Labels are classes, or for images that may show several lists of them.
    """

    def write(
        name: str = "tiny",
        *,
        version: str = "1.0.0",
        shape: tuple[int | None, ...] = (4, 5, 3),
        splits: dict[str, int] | None = None,
        classes: int = 3,
        labels: np.ndarray | list[list[int]] | None = None,
        features: dict | None = None,
        file_format: str = "array_record",
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        folder = tmp_path / "sets" / name / version
        folder.mkdir(parents=True)
        short, rng, written, infos = name.split("/")[0], np.random.default_rng(1), {}, []
        for split, size in (splits or {"train": 30, "test": 9}).items():
            images = rng.integers(0, 256, (size, *(4 if side is None else side for side in shape)), np.uint8)
            written[split] = images, np.arange(size) % classes if labels is None else labels[:size]
            write_records(folder / f"{short}-{split}.{file_format}-00000-of-00001", *written[split])
            infos.append({"name": split, "shardLengths": [str(size)], "numBytes": "1"})
            infos[-1]["filepathTemplate"] = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        info = {"name": short, "version": version, "fileFormat": file_format, "splits": infos}
        (folder / "dataset_info.json").write_text(json.dumps(info))
        made = feature_specs(shape, classes, several=isinstance(labels, list))
        specs = {"featuresDict": {"features": features or made}}
        specs["pythonClassName"] = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
        (folder / "features.json").write_text(json.dumps(specs))
        return written

    return write


@pytest.fixture
def write_folder(tmp_path: Path, rng: np.random.Generator) -> Callable[..., Path]:
    """Writes noise as `tmp_path/<name>/<split>/<class>/<number>.png`, so many of each class, and returns the root."""

    def write(
        splits: dict[str, dict[str, int]], *, name: str = "pictures", size: tuple[int, int] = (8, 8)
    ) -> Path:
        for split, classes in splits.items():
            for label, count in classes.items():
                folder = tmp_path / name / split / label
                folder.mkdir(parents=True)
                for number in range(count):
                    pixels = rng.integers(0, 256, (*size, 3), np.uint8)
                    PIL.Image.fromarray(pixels).save(folder / f"{number:02}.png")
        return tmp_path / name

    return write
