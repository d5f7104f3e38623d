"""A trained network and the photos it was trained on: what becomes of it then.

Taught what is familiar, judged, shown. The features of each part are
computed once; whatever is asked afterwards is a product of matrices.

Does not know: how it was trained, TFLite.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones import network
from edge.evaluate import Evaluation, score, wilson
from finetune import familiarity
from finetune import negatives as unwanted
from finetune.console import Console
from finetune.familiarity import Familiarity
from finetune.figures import mistakes, reliability, training
from finetune.head import cross_fit as refit
from finetune.head import features, probe
from finetune.head.cross_validation import Crossed
from finetune.loop.epochs import Epoch
from finetune.loop.examples import Examples
from finetune.run import Run

Floats = npt.NDArray[np.float32]


class Finished:
    """The network of `run`, and its features of each part of the photos.

    seen: those that are known already, float32 [N, D].
    """

    def __init__(
        self,
        run: Run,
        model: Any,
        parts: Mapping[str, Examples],
        seen: Mapping[str, Floats],
        console: Console,
    ) -> None:
        self.run, self.model, self.parts = run, model, parts
        self.console = console
        self._seen = dict(seen)
        self._out_of_fold: Floats | None = None

    def features(self, part: str) -> Floats:
        """float32 [N, D], in the split's order."""
        if part not in self._seen:
            examples = self.parts[part]
            with self.console.bar(f"features of {part}") as bar:
                self._seen[part] = features.compute(
                    network.feature_model(self.model),
                    examples.array,
                    examples.rows,
                    progress=bar,
                )
        return self._seen[part]

    def logits(self, part: str) -> Floats:
        """float32 [N, L], with the head as it is now; of the validation part those of
        heads that did not see the photo, where the head has learnt from it."""
        if part == "val" and self._out_of_fold is not None:
            return self._out_of_fold
        kernel, bias = network.get_head(self.model)
        return np.asarray(self.features(part) @ kernel + bias, np.float32)

    def evaluation(self, part: str) -> Evaluation:
        """How the network answers the photos of a part."""
        found = probe.softmax(self.logits(part))
        return score(found, self.parts[part].truth, self.run.labels)

    def refit(self, found: refit.Refit) -> None:
        """Take a head that learnt from train and val, in this order."""
        network.set_head(
            self.model,
            found.kernel / np.float32(found.temperature),
            found.bias / np.float32(found.temperature),
        )
        cooled = found.logits / np.float32(found.temperature)
        self._out_of_fold = cooled[len(self.parts["train"]) :]


def taught(finished: Finished) -> Familiarity | None:
    """Fit the second output and leave it in the run; None where it isn't wanted."""
    run, settings = finished.run, finished.run.settings
    if settings.familiarity == "none":
        return None
    negatives = None
    if settings.negatives is not None:
        unwanted.remember(run, settings.negatives)
        pixels = unwanted.load(settings.negatives, settings.recipe, finished.console)
        extractor = network.feature_model(finished.model)
        negatives = features.compute(extractor, pixels, range(len(pixels)))
    found = familiarity.fit(
        finished.features("train"),
        finished.parts["train"].truth,
        finished.features("val"),
        negatives=negatives,
        seed=settings.seed,
    )
    familiarity.save(run, found)
    finished.console.stage(
        f"familiarity: {found.kernel.shape[1]} prototypes of what the labels look like"
    )
    return found


def reported(
    finished: Finished, history: list[Epoch], kept: Epoch, known: Familiarity | None
) -> Evaluation:
    """metrics.json and the pictures; what the network answers to the validation part.

    The test part is looked at here, and only here.
    """
    run = finished.run
    val, test = finished.evaluation("val"), finished.evaluation("test")
    photos = [photo.path for photo in run.part("test")]
    worst, unsure = mistakes.mistakes(test), mistakes.least_sure(test)
    crossed = Crossed.of(run)
    calibration = run.config["calibration"]
    warm = np.float32(calibration["temperature"])
    before = {
        part: probe.softmax(finished.logits(part) * warm) for part in ("val", "test")
    }
    run.write_json(
        "metrics.json",
        {
            "measured_on": "the trained network in Keras, before export; the figures "
            "of the exported files are in comparison.json",
            "validation": val.to_dict(),
            "validation_answered_by": "heads that did not see the photo, out of fold"
            if run.refitted
            else "the network, which did not learn from these photos",
            "cross_validated": None if crossed is None else crossed.to_dict(),
            "test": test.to_dict(),
            "calibration": {
                "temperature": float(warm),
                "platt_target": calibration["platt_target"],
                **{
                    name: reliability.measured(before[part], e.probabilities, e.truth)
                    for name, part, e in (
                        ("validation", "val", val),
                        ("test", "test", test),
                    )
                },
            },
            "familiarity": _passed(finished, known),
            "learning_curve": run.config.get("learning_curve"),
            "mistakes": mistakes.listed(worst, test, photos, run.photos_root),
            "least_sure": mistakes.listed(unsure, test, photos, run.photos_root),
        },
    )
    training.write_history(run.folder / "history.csv", history)
    training.draw_training(
        run.folder / "training.png",
        history,
        kept,
        run.config.get("probe"),
        augmented=run.settings.augment != "none",
        share=(run.config.get("best") or {}).get("share"),
        refit=calibration.get("refit"),
    )
    training.draw_confusion(run.folder / "confusion.png", test, "test part, Keras")
    reliability.draw(
        run.folder / "calibration.png",
        (
            ("Before calibration", before["test"]),
            ("After", test.probabilities),
        ),
        test.truth,
        "test part",
        f"Temperature {warm:.2f}, set by {calibration['photos']} other photos with the "
        f"target {calibration['platt_target']:.1%} for the right label (Platt)",
    )
    examples = finished.parts["test"]
    for name, rows, heading in (
        ("mistakes", worst, "Surest mistakes, test part"),
        ("unsure", unsure, "Least sure answers, test part"),
    ):
        seen = [examples.array[examples.rows[row]] for row in rows]
        mistakes.draw(run.folder / f"{name}.png", rows, test, photos, seen, heading)
    return val


def _passed(finished: Finished, known: Familiarity | None) -> dict[str, Any] | None:
    """How many of the known photos are not called unknown, with 95 % intervals."""
    if known is None:
        return None
    found: dict[str, Any] = {
        "prototypes": known.kernel.shape[1],
        "threshold": familiarity.LIMIT,
        "negatives": finished.run.settings.negatives,
    }
    for name, part in (("validation", "val"), ("test", "test")):
        scores = known.of(finished.features(part))
        passed = int((scores >= familiarity.LIMIT - 1e-6).sum())
        found[name] = {
            "photos": len(scores),
            "passed": passed,
            "share": passed / len(scores),
            "interval": wilson(passed, len(scores)),
        }
    return found
