"""metrics.json: how good the trained network is, before export.

Numbers only; the pictures are drawn from the same evaluations by `finetune.figures`.
The figures of the exported files, which are what runs on a device, are in
comparison.json. The test part is evaluated here and nowhere else in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones import network
from edge.evaluate import Evaluation, wilson
from finetune import familiarity, negatives
from finetune.familiarity import Familiarity
from finetune.figures import mistakes, reliability
from finetune.head import features, probe
from finetune.head.cross_fit import CrossValidated
from finetune.run import Run
from finetune.trained import TrainedNetwork

SEED_FIGURES = ("accuracy", "calibration_error")

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Evaluated:
    """Evaluations of validation and test part, and the probabilities of each before
    calibration, float32 [N, L]."""

    val: Evaluation
    test: Evaluation
    before: dict[str, Floats]


def evaluate(trained: TrainedNetwork, temperature: float) -> Evaluated:
    """Evaluate the calibrated network on validation and test photos.

    temperature: what its logits were divided by.
    """
    warm = np.float32(temperature)
    return Evaluated(
        trained.evaluation("val"),
        trained.evaluation("test"),
        {p: probe.softmax(trained.logits(p) * warm) for p in ("val", "test")},
    )


def fit_familiarity(run: Run, trained: TrainedNetwork) -> Familiarity | None:
    """Fit the second output and write it into the run; None where it is off."""
    settings = run.settings
    if settings.familiarity == "none":
        return None
    unlike = None
    if settings.negatives is not None:
        negatives.remember(run, settings.negatives)
        pixels = negatives.load(settings.negatives, settings.recipe, trained.console)
        extractor = network.feature_model(trained.model)
        unlike = features.compute(extractor, pixels, range(len(pixels)))
    found = familiarity.fit(
        trained.features("train"),
        trained.parts["train"].truth,
        trained.features("val"),
        negatives=unlike,
        seed=settings.seed,
    )
    familiarity.save(run, found)
    return found


def metrics(
    run: Run,
    trained: TrainedNetwork,
    evaluated: Evaluated,
    known: Familiarity | None,
) -> dict[str, Any]:
    """The content of metrics.json."""
    val, test = evaluated.val, evaluated.test
    photos = [photo.path for photo in run.part("test")]
    cross_validated = CrossValidated.of(run.config)
    calibration = run.config["calibration"]
    return {
        "measured_on": "the trained network in Keras, before export; the figures "
        "of the exported files are in comparison.json",
        "validation": val.to_dict(),
        "validation_answered_by": "heads that did not see the photo, out of fold"
        if run.cross_fitted
        else "the network, which did not learn from these photos",
        "cross_validated": None
        if cross_validated is None
        else cross_validated.to_dict(),
        "test": test.to_dict(),
        "calibration": {
            "temperature": float(np.float32(calibration["temperature"])),
            **{
                name: reliability.measured(
                    evaluated.before[part], one.probabilities, one.truth
                )
                for name, part, one in (
                    ("validation", "val", val),
                    ("test", "test", test),
                )
            },
        },
        "familiarity": _passed(run, trained, known),
        "learning_curve": run.config.get("learning_curve"),
        "mistakes": mistakes.listed(
            mistakes.mistakes(test), test, photos, run.photos_root
        ),
        "uncertain": mistakes.listed(
            mistakes.least_certain(test), test, photos, run.photos_root
        ),
    }


def _passed(
    run: Run, trained: TrainedNetwork, known: Familiarity | None
) -> dict[str, Any] | None:
    """How many of the known photos are not called unknown, with 95 % intervals."""
    if known is None:
        return None
    found: dict[str, Any] = {
        "prototypes": known.kernel.shape[1],
        "threshold": familiarity.LIMIT,
        "negatives": run.settings.negatives,
    }
    for name, part in (("validation", "val"), ("test", "test")):
        scores = known.of(trained.features(part))
        passed = int((scores >= familiarity.LIMIT - 1e-6).sum())
        found[name] = {
            "photos": len(scores),
            "passed": passed,
            "share": passed / len(scores),
            "interval": wilson(passed, len(scores)),
        }
    return found


# -- several seeds --------------------------------------------------------------------
def summarize_seeds(runs: Sequence[Run]) -> dict[str, Any]:
    """How much of a figure is chance: the same training with several seeds.

    A seed decides the split (unless the photos come in parts), the order of the photos,
    augmentation and dropout. Each figure of the test part: run by run, mean, and
    Student's 95 % interval of the mean, cut to 0 to 1. Written into metrics.json of the
    first run.
    """
    from scipy.stats import t

    records = [run.metrics for run in runs]
    found: dict[str, Any] = {
        "runs": [run.name for run in runs],
        "seeds": [run.settings.seed for run in runs],
        "of": "the test part, Keras before export",
    }
    for name in SEED_FIGURES:
        values = np.array([record["test"][name] for record in records])
        mean, deviation = float(values.mean()), float(values.std(ddof=1))
        half = float(t.ppf(0.975, len(values) - 1)) * deviation / len(values) ** 0.5
        found[name] = {
            "each": values.tolist(),
            "mean": mean,
            "deviation": deviation,
            "interval": [max(0.0, mean - half), min(1.0, mean + half)],
        }
    runs[0].write_json("metrics.json", {**records[0], "repeats": found})
    return found
