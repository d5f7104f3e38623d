"""Image classification with one `.tflite` file.

`Classifier` takes everything it needs from the file: labels, input size, the
outputs' meaning, and the numbers to dequantize with. A classifier serves one
thread at a time, as its interpreter does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge.card import ModelCard
from edge.errors import ModelError, PhotoError, one_line
from edge.model_file import ModelFile
from edge.preprocess import InputRecipe, Source, load_pixels

if TYPE_CHECKING:
    from edge.foreign import ForeignInput, ForeignOptions, ForeignOutput
    from edge.region import Region

UNKNOWN = "unknown"
PROBABILITIES = "probabilities"
FAMILIARITY = "familiarity"

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Labels = Sequence[str] | str | os.PathLike[str]  # names, or a file of them


@dataclass(frozen=True)
class Prediction:
    """The prediction for one photo.

    `label` is `UNKNOWN` when the photo is refused (then `known` is False): its
    familiarity is below the card's threshold, or its probability below the score
    threshold in the TFLite Metadata of a file without a card;
    `probability` (0 to 1, calibrated) is that of the first in `ranking`, which holds
    the best labels, whether refused or not. `familiarity`: how near the photo is to the
    training photos, around 1 for known ones; None for a file without that output.
    """

    label: str
    probability: float
    ranking: tuple[tuple[str, float], ...]
    familiarity: float | None
    known: bool


def tenths(fractions: Sequence[float]) -> list[float]:
    """Fractions, the largest first, rounded to a tenth of a percent.

    Where they add up to 1 the rounded ones do, too: the first is rounded as it would be
    alone, the others up or down by their remainders.
    """
    exact = [1000 * fraction for fraction in fractions]
    rounded = [round(value) for value in exact]
    if round(sum(exact)) == 1000:
        first, whole = rounded[:1], [int(value) for value in exact]
        rest = range(1, len(exact))
        missing = 1000 - sum(first) - sum(whole[1:])
        by_remainder = sorted(rest, key=lambda k: whole[k] - exact[k])
        for k in by_remainder[: max(missing, 0)]:
            whole[k] += 1
        rounded = sorted(first + whole[1:], reverse=True)  # of three thirds the first
    return [value / 1000 for value in rounded]


class Classifier:
    """A `.tflite` image classifier, ready to run.

    `labels` (names, or a file of them) is for a foreign file without a card, and so is
    `foreign`: how its pixels are made. `runtime`, `threads`, `xnnpack` and `delegate`
    as in `edge.runtime.open_interpreter`. `region`: the part of a photo to look at, in
    place of the card's; `trained_region` keeps that one. ModelError when something does
    not fit.
    """

    def __init__(
        self,
        model: ModelFile | str | os.PathLike[str] | bytes,
        *,
        labels: Labels | None = None,
        runtime: str = "auto",
        threads: int | None = None,
        xnnpack: bool = True,
        delegate: str | None = None,
        foreign: ForeignOptions | None = None,
        region: Region | None = None,
    ) -> None:
        self.file = ModelFile.read(model)
        self.card: ModelCard | None = self.file.card
        self._where = self.file.where
        size = None
        if self.card is None:
            from edge.foreign import ForeignOptions, check_size

            foreign = foreign or ForeignOptions()
            foreign.check(self.file)
            size = check_size(self.file, foreign)
        elif foreign is not None:
            foreign.check(self.file)
        self.runtime, self._interpreter = self.file.open(
            runtime=runtime,
            threads=threads,
            xnnpack=xnnpack,
            delegate=delegate,
            size=size,
        )
        entry = self._only_input()
        self._input_index: int = entry["index"]
        self.input_dtype = np.dtype(entry["dtype"])
        self.foreign_input: ForeignInput | None = None
        self.score_threshold: float | None = None  # of a foreign file's metadata
        self.note = ""  # what is done to the output of a foreign file, if anything
        self._foreign_output: ForeignOutput | None = None
        if self.card is not None:
            self.recipe = self._card_recipe(self.card, entry["shape"])
            self._outputs = self._card_outputs(self.card)
            self.labels = self._card_labels(labels, self.card)
        else:
            assert foreign is not None
            self._open_foreign(entry, labels, foreign)
        self.trained_region = self.recipe.region
        if region is not None:
            self.recipe = replace(self.recipe, region=region)

    def __repr__(self) -> str:
        names = ", ".join(self.labels[:3]) + (", ..." if len(self.labels) > 3 else "")
        size = f"{self.recipe.width} x {self.recipe.height}"
        return (
            f"Classifier({self._where!r}: {len(self.labels)} labels ({names}), "
            f"{size} pixels, {self.input_dtype}, {self.runtime})"
        )

    @property
    def roles(self) -> tuple[str, ...]:
        """The outputs: probabilities, and familiarity if the file has it."""
        return tuple(self._outputs)

    def run(self, pixels: Pixels) -> dict[str, Floats]:
        """Role to float32: probabilities [N, L], familiarity [N] if the file has it.

        `pixels` is uint8 RGB [N, H, W, 3] in the size of `recipe`.
        """
        height, width = self.recipe.height, self.recipe.width
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (height, width, 3):
            raise ModelError(
                f"expected pixels uint8 [N, {height}, {width}, 3], got "
                f"{pixels.dtype} {list(pixels.shape)}; `pixels` makes them of a photo, "
                "`classify` takes photos of any size"
            )
        rows: dict[str, list[Floats]] = {role: [] for role in self._outputs}
        for photo in pixels:
            outputs = self._invoke(photo[None])
            scores = self._as_probabilities(outputs[PROBABILITIES])
            outputs[PROBABILITIES] = scores
            for role, value in outputs.items():
                rows[role].append(value)
        out = {
            role: np.stack(values) if values else np.zeros((0, 1), np.float32)
            for role, values in rows.items()
        }
        if not len(pixels):
            out[PROBABILITIES] = np.zeros((0, len(self.labels)), np.float32)
        if FAMILIARITY in out:
            out[FAMILIARITY] = out[FAMILIARITY][:, 0]
        return out

    def _invoke(self, pixels: Pixels) -> dict[str, Floats]:
        """Each output, dequantized and flat, for pixels [1, H, W, 3]."""
        self._interpreter.set_tensor(self._input_index, self._as_input(pixels))
        try:
            self._interpreter.invoke()
        except RuntimeError as error:
            raise ModelError(
                f"{self._where}: {self.runtime} failed on it: {one_line(error):.300}"
            ) from error
        return {
            role: _dequantized(
                self._interpreter.get_tensor(entry["index"]), entry
            ).reshape(-1)
            for role, entry in self._outputs.items()
        }

    def probabilities(self, pixels: Pixels) -> Floats:
        """float32 [N, L] for uint8 RGB pixels [N, H, W, 3]."""
        return self.run(pixels)[PROBABILITIES]

    def classify(self, photo: Source | Pixels, top_k: int = 5) -> Prediction:
        """One photo: a path, its bytes, an open file, a PIL image, or uint8 RGB
        pixels [H, W, 3] of any size. PhotoError for one that cannot be used."""
        return self.predict(self.pixels(photo), top_k)

    def pixels(self, photo: Source | Pixels) -> Pixels:
        """A photo as uint8 RGB [H, W, 3] in the size of `recipe`."""
        if isinstance(photo, np.ndarray):
            if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
                raise PhotoError(
                    "array",
                    f"expected uint8 [height, width, 3], got {photo.dtype} "
                    f"{list(photo.shape)}{_conversion_hint(photo)}",
                )
            photo = Image.fromarray(photo)
        return load_pixels(photo, self.recipe)

    def predict(self, pixels: Pixels, top_k: int = 5) -> Prediction:
        """One photo's pixels, uint8 [H, W, 3] in the size of `recipe`."""
        return self.first_prediction(self.run(pixels[None]), top_k)

    def first_prediction(
        self, outputs: dict[str, Floats], top_k: int = 5
    ) -> Prediction:
        """The prediction of the first photo in outputs of `run`."""
        familiarity = float(outputs[FAMILIARITY][0]) if FAMILIARITY in outputs else None
        return self.prediction(outputs[PROBABILITIES][0], familiarity, top_k)

    def prediction(
        self, probabilities: Floats, familiarity: float | None, top_k: int = 5
    ) -> Prediction:
        """The prediction for probabilities [L] and a familiarity."""
        if not (probabilities.min() >= -1e-3 and probabilities.max() <= 1.001):
            raise ModelError(
                f"{self._where}: expected outputs from 0 to 1, got "
                f"{probabilities.min():.3g} to {probabilities.max():.3g}; "
                "export the model with its softmax layer"
            )
        order = np.argsort(-probabilities, kind="stable")[: max(top_k, 1)]
        ranking = tuple((self.labels[i], float(probabilities[i])) for i in order)
        label, probability = ranking[0]
        known = self.is_known(probability, familiarity)
        return Prediction(
            label if known else UNKNOWN, probability, ranking, familiarity, known
        )

    def is_known(self, probability: float, familiarity: float | None) -> bool:
        """Whether an answer of this probability and familiarity counts."""
        threshold = self.card.familiarity_threshold if self.card else None
        if familiarity is not None and threshold is not None:
            return familiarity >= threshold
        return self.score_threshold is None or probability >= self.score_threshold

    def _only_input(self) -> dict[str, Any]:
        entries: list[dict[str, Any]] = self._interpreter.get_input_details()
        if len(entries) != 1:
            raise ModelError(
                f"{self._where}: expected an image classifier with one input "
                f"[1, height, width, 3], got {len(entries)} inputs: "
                f"{[[int(side) for side in entry['shape']] for entry in entries]}"
            )
        return entries[0]

    def _card_recipe(self, card: ModelCard, shape: Any) -> InputRecipe:
        sides = [int(side) for side in shape]
        expected = [1, card.input.height, card.input.width, 3]
        if sides != expected or self.input_dtype not in (np.uint8, np.int8, np.float32):
            raise ModelError(
                f"{self._where}: the network takes {self.input_dtype} {sides}, its "
                f"card says {expected} of uint8, int8 or float32; export it again"
            )
        return card.input

    def _as_input(self, pixels: Pixels) -> npt.NDArray[Any]:
        """Pixels as the network takes them; with a card the scaling is in the graph."""
        if self.foreign_input is not None:
            return self.foreign_input(pixels)
        if self.input_dtype == np.uint8:
            return pixels
        if self.input_dtype == np.int8:  # 0..255 laid over -128..127
            return (pixels ^ 0x80).view(np.int8)
        return pixels.astype(np.float32)

    def _as_probabilities(self, scores: Floats) -> Floats:
        if self._foreign_output is not None:
            return self._foreign_output(scores)
        return _adding_up(scores, self._outputs[PROBABILITIES])

    def _card_outputs(self, card: ModelCard) -> dict[str, dict[str, Any]]:
        """Role to output tensor, by the signature's names, which the card has."""
        entries: list[dict[str, Any]] = self._interpreter.get_output_details()
        by_name = self._signature_outputs()
        missing = [name for name in card.outputs.values() if name not in by_name]
        if not missing:
            return {role: by_name[name] for role, name in card.outputs.items()}
        if len(entries) > 1:
            raise ModelError(
                f"{self._where}: the card names the output {missing[0]!r}, the "
                f"file has {', '.join(by_name) or 'no signature'}; export again"
            )
        return {PROBABILITIES: entries[0]}

    def _signature_outputs(self) -> dict[str, dict[str, Any]]:
        signatures = self._interpreter.get_signature_list()
        if not signatures:
            return {}
        runner = self._interpreter.get_signature_runner(next(iter(signatures)))
        details: dict[str, dict[str, Any]] = runner.get_output_details()
        return details

    def _card_labels(
        self,
        labels: Labels | None,
        card: ModelCard,
    ) -> tuple[str, ...]:
        names, source = card.labels, "its card"
        if labels is not None:
            names, source = _named_labels(labels)
        count = int(np.prod(self._outputs[PROBABILITIES]["shape"]))
        if len(names) != count:
            raise ModelError(
                f"{self._where}: expected {count} labels, got {len(names)} from "
                f"{source}"
            )
        return names

    def _open_foreign(
        self,
        entry: dict[str, Any],
        labels: Labels | None,
        options: ForeignOptions,
    ) -> None:
        from edge.foreign import ForeignInput, ForeignOutput

        self.foreign_input = ForeignInput(self.file, entry, options)
        self.recipe = self.foreign_input.recipe
        names, source = (None, "") if labels is None else _named_labels(labels)
        output = ForeignOutput(
            self.file,
            self._interpreter.get_output_details(),
            names,
            source,
            options.output,
            self._signature_outputs(),
        )
        self._outputs = {PROBABILITIES: output.entry}
        self.labels, self.score_threshold = output.labels, output.threshold
        if output.activation is None:
            shape = (2, self.recipe.height, self.recipe.width, 3)
            noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
            noise[0] = 128
            output.detect_logits(
                [self._invoke(photo[None])[PROBABILITIES] for photo in noise]
            )
        self._foreign_output, self.note = output, output.note


def _conversion_hint(array: npt.NDArray[Any]) -> str:
    """How an array can become uint8 RGB [height, width, 3]; empty if not known."""
    if array.ndim == 3 and array.shape[2] == 3:
        if array.dtype.kind == "f" and array.size and 0 <= array.min() <= array.max():
            scale = " * 255" if array.max() <= 1 else ""
            return f"; give (array{scale}).round().astype('uint8')"
        return ""
    if array.ndim == 3 and array.shape[2] == 4:
        return "; give array[..., :3], which is without alpha"
    if array.ndim == 3 and array.shape[0] == 3:
        return "; give array.transpose(1, 2, 0), with the channels last"
    if array.ndim == 2:
        return "; give PIL.Image.fromarray(array)"
    return "; classify takes one photo at a time" if array.ndim == 4 else ""


def _named_labels(labels: Labels) -> tuple[tuple[str, ...], str]:
    """The names, and where they come from."""
    if isinstance(labels, (str, os.PathLike)):
        from edge.tflite import read_label_file

        return read_label_file(labels), os.fspath(labels)
    return tuple(labels), "the labels given"


def _dequantized(value: npt.NDArray[Any], entry: dict[str, Any]) -> Floats:
    if value.dtype == np.float32:
        return np.asarray(value, np.float32)
    scale, zero_point = entry["quantization"]
    if not scale:
        raise ModelError(f"output {entry['name']!r} of {value.dtype} has no scale")
    dequantized: Floats = (value.astype(np.float32) - zero_point) * np.float32(scale)
    return dequantized


def _adding_up(scores: Floats, entry: dict[str, Any]) -> Floats:
    """Probabilities [L] of an integer output, so that they add up to 1.

    Each is rounded to a step of 1/256, and so is their sum. What is missing goes to
    the labels at 0, which may have up to half a step each; what is too much is taken
    from all. Outputs further from 1 than rounding explains are no softmax and stay.
    """
    scale = float(entry["quantization"][0])
    total = float(scores.sum())
    if not scale or not 0 < abs(1 - total) <= len(scores) * scale / 2 + 1e-6:
        return scores
    zero = scores <= 0
    if total < 1 and zero.any():
        return np.where(zero, np.float32((1 - total) / zero.sum()), scores)
    return np.asarray(scores / np.float32(total), np.float32)
