"""Builds a model file: converted, verified, described, scored on validation.

The traced graph, the calibration and the decoded photos are shared by the files of a
run.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones import network
from data import batches
from data.split import Row
from edge.card import ModelCard
from edge.classifier import PROBABILITIES
from edge.evaluate import Evaluation
from edge.model_file import ModelFile
from edge.preprocess import MAX_MARGIN
from edge.preprocess import PLAIN as UNSMOOTHED
from edge.terminal import without_chatter
from finetune import familiarity
from finetune.console import Console
from finetune.head.cross_fit import CrossValidated
from finetune.model import compute_outputs
from finetune.run import Run
from quantize import recipes
from quantize.conversion import calibration, scoring
from quantize.conversion.convert import Conversion, quantize
from quantize.gate import MAX_PICTURES, VIEWS, views
from quantize.tflite import metadata
from quantize.tflite.verify import Facts, OldRuntime, verify

PLAIN = "plain"  # the rung of a file without any repair


@dataclass(frozen=True)
class Candidate:
    """A calibrated float graph to quantize, and the layers of it that stay float.

    `kept_float`: names of the tensors whose operators are not quantized.
    """

    rung: str
    calibrated: bytes
    kept_float: tuple[str, ...] = ()


@dataclass(frozen=True)
class BuiltModel:
    """A finished file, the facts read back from it, and its predictions.

    `validation`: the evaluation on validation photos. The gate compares `truth`, class
    indices of the validation and training photos, and `probabilities`, float32 [N, L],
    of these and then of views of the validation photos. `seconds`: to build and score.
    """

    model: bytes
    facts: Facts
    validation: Evaluation
    probabilities: npt.NDArray[np.float32]
    truth: npt.NDArray[np.int64]
    seconds: float


def diverse_photos(
    model: Any,
    pixels: batches.Pixels,
    pool: Sequence[Row],
    count: int,
    console: Console,
) -> tuple[Row, ...]:
    """`count` photos of the pool that cover the network's feature space."""
    if len(pool) <= count:
        return tuple(pool)
    rows = scoring.row_indices(pixels, pool)
    with console.bar("choosing calibration photos") as bar:
        vectors = compute_outputs(
            network.feature_model(model), pixels.array, rows, progress=bar
        )
    return calibration.select_diverse(pool, vectors, count)


class Builder:
    """Builds and scores the files of one run."""

    def __init__(
        self,
        run: Run,
        model: Any,
        pixels: batches.Pixels,
        calibration_rows: Sequence[Row],
        val: Sequence[Row],
        console: Console,
        old_runtime: OldRuntime | None = None,
        train: Sequence[Row] = (),
    ) -> None:
        """`val`: the validation part; `train`: the training photos of the gate's recall
        test."""
        self.run, self.console, self.pixels = run, console, pixels
        self._old_runtime = old_runtime
        self._familiarity = familiarity.load(run)
        self._outputs = {PROBABILITIES: PROBABILITIES}
        if self._familiarity is not None:
            model = familiarity.attach(model, self._familiarity)
            self._outputs[familiarity.OUTPUT] = familiarity.OUTPUT
        self._val, self._train = tuple(val), tuple(train)
        val_photos = scoring.take(pixels, val)
        count = min(VIEWS * len(val_photos), max(0, MAX_PICTURES - len(val_photos)))
        self._views = views(val_photos, count, seed=run.settings.seed)
        self._fingerprint = run.split().fingerprint
        self._unsmoothed: npt.NDArray[np.uint8] | None = None
        self.photos: npt.NDArray[np.uint8] | None = None  # for calibration
        if calibration_rows:
            self.photos = scoring.take(pixels, calibration_rows)
        self.conversion = Conversion(
            model, calibration=self.photos, progress=self._calibrating
        )
        self._bar: Any = None

    def build(
        self, variant: recipes.Variant, candidate: Candidate | None = None
    ) -> BuiltModel:
        """The file of a variant, or of one candidate for it."""
        started = time.perf_counter()
        if candidate is not None:
            flat = self.quantize(candidate, float_io=variant.input_type == "FLOAT32")
        elif variant.calibrated:
            with self.console.bar("calibrating") as self._bar:
                flat = self.conversion.make(variant.name)
        else:
            flat = self.conversion.make(variant.name)
        with without_chatter():
            facts = verify(
                flat,
                variant.name,
                self.run.recipe,
                self.run.labels,
                outputs=self._outputs,
                kept_float=candidate.kept_float if candidate else (),
                old_runtime=self._old_runtime,
            )
        title = f"{variant.name}, {candidate.rung}" if candidate else variant.name
        self.console.stage(
            f"{title}: converted and verified in {time.perf_counter() - started:.1f} s",
            detail=True,
        )
        card = self._card(variant, facts, candidate)
        model = metadata.embed(flat, card)
        scored = self._score(model, f"scoring {title}", self._train)
        validation = scored.first(len(self._val))
        probabilities = [scored.evaluation.probabilities]
        if len(self._views):
            classifier = scoring.open_file(ModelFile.read(model), "auto")
            probabilities.append(scoring.run(classifier, self._views)[PROBABILITIES])
        folds = CrossValidated.from_record(self.run.config)
        figures = {"validation": validation.to_card()}
        if folds is not None:  # it has learned from validation photos, too
            figures = {"cross-validated before export": folds.to_card()}
        card = replace(card, measured=figures)
        if self._familiarity is not None:
            limit = self._familiarity.threshold_for(validation.familiarity)
            card = replace(
                card,
                familiarity_threshold=limit,
                familiarity_threshold_unsmoothed=self._unsmoothed_limit(model),
            )
        model = metadata.replace_card(model, card)
        return BuiltModel(
            model,
            facts,
            validation.evaluation,
            np.concatenate(probabilities),
            scored.evaluation.truth,
            time.perf_counter() - started,
        )

    def _unsmoothed_limit(self, model: bytes) -> float | None:
        """The threshold for validation photos resized without smoothing; None where the
        aspect ratio is kept, as MediaPipe does not."""
        if self._familiarity is None or self.run.recipe.resize != "stretch":
            return None
        if self._unsmoothed is None:
            recipe = replace(self.run.recipe, filter=UNSMOOTHED, margin=MAX_MARGIN)
            quiet = Console(quiet=True)
            with scoring.decode(self.run, self._val, quiet, recipe) as pixels:
                self._unsmoothed = scoring.take(pixels, self._val)
        ModelFile(model).trust()
        classifier = scoring.open_file(ModelFile.read(model), "auto")
        scores = scoring.run(classifier, self._unsmoothed)["familiarity"]
        return self._familiarity.threshold_for(scores)

    def quantize(self, candidate: Candidate, *, float_io: bool = False) -> bytes:
        """The flatbuffer of a candidate."""
        return quantize(
            candidate.calibrated,
            float_io=float_io,
            kept_float=candidate.kept_float,
        )

    def evaluate(self, candidate: Candidate) -> Evaluation:
        """The validation figures of a candidate; its file is not kept."""
        card = ModelCard(
            labels=self.run.labels,
            input=self.run.recipe,
            variant="int8",
            outputs=self._outputs,
            name=candidate.rung,
        )
        return self._score(metadata.embed(self.quantize(candidate), card)).evaluation

    def _score(
        self, model: bytes, title: str | None = None, extra: Sequence[Row] = ()
    ) -> scoring.Scored:
        """Figures on the validation photos, followed by `extra` rows."""
        ModelFile(model).trust()  # built by this program
        console = self.console if title else Console(quiet=True)
        rows = [*self._val, *extra]
        with console.bar(title or "") as bar:
            return scoring.score_file(
                model, rows, self.pixels, self.run.labels, progress=bar
            )

    def _calibrating(self, done: int, total: int) -> None:
        if self._bar is not None:
            self._bar(done, total)

    def _card(
        self, variant: recipes.Variant, facts: Facts, candidate: Candidate | None
    ) -> ModelCard:
        config = self.run.config
        settings = config["settings"]
        calibration_photos = None
        if variant.calibrated and self.photos is not None:
            calibration_photos = len(self.photos)
        provenance = {
            "run": self.run.name,
            "backbone": settings.get("backbone"),
            "weights": config.get("weights"),
            "seed": settings.get("seed"),
            "created": config.get("created"),
            "versions": config.get("versions"),
            "data_fingerprint": self._fingerprint,
            "calibration_photos": calibration_photos,
            "rung": candidate.rung if candidate else None,
            "layers_kept_float": list(candidate.kept_float) if candidate else None,
            "oldest_runtime": facts.oldest_runtime,
            "ran_on": list(facts.ran_on),
            "refused_by": {k: list(v) for k, v in facts.refused_by.items()},
        }
        temperature = (config.get("calibration") or {}).get("temperature", 1.0)
        return ModelCard(
            labels=self.run.labels,
            input=self.run.recipe,
            variant=variant.name,
            outputs=self._outputs,
            name=self.run.name,
            temperature=float(temperature),
            provenance={k: v for k, v in provenance.items() if v is not None},
        )
