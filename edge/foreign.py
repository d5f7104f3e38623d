"""Preprocessing and postprocessing of a `.tflite` file without our card.

The user's options come first, then the file's TFLite Metadata, then the default for
published classifiers. That default is measured on Google's quantized MobileNets
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
from edge.preprocess import MAX_MARGIN, InputRecipe
from edge.tflite import activation, open_size, read_label_file

Floats = npt.NDArray[np.float32]

RESIZE, FILTER, CENTRAL_FRACTION = "crop", "bilinear-plain", 0.875
LABELS_BESIDE = ("labels.txt", "dict.txt")  # the second of Google's AutoML Vision
# Google's ImageNet classifiers have 1001 outputs, the first for none of the labels
IMAGENET, BACKGROUND = 1000, "background"
_LUMA = np.array([299, 587, 114], np.uint32)  # ITU-R 601, as Pillow's mode "L"
# How far quantized pixels may lie from the pixels themselves and still be those
_SAME_PIXELS = 2
# Probabilities may sum to 1 +- this, and half a quantization step for each label
_SUM_TOLERANCE = 0.02
_OPTION_NAMES = {"size": "input-size", "output": "output-name"}
_INPUTS = (np.uint8, np.int8, np.float32)


@dataclass(frozen=True)
class ForeignOptions:
    """The user's options for a file without a card; None: its metadata, or a default.

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
        names = [argument.partition("=")[0] for argument in self.arguments()]
        if names and file.card is not None:
            raise ModelError(
                f"{file.where}: its card says how photos are fed; leave out "
                f"{', '.join(names)}, for files without a card"
            )
        if self.size is not None and not open_size(file.structure):
            raise ModelError(
                f"{file.where}: the size of its input is fixed; leave out --input-size"
            )

    def arguments(self) -> list[str]:
        """These options as command-line arguments."""
        arguments: list[str] = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            name = _OPTION_NAMES.get(field.name, field.name)
            if isinstance(value, tuple):
                separator = "x" if field.name == "size" else ","
                value = separator.join(f"{number:g}" for number in value)
            arguments.append(f"--{name}={value}")  # a mean may begin with a minus
        return arguments


class ForeignInput:
    """From uint8 RGB pixels to the input tensor of a file without a card.

    `recipe` makes the pixels; `sources` says where each part of it came from.
    ModelError for an input that no photo fits.
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
            MAX_MARGIN,
            CENTRAL_FRACTION if options.crop is None else options.crop,
        )
        self.sources = {
            "resize": "--resize" if options.resize else "default",
            "filter": "--filter" if options.filter else "default",
            "crop": "--crop" if options.crop is not None else "default",
        }
        self._lookup = self._lookup_table(file, entry, options)

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

    def _lookup_table(
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
            normalized = pixels - np.array(mean, np.float32)
            normalized /= np.array(std, np.float32)
        if self.dtype == np.float32:
            if not (mean and std):
                raise ModelError(
                    f"{self._where}: a float model without a card or "
                    "NormalizationOptions does not say how its pixels are scaled; "
                    "give --mean and --std (often 127.5 and 127.5, or 0 and 255)"
                )
            return normalized
        scale, zero_point = entry["quantization"]
        minimum = -128 if self.dtype == np.int8 else 0
        unscaled = pixels + minimum
        if mean and std and scale:
            quantized = np.rint(normalized / np.float32(scale)) + zero_point
            clipped = np.clip(quantized, minimum, minimum + 255)
            if options.mean is not None:
                return clipped.astype(self.dtype)
            # Metadata of many uint8 files has the scaling of the float file that they
            # were converted from; MediaPipe, too, feeds those the pixels as they are
            in_range = np.abs(quantized - clipped).max() <= _SAME_PIXELS
            if in_range and np.abs(clipped - unscaled).max() > _SAME_PIXELS:
                return clipped.astype(self.dtype)
        elif options.mean is not None:
            raise ModelError(
                f"{self._where}: --mean and --std cannot be applied: the input is "
                f"{self.dtype} without a scale; leave them out"
            )
        self.mean = self.std = ()
        self.sources["scaling"] = "pixels as they are"
        return None if self.dtype == np.uint8 else unscaled.astype(self.dtype)

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """uint8 RGB [1, H, W, 3] as the input tensor."""
        if self.channels == 1:
            grey = (pixels.astype(np.uint32) @ _LUMA + 500) // 1000
            pixels = grey.astype(np.uint8)[..., None]
        tensor: npt.NDArray[Any] = pixels
        if self._lookup is not None:
            columns = np.arange(self._lookup.shape[1])  # 1, or one for each channel
            tensor = self._lookup[pixels, columns]
        if self.channels_first:
            tensor = np.ascontiguousarray(tensor.transpose(0, 3, 1, 2))
        return tensor

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
        by_name: dict[str, dict[str, Any]],
    ) -> None:
        self._where, self.note = file.where, ""
        if output is not None:
            index, self.entry = self._output_named(entries, by_name, output)
        else:
            index, self.entry = self._select(file, entries, labels)
        thresholds = file.metadata.thresholds
        self.threshold = thresholds[index] if index < len(thresholds) else None
        if labels is None:
            labels, source = self._own_labels(file, index)
        self.labels = self._matched(tuple(labels), source)
        # softmax or sigmoid; None: another operator, so `detect_logits` has to decide
        self.activation = activation(file.structure, int(self.entry["index"]))
        self.squash = ""  # how scores become probabilities: "", softmax or sigmoid

    def detect_logits(self, samples: Sequence[Floats]) -> None:
        """Decide from sample outputs whether they are probabilities or logits."""
        multiclass = _count(self.entry) > 1
        step = abs(float(self.entry["quantization"][0]))
        tolerance = _SUM_TOLERANCE + len(self.labels) * step / 2
        for scores in samples:
            in_range = scores.min() >= -1e-3 and scores.max() <= 1 + 1e-3
            error = abs(float(scores.sum()) - 1)
            if not in_range or (multiclass and error > tolerance):
                self.squash = "softmax" if multiclass else "sigmoid"
                self.note = f"the output is logits: {self.squash} is applied"

    def __call__(self, scores: Floats) -> Floats:
        """Probabilities float32 [L] of the output's numbers."""
        if self.squash == "softmax":
            exponentials = np.exp(scores - scores.max())
            return np.asarray(exponentials / exponentials.sum(), np.float32)
        if self.squash == "sigmoid":
            scores = np.asarray(1 / (1 + np.exp(-scores)), np.float32)
        if len(scores) == 1:
            return np.array([1 - scores[0], scores[0]], np.float32)
        return scores

    def _output_named(
        self,
        entries: list[dict[str, Any]],
        by_name: dict[str, dict[str, Any]],
        output: str,
    ) -> tuple[int, dict[str, Any]]:
        for index, entry in enumerate(entries):
            same = by_name.get(output, {}).get("index") == entry["index"]
            if same or entry["name"] == output:
                return index, entry
        names = ", ".join([*by_name] or [str(entry["name"]) for entry in entries])
        raise ModelError(
            f"{self._where}: --output-name {output}: the file has no such output; "
            f"it has {names}"
        )

    def _select(
        self,
        file: ModelFile,
        entries: list[dict[str, Any]],
        labels: Sequence[str] | None,
    ) -> tuple[int, dict[str, Any]]:
        """The one output that the labels, or the metadata's label files, fit."""
        candidates = list(enumerate(entries))
        if len(candidates) > 1 and labels is None:
            names = file.metadata.label_files
            matches = [(i, e) for i, e in candidates if i < len(names) and names[i]]
            candidates = matches if len(matches) == 1 else candidates
        if len(candidates) > 1 and labels is not None:
            matches = [(i, e) for i, e in candidates if _count(e) == len(labels)]
            candidates = matches or candidates
        if len(candidates) > 1:
            matches = [(i, entry) for i, entry in candidates if _count(entry) > 1]
            candidates = matches if len(matches) == 1 else candidates
        if len(candidates) != 1:
            outputs = ", ".join(
                f"{entry['name']} {[int(side) for side in entry['shape']]}"
                for _, entry in candidates
            )
            raise ModelError(
                f"{self._where}: expected one output with a score for each label, got "
                f"{outputs or 'none'}; name it with --output-name"
            )
        return candidates[0]

    def _own_labels(self, file: ModelFile, index: int) -> tuple[tuple[str, ...], str]:
        """Those of the metadata, else of labels.txt beside the file."""
        labels = file.labels_of(index)
        if labels is not None:
            return labels, "its metadata"
        path = labels_beside(file.where)
        if path is not None:
            return read_label_file(path), path
        raise ModelError(
            f"{self._where}: no labels inside; give a file with one label on each "
            "line (--labels FILE)"
        )

    def _matched(self, labels: tuple[str, ...], source: str) -> tuple[str, ...]:
        """As many labels as scores: a background class is added or left out."""
        count = _count(self.entry)
        if len(labels) == count or (count == 1 and len(labels) == 2):
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
    if name == "model":  # read from bytes: it lies in no folder
        return None
    paths = (os.path.join(folder, file) for file in LABELS_BESIDE)
    return next(filter(os.path.isfile, paths), None)


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
