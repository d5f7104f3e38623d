"""How a `.tflite` file without our card is fed, and how its output is read.

What the user says comes first, then the file's own TFLite Metadata, then the default
for published classifiers. That default is measured on Google's quantized MobileNets
(tests/legs/published.py, 200 ImageNet photos): the middle 87.5 % of the photo, resized
bilinearly without antialiasing, as they were trained.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.errors import ModelError
from edge.model_file import ModelFile
from edge.preprocess import MOST_MARGIN, InputRecipe
from edge.tflite import activation, open_size, read_label_file

Floats = npt.NDArray[np.float32]

RESIZE, FILTER, CENTRAL_FRACTION = "crop", "bilinear-plain", 0.875
LABELS_BESIDE = ("labels.txt", "dict.txt")  # the second of Google's AutoML Vision
# Google's ImageNet classifiers have 1001 outputs, the first for none of the labels
IMAGENET, BACKGROUND = 1000, "background"
_LUMA = np.array([299, 587, 114], np.uint32)  # ITU-R 601, as Pillow's mode "L"
# How far quantized pixels may lie from the pixels themselves and still be those
_SAME_PIXELS = 2
_SUM_OFF = 0.02  # probabilities may sum to 1 +- this, and half a step for each label
_SPELLED = {"size": "input-size", "output": "output-name"}
_INPUTS = (np.uint8, np.int8, np.float32)


@dataclass(frozen=True)
class ForeignOptions:
    """What the user says of a file without a card; None: the file's word, or a default.

    `size`: width and height, for a network that leaves them open. `resize`, `filter`:
    as `InputRecipe`. `crop`: the middle share of the photo that is used, 0 to 1.
    `mean`, `std`: of ``(pixel - mean) / std``, one number or one for each channel.
    `output`: the name of the output that holds the labels' scores.
    """

    size: tuple[int, int] | None = None
    resize: str | None = None
    crop: float | None = None
    filter: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise ModelError("expected --mean and --std together, got one of them")
        if self.std is not None and not all(self.std):
            raise ModelError("expected --std other than 0")
        for name, numbers in (("--mean", self.mean), ("--std", self.std)):
            if numbers is not None and len(numbers) not in (1, 3):
                raise ModelError(
                    f"expected {name} as one number or three, got {len(numbers)}"
                )

    def check(self, file: ModelFile) -> None:
        """ModelError for options that cannot apply to a file."""
        given = [word.partition("=")[0] for word in self.arguments()]
        if given and file.card is not None:
            raise ModelError(
                f"{file.where}: its card says how photos are fed; leave out "
                f"{', '.join(given)}, for files without a card"
            )
        if self.size is not None and not open_size(file.structure):
            raise ModelError(
                f"{file.where}: the size of its input is fixed; leave out --input-size"
            )

    def arguments(self) -> list[str]:
        """The words of a command line that give these options."""
        words: list[str] = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            name = _SPELLED.get(field.name, field.name)
            if isinstance(value, tuple):
                joint = "x" if field.name == "size" else ","
                value = joint.join(f"{number:g}" for number in value)
            words.append(f"--{name}={value}")  # a mean may begin with a minus
        return words


class ForeignInput:
    """From uint8 RGB pixels to the input tensor of a file without a card.

    `recipe` makes the pixels; `sources` says where each part of it came from.
    ModelError, in the format's terms, for an input that no photo fits.
    """

    def __init__(
        self, file: ModelFile, entry: dict[str, Any], options: ForeignOptions
    ) -> None:
        self._where = file.where
        self.dtype: np.dtype[Any] = np.dtype(entry["dtype"])
        width, height = self._layout([int(side) for side in entry["shape"]])
        self.recipe = InputRecipe(
            width,
            height,
            options.resize or RESIZE,
            options.filter or FILTER,
            MOST_MARGIN,
            CENTRAL_FRACTION if options.crop is None else options.crop,
        )
        self.sources = {
            "resize": "--resize" if options.resize else "default",
            "filter": "--filter" if options.filter else "default",
            "crop": "--crop" if options.crop is not None else "default",
        }
        self._table = self._values(file, entry, options)

    def _layout(self, shape: list[int]) -> tuple[int, int]:
        """Width and height of [1, H, W, C] or [1, C, H, W]."""
        if len(shape) != 4 or shape[0] != 1:
            raise ModelError(
                f"{self._where}: expected an image classifier with one input "
                f"[1, height, width, 3], got {shape}"
            )
        self.channels_first = shape[3] not in (1, 3) and shape[1] in (1, 3)
        self.channels = shape[1] if self.channels_first else shape[3]
        if self.channels not in (1, 3):
            raise ModelError(
                f"{self._where}: expected an input of 1 or 3 channels, [1, height, "
                f"width, 3] or channels first (NCHW), got {shape}"
            )
        height, width = shape[2:] if self.channels_first else shape[1:3]
        if self.dtype not in _INPUTS:
            raise ModelError(
                f"{self._where}: expected an input of uint8, int8 or float32, "
                f"got {self.dtype}"
            )
        return width, height

    def _values(
        self, file: ModelFile, entry: dict[str, Any], options: ForeignOptions
    ) -> Any:
        """What each pixel value 0..255 becomes, [256, 1 or channels]; None: itself."""
        mean, std = options.mean, options.std
        self.sources["scaling"] = "--mean, --std"
        if mean is None or std is None:
            mean, std = file.metadata.mean, file.metadata.std
            self.sources["scaling"] = "TFLite Metadata"
            if not mean or not std or not all(std):
                mean = std = ()
        if len(mean) > 1 and self.channels == 1:
            raise ModelError(
                f"{self._where}: expected one mean and std for a grey input, got "
                f"{len(mean)}"
            )
        self.mean, self.std = mean, std
        pixels = np.arange(256, dtype=np.float32)[:, None]
        if mean and std:
            centre, spread = np.array(mean, np.float32), np.array(std, np.float32)
            real = (pixels - centre) / spread
        if self.dtype == np.float32:
            if not (mean and std):
                raise ModelError(
                    f"{self._where}: a float model without a card or "
                    "NormalizationOptions does not say how its pixels are scaled; "
                    "give --mean and --std (often 127.5 and 127.5, or 0 and 255)"
                )
            return real
        scale, zero = entry["quantization"]
        least = -128 if self.dtype == np.int8 else 0
        plain = pixels + least
        if mean and std and scale:
            quantized = np.rint(real / np.float32(scale)) + zero
            clipped = np.clip(quantized, least, least + 255)
            if options.mean is not None:
                return clipped.astype(self.dtype)
            # Metadata of many uint8 files has the scaling of the float file that they
            # were made from; MediaPipe, too, feeds those the pixels as they are
            fits = np.abs(quantized - clipped).max() <= _SAME_PIXELS
            if fits and np.abs(clipped - plain).max() > _SAME_PIXELS:
                return clipped.astype(self.dtype)
        elif options.mean is not None:
            raise ModelError(
                f"{self._where}: --mean and --std cannot be applied: the input is "
                f"{self.dtype} without a scale; leave them out"
            )
        self.mean = self.std = ()
        self.sources["scaling"] = "pixels as they are"
        return None if self.dtype == np.uint8 else plain.astype(self.dtype)

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """uint8 RGB [1, H, W, 3] as the input tensor."""
        if self.channels == 1:
            grey = (pixels.astype(np.uint32) @ _LUMA + 500) // 1000
            pixels = grey.astype(np.uint8)[..., None]
        value: npt.NDArray[Any] = pixels
        if self._table is not None:
            columns = np.arange(self._table.shape[1])  # 1, or one for each channel
            value = self._table[pixels, columns]
        if self.channels_first:
            value = np.ascontiguousarray(value.transpose(0, 3, 1, 2))
        return value

    def describe(self) -> dict[str, Any]:
        """For `edge info`: the recipe in force, and where each part comes from."""
        layout = "channels first" if self.channels_first else "channels last"
        return {
            **self.recipe.to_dict(),
            "crop": self.recipe.central_fraction,
            "mean": list(self.mean),
            "std": list(self.std),
            "layout": f"{layout}, {self.channels} channels",
            "sources": self.sources,
        }


class ForeignOutput:
    """From the outputs of a file without a card to probabilities.

    The output is the one named, else the one that fits the labels. One number with two
    labels is the probability of the second (Keras deals them in the order of folder
    names). `labels` fit the output, and `threshold` is the score of its metadata below
    which an answer is left out, if any; `note` says what is done to it, if anything.
    """

    def __init__(
        self,
        file: ModelFile,
        entries: list[dict[str, Any]],
        labels: Sequence[str] | None,
        source: str,
        output: str | None,
        named: dict[str, dict[str, Any]],
    ) -> None:
        self._where, self.note = file.where, ""
        if output is not None:
            place, self.entry = self._named(entries, named, output)
        else:
            place, self.entry = self._fitting(file, entries, labels)
        thresholds = file.metadata.thresholds
        self.threshold = thresholds[place] if place < len(thresholds) else None
        if labels is None:
            labels, source = self._own_labels(file, place)
        count = _count(self.entry)
        self.labels = self._fitted(tuple(labels), count, source)
        # softmax or sigmoid; None: what makes it does not say, `look` has to
        self.made_by = activation(file.structure, int(self.entry["index"]))
        self.squash = ""  # how scores become probabilities: "", softmax or sigmoid

    def look(self, samples: Sequence[Floats]) -> None:
        """Settle from sample outputs whether they are probabilities or logits."""
        wide = _count(self.entry) > 1
        step = abs(float(self.entry["quantization"][0]))
        off = _SUM_OFF + len(self.labels) * step / 2
        for scores in samples:
            inside = scores.min() >= -1e-3 and scores.max() <= 1 + 1e-3
            if not inside or (wide and abs(float(scores.sum()) - 1) > off):
                self.squash = "softmax" if wide else "sigmoid"
                self.note = f"the output is logits: {self.squash} is applied"

    def __call__(self, scores: Floats) -> Floats:
        """Probabilities float32 [L] of the output's numbers."""
        if self.squash == "softmax":
            raised = np.exp(scores - scores.max())
            return np.asarray(raised / raised.sum(), np.float32)
        if self.squash == "sigmoid":
            scores = np.asarray(1 / (1 + np.exp(-scores)), np.float32)
        if len(scores) == 1:
            return np.array([1 - scores[0], scores[0]], np.float32)
        return scores

    def _named(
        self,
        entries: list[dict[str, Any]],
        named: dict[str, dict[str, Any]],
        output: str,
    ) -> tuple[int, dict[str, Any]]:
        for place, entry in enumerate(entries):
            same = named.get(output, {}).get("index") == entry["index"]
            if same or entry["name"] == output:
                return place, entry
        have = ", ".join([*named] or [str(entry["name"]) for entry in entries])
        raise ModelError(
            f"{self._where}: --output-name {output}: the file has no such output; "
            f"it has {have}"
        )

    def _fitting(
        self,
        file: ModelFile,
        entries: list[dict[str, Any]],
        labels: Sequence[str] | None,
    ) -> tuple[int, dict[str, Any]]:
        numbered = list(enumerate(entries))
        if len(numbered) > 1 and labels is None:
            with_labels = [
                (place, entry)
                for place, entry in numbered
                if place < len(file.metadata.label_files)
                and file.metadata.label_files[place]
            ]
            numbered = with_labels if len(with_labels) == 1 else numbered
        if len(numbered) > 1 and labels is not None:
            fitting = [(p, e) for p, e in numbered if _count(e) == len(labels)]
            numbered = fitting or numbered
        if len(numbered) > 1:
            wide = [(p, e) for p, e in numbered if _count(e) > 1]
            numbered = wide if len(wide) == 1 else numbered
        if len(numbered) != 1:
            have = ", ".join(
                f"{entry['name']} {[int(side) for side in entry['shape']]}"
                for _, entry in numbered
            )
            raise ModelError(
                f"{self._where}: expected one output with a score for each label, got "
                f"{have or 'none'}; name it with --output-name"
            )
        return numbered[0]

    def _own_labels(self, file: ModelFile, place: int) -> tuple[tuple[str, ...], str]:
        """Those of the metadata, else of labels.txt beside the file."""
        inside = file.labels_of(place)
        if inside is not None:
            return inside, "its metadata"
        beside = labels_beside(file.where)
        if beside is not None:
            return read_label_file(beside), beside
        raise ModelError(
            f"{self._where}: no labels inside; give a file with one label on each "
            "line (--labels FILE)"
        )

    def _fitted(
        self, labels: tuple[str, ...], count: int, source: str
    ) -> tuple[str, ...]:
        if len(labels) == count:
            return labels
        if count == 1 and len(labels) == 2:
            return labels
        if (len(labels), count) == (IMAGENET, IMAGENET + 1):
            return (BACKGROUND, *labels)
        if len(labels) - count == 1 and labels[0].strip().lower() == BACKGROUND:
            return labels[1:]
        raise ModelError(
            f"{self._where}: expected {count} labels, got {len(labels)} from {source}"
        )


def labels_beside(model: str | os.PathLike[str]) -> str | None:
    """The label file in a model's folder."""
    folder, name = os.path.split(os.fspath(model))
    for beside in LABELS_BESIDE if name != "model" else ():  # a model of mere bytes
        path = os.path.join(folder, beside)
        if os.path.isfile(path):
            return path
    return None


def check_size(file: ModelFile, options: ForeignOptions) -> tuple[int, int] | None:
    """The size to resize the input to; None where the network has its own.

    ModelError for a network that leaves its size open when none is given.
    """
    if not open_size(file.structure):
        return None
    if options.size is None:
        raise ModelError(
            f"{file.where}: the size of its input is open; give the one it was "
            "trained with: --input-size WIDTHxHEIGHT"
        )
    return options.size


def _count(entry: dict[str, Any]) -> int:
    return int(np.prod(entry["shape"]))
