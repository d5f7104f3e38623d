"""Builds a model file: converted, verified, described, scored on validation.

What the files of a run have in common (the traced graph, the calibration, the decoded
photos) is computed once and shared.
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
from edge.evaluate import Evaluation
from edge.model_file import ModelFile
from edge.preprocess import MOST_MARGIN
from edge.preprocess import PLAIN as UNSMOOTHED
from edge.quiet import without_chatter
from finetune import familiarity
from finetune.console import Console
from finetune.head import features
from finetune.model import load as load_network
from finetune.run import Run
from quantize import recipes
from quantize.conversion import calibration, scoring
from quantize.conversion.convert import Conversion, quantize
from quantize.gate import MOST, VIEWS, views
from quantize.tflite import metadata
from quantize.tflite.io_tensors import PROBABILITIES
from quantize.tflite.old_runtime import OldRuntime
from quantize.tflite.verify import Facts, verify

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
    """A finished file, the facts read back from it, and its figures.

    `validation` are those of the validation photos. `truth`, label numbers, goes on
    with training photos, and `probabilities`, float32 [N, L], behind them with views of
    the validation photos: what the gate compares. `seconds`: to build and score it.
    """

    model: bytes
    facts: Facts
    validation: Evaluation
    probabilities: npt.NDArray[np.float32]
    truth: npt.NDArray[np.int64]
    seconds: float


def covering(
    model: Any,
    pixels: batches.Pixels,
    pool: Sequence[Row],
    count: int,
    console: Console,
) -> tuple[Row, ...]:
    """`count` photos of the pool that cover the network's feature space."""
    if len(pool) <= count:
        return tuple(pool)
    places = np.asarray(scoring.places_of(pixels, pool))
    with console.bar("choosing calibration photos") as bar:
        vectors = features.compute(
            network.feature_model(model), pixels.array, places, progress=bar
        )
    return calibration.spread(pool, vectors, count)


class Builder:
    """Builds and scores the files of one run."""

    def __init__(
        self,
        run: Run,
        model: Any,
        pixels: batches.Pixels,
        chosen: Sequence[Row],
        judged: Sequence[Row],
        console: Console,
        old_runtime: OldRuntime | None = None,
        compared: Sequence[Row] = (),
    ) -> None:
        """`chosen` photos calibrate, `judged` are the validation part, `compared` the
        training photos that tell whether a label is lost."""
        self.run, self.console, self.pixels = run, console, pixels
        self._old_runtime = old_runtime
        served = load_network(run) if model is None else model
        self._familiarity = familiarity.load(run)
        self._outputs = {PROBABILITIES: PROBABILITIES}
        if self._familiarity is not None:
            served = familiarity.attach(served, self._familiarity)
            self._outputs[familiarity.OUTPUT] = familiarity.OUTPUT
        self.judged, self.chosen = tuple(judged), tuple(chosen)
        self._compared = tuple(compared)
        known = scoring.take(pixels, self.judged)
        count = min(VIEWS * len(known), max(0, MOST - len(known)))
        self._views = views(known, count, seed=run.settings.seed)
        self._fingerprint = run.split().fingerprint
        self.photos: npt.NDArray[np.uint8] | None = None
        self._unsmoothed: npt.NDArray[np.uint8] | None = None
        if chosen:
            self.photos = scoring.take(pixels, chosen)
        self.conversion = Conversion(
            served, calibration=self.photos, progress=self._calibrating
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
        run = self.run
        kept_float = candidate.kept_float if candidate else ()
        with without_chatter():
            facts = verify(
                flat,
                variant.name,
                run.recipe,
                run.labels,
                outputs=self._outputs,
                kept_float=kept_float,
                old_runtime=self._old_runtime,
            )
        title = f"{variant.name}, {candidate.rung}" if candidate else variant.name
        self.console.stage(
            f"{title}: converted and verified in {time.perf_counter() - started:.1f} s",
            detail=True,
        )
        card = self._card(variant, facts, candidate)
        model = metadata.embed(flat, card)
        everything = self._score(model, f"scoring {title}", self._compared)
        scored = everything.first(len(self.judged))
        probabilities = [everything.evaluation.probabilities]
        if len(self._views):
            classifier = scoring.open_file(ModelFile.read(model), "auto")
            probabilities.append(scoring.run(classifier, self._views)["probabilities"])
        card = replace(card, measured={self.run.judged_on: scored.to_card()})
        if self._familiarity is not None:
            limit = self._familiarity.limit_of_file(scored.familiarity)
            card = replace(
                card,
                familiarity_threshold=limit,
                familiarity_threshold_unsmoothed=self._unsmoothed_limit(model),
            )
        model = metadata.replace_card(model, card)
        return BuiltModel(
            model,
            facts,
            scored.evaluation,
            np.concatenate(probabilities),
            everything.evaluation.truth,
            time.perf_counter() - started,
        )

    def _unsmoothed_limit(self, model: bytes) -> float | None:
        """The threshold for validation photos that are shrunk without smoothing; None
        where the input keeps the photo's shape, as MediaPipe does not."""
        if self._familiarity is None or self.run.recipe.resize != "stretch":
            return None
        if self._unsmoothed is None:
            recipe = replace(self.run.recipe, filter=UNSMOOTHED, margin=MOST_MARGIN)
            quiet = Console(quiet=True)
            with scoring.decode(self.run, self.judged, quiet, recipe) as pixels:
                self._unsmoothed = scoring.take(pixels, self.judged)
        ModelFile(model).trust()
        classifier = scoring.open_file(ModelFile.read(model), "auto")
        known = scoring.run(classifier, self._unsmoothed)["familiarity"]
        return self._familiarity.limit_of_file(known)

    def quantize(self, candidate: Candidate, *, float_io: bool = False) -> bytes:
        """The flatbuffer of a candidate."""
        return quantize(
            candidate.calibrated,
            float_io=float_io,
            kept_float=candidate.kept_float,
        )

    def evaluate(self, candidate: Candidate) -> Evaluation:
        """The validation figures of a candidate that will not be written."""
        card = ModelCard(
            labels=self.run.labels,
            input=self.run.recipe,
            variant="int8",
            outputs=self._outputs,
            name=candidate.rung,
        )
        return self._score(metadata.embed(self.quantize(candidate), card)).evaluation

    def _score(
        self, model: bytes, title: str | None = None, more: Sequence[Row] = ()
    ) -> scoring.Scored:
        """Figures on the validation photos, and on more rows behind them."""
        ModelFile(model).trust()  # made and run by this program, not found somewhere
        console = self.console if title else Console(quiet=True)
        with console.bar(title or "") as bar:
            return scoring.score_file(
                model,
                [*self.judged, *more],
                self.pixels,
                self.run.labels,
                progress=bar,
            )

    def _calibrating(self, done: int, total: int) -> None:
        if self._bar is not None:
            self._bar(done, total)

    def _card(
        self, variant: recipes.Variant, facts: Facts, candidate: Candidate | None
    ) -> ModelCard:
        config = self.run.config
        settings = config["settings"]
        provenance = {
            "run": self.run.name,
            "backbone": settings.get("backbone"),
            "weights": config.get("weights"),
            "seed": settings.get("seed"),
            "created": config.get("created"),
            "versions": config.get("versions"),
            "data_fingerprint": self._fingerprint,
            "calibration_photos": len(self.chosen) if variant.calibrated else None,
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
