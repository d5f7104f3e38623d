"""A model file and a photo: its label.

`Classifier` takes everything it needs from the file: labels, input size, the
outputs' meaning, and the numbers to dequantize with. A classifier serves one
thread at a time, as its interpreter does.

It does not know: command lines, folders of photos, how the file was made.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge import runtime as runtimes
from edge.card import ModelCard, check_digest, read_card, read_labels
from edge.errors import ModelError
from edge.labels import read_label_file
from edge.preprocess import InputRecipe, Source, load_pixels

UNKNOWN = "unknown"
PROBABILITIES = "probabilities"
FAMILIARITY = "familiarity"

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """What the model says of one photo.

    `label` is `UNKNOWN` when the photo is refused (then `known` is False);
    `probability` is that of the first in `ranking`, which holds the best labels
    whether refused or not. `familiarity` is None for a file without that output.
    """

    label: str
    probability: float
    ranking: tuple[tuple[str, float], ...]
    familiarity: float | None
    known: bool


class Classifier:
    """A `.tflite` image classifier, ready to run.

    `labels` (names, or a file of them) is for a foreign file without a card;
    `recipe` likewise overrides how photos are resized. `normalize` is the (mean,
    std) a foreign float model expects its pixels scaled by. `xnnpack` and `delegate`
    as in `edge.runtime.open_interpreter`. ModelError when something does not fit.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        *,
        labels: Sequence[str] | str | os.PathLike[str] | None = None,
        runtime: str = "auto",
        threads: int | None = None,
        recipe: InputRecipe | None = None,
        normalize: tuple[float, float] | None = None,
        xnnpack: bool = True,
        delegate: str | None = None,
    ) -> None:
        self._where = "model" if isinstance(model, bytes) else os.fspath(model)
        content = runtimes.read_model(model)
        self.card: ModelCard | None = read_card(content)
        if self.card is not None:
            check_digest(content, self.card, self._where)
        if self.card is None or self.card.model_sha256 is None:
            from edge import (
                subprocess_run,  # starts a process: only for files from elsewhere
            )

            subprocess_run.survive(content, runtime=runtime, where=self._where)
        self.runtime, self._interpreter = runtimes.open_interpreter(
            content,
            runtime=runtime,
            threads=threads,
            xnnpack=xnnpack,
            delegate=delegate,
            where=self._where,
        )
        entry = self._only_input()
        self._input_index: int = entry["index"]
        self.input_dtype = np.dtype(entry["dtype"])
        self._normalize = self._scaling(normalize)
        self.recipe = self._fitting_recipe(entry["shape"], recipe)
        self._outputs = self._find_outputs()
        self.labels = self._fitting_labels(labels, content)

    @property
    def roles(self) -> tuple[str, ...]:
        """What the file answers: probabilities, and familiarity if it has it."""
        return tuple(self._outputs)

    def run(self, pixels: npt.NDArray[np.uint8]) -> dict[str, Floats]:
        """Role to float32: probabilities [N, L], familiarity [N] if the file has it.

        `pixels` is uint8 [N, H, W, 3] in the size of `recipe`.
        """
        want = (self.recipe.height, self.recipe.width, 3)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != want:
            raise ModelError(
                f"expected pixels uint8 [N, {want[0]}, {want[1]}, 3], "
                f"got {pixels.dtype} {list(pixels.shape)}"
            )
        rows: dict[str, list[Floats]] = {role: [] for role in self._outputs}
        for photo in range(len(pixels)):
            one = self._as_input(pixels[photo : photo + 1])
            self._interpreter.set_tensor(self._input_index, one)
            try:
                self._interpreter.invoke()
            except RuntimeError as error:
                reason = " ".join(str(error).split())
                raise ModelError(
                    f"{self._where}: {self.runtime} failed on it: {reason:.300}"
                ) from error
            for role, entry in self._outputs.items():
                value = self._interpreter.get_tensor(entry["index"])
                rows[role].append(_dequantized(value, entry).reshape(-1))
        out = {
            role: np.stack(found) if found else np.zeros((0, 1), np.float32)
            for role, found in rows.items()
        }
        if not len(pixels):
            out[PROBABILITIES] = np.zeros((0, len(self.labels)), np.float32)
        if FAMILIARITY in out:
            out[FAMILIARITY] = out[FAMILIARITY][:, 0]
        return out

    def probabilities(self, pixels: npt.NDArray[np.uint8]) -> Floats:
        """float32 [N, L] for uint8 pixels [N, H, W, 3]."""
        return self.run(pixels)[PROBABILITIES]

    def classify(self, source: Source, top_k: int = 5) -> Prediction:
        """One photo (a path, its bytes, an open file or a PIL image)."""
        return self.predict(load_pixels(source, self.recipe), top_k)

    def predict(self, pixels: npt.NDArray[np.uint8], top_k: int = 5) -> Prediction:
        """One photo's pixels, uint8 [H, W, 3] in the size of `recipe`."""
        out = self.run(pixels[None])
        familiarity = float(out[FAMILIARITY][0]) if FAMILIARITY in out else None
        return self.answer(out[PROBABILITIES][0], familiarity, top_k)

    def answer(
        self, chances: Floats, familiarity: float | None, top_k: int = 5
    ) -> Prediction:
        """What probabilities [L] and a familiarity mean: the labels, known or not."""
        if not (chances.min() >= -1e-3 and chances.max() <= 1.001):
            raise ModelError(
                f"{self._where}: expected outputs from 0 to 1, got "
                f"{chances.min():.3g} to {chances.max():.3g}; "
                "export the model with its softmax layer"
            )
        order = np.argsort(-chances, kind="stable")[: max(top_k, 1)]
        ranking = tuple((self.labels[i], float(chances[i])) for i in order)
        threshold = self.card.familiarity_threshold if self.card else None
        known = familiarity is None or threshold is None or familiarity >= threshold
        label, probability = ranking[0]
        return Prediction(
            label if known else UNKNOWN, probability, ranking, familiarity, known
        )

    def _only_input(self) -> dict[str, Any]:
        entries = self._interpreter.get_input_details()
        shape = [int(side) for side in entries[0]["shape"]] if entries else []
        if len(entries) != 1 or len(shape) != 4 or shape[0] != 1 or shape[3] != 3:
            shapes = [[int(side) for side in entry["shape"]] for entry in entries]
            raise ModelError(
                f"{self._where}: expected an image classifier with one input "
                f"[1, height, width, 3], got {shapes}"
            )
        entry: dict[str, Any] = entries[0]
        if np.dtype(entry["dtype"]) not in (np.uint8, np.int8, np.float32):
            raise ModelError(
                f"{self._where}: expected an input of uint8, int8 or float32, "
                f"got {np.dtype(entry['dtype'])}"
            )
        return entry

    def _scaling(self, normalize: tuple[float, float] | None) -> tuple[float, float]:
        if self.input_dtype != np.float32:
            return (0.0, 1.0)
        if normalize is None:
            if self.card is not None:
                return (0.0, 1.0)  # the scaling is inside the graph
            raise ModelError(
                f"{self._where}: a float model without a card does not say how its "
                "pixels are scaled; give mean and std (often 127.5 and 127.5)"
            )
        if not normalize[1]:
            raise ModelError("expected std other than 0")
        return normalize

    def _as_input(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        if self.input_dtype == np.uint8:
            return pixels
        if self.input_dtype == np.int8:  # 0..255 laid over -128..127
            return (pixels ^ 0x80).view(np.int8)
        mean, std = self._normalize
        values = pixels.astype(np.float32)
        return values if (mean, std) == (0.0, 1.0) else (values - mean) / std

    def _fitting_recipe(self, shape: Any, asked: InputRecipe | None) -> InputRecipe:
        height, width = int(shape[1]), int(shape[2])
        recipe = asked or (self.card.input if self.card else None)
        if recipe is None:
            return InputRecipe(width, height)
        if (recipe.width, recipe.height) != (width, height):
            raise ModelError(
                f"{self._where}: the network takes {width} x {height} pixels, "
                f"the recipe says {recipe.width} x {recipe.height}"
            )
        return recipe

    def _find_outputs(self) -> dict[str, dict[str, Any]]:
        """Role to output tensor: by signature name through the card, else by shape."""
        entries: list[dict[str, Any]] = self._interpreter.get_output_details()
        if self.card is not None:
            named = self._signature_outputs()
            missing = [n for n in self.card.outputs.values() if n not in named]
            if not missing:
                return {role: named[n] for role, n in self.card.outputs.items()}
            if len(entries) > 1:
                raise ModelError(
                    f"{self._where}: the card names the output {missing[0]!r}, the "
                    f"file has {', '.join(named) or 'no signature'}; export again"
                )
        wide = [entry for entry in entries if int(np.prod(entry["shape"])) > 1]
        if len(wide) != 1:
            shapes = [[int(side) for side in entry["shape"]] for entry in entries]
            raise ModelError(
                f"{self._where}: expected one output of probabilities [1, labels], "
                f"got {shapes}"
            )
        return {PROBABILITIES: wide[0]}

    def _signature_outputs(self) -> dict[str, dict[str, Any]]:
        signatures = self._interpreter.get_signature_list()
        if not signatures:
            return {}
        runner = self._interpreter.get_signature_runner(next(iter(signatures)))
        details: dict[str, dict[str, Any]] = runner.get_output_details()
        return details

    def _fitting_labels(
        self,
        asked: Sequence[str] | str | os.PathLike[str] | None,
        content: bytes,
    ) -> tuple[str, ...]:
        labels: Sequence[str] | None
        if isinstance(asked, (str, os.PathLike)):
            labels, source = read_label_file(asked), os.fspath(asked)
        elif asked is not None:
            labels, source = asked, "the labels given"
        elif self.card is not None:
            labels, source = self.card.labels, "its card"
        else:
            labels, source = read_labels(content), "its metadata"
        if labels is None:
            raise ModelError(
                f"{self._where}: no labels inside; give a file with one label on "
                "each line (--labels FILE)"
            )
        count = int(np.prod(self._outputs[PROBABILITIES]["shape"]))
        if len(labels) != count:
            hint = " (a 'background' line first?)" if count - len(labels) == 1 else ""
            raise ModelError(
                f"{self._where}: expected {count} labels, got {len(labels)} "
                f"from {source}{hint}"
            )
        return tuple(labels)


def _dequantized(value: npt.NDArray[Any], entry: dict[str, Any]) -> Floats:
    if value.dtype == np.float32:
        return np.asarray(value, np.float32)
    scale, zero = entry["quantization"]
    if not scale:
        raise ModelError(f"output {entry['name']!r} of {value.dtype} has no scale")
    real: Floats = (value.astype(np.float32) - zero) * np.float32(scale)
    return real
