"""metrics.json: the quality of the trained network, before export.

`finetune.figures` draws the pictures of the same evaluations. The figures of the
exported files, which run on the device, are in comparison.json. Training evaluates the
test part here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backbones import network
from edge.evaluate import Evaluation, wilson
from finetune import familiarity, negatives
from finetune.familiarity import Familiarity
from finetune.figures import mistakes, reliability
from finetune.head import features, probe
from finetune.head.cross_fit import CrossValidated
from finetune.loop.examples import Floats
from finetune.run import Run
from finetune.trained import TrainedNetwork

SEED_FIGURES = ("accuracy", "calibration_error")


@dataclass(frozen=True)
class Evaluated:
    """Evaluations of validation and test part, and the probabilities of each before
    calibration, float32 [N, L]."""

    val: Evaluation
    test: Evaluation
    uncalibrated: dict[str, Floats]


def evaluate(trained: TrainedNetwork, temperature: float) -> Evaluated:
    """Evaluate the calibrated network on validation and test photos.

    temperature: the divisor of its logits.
    """
    scale = np.float32(temperature)
    return Evaluated(
        trained.evaluation("val"),
        trained.evaluation("test"),
        {p: probe.softmax(trained.logits(p) * scale) for p in ("val", "test")},
    )


def fit_familiarity(run: Run, trained: TrainedNetwork) -> Familiarity | None:
    """Fit the second output and write it into the run; None where it is off."""
    settings = run.settings
    if settings.familiarity == "none":
        return None
    negative_features = None
    if settings.negatives is not None:
        negatives.write_record(run, settings.negatives)
        pixels = negatives.load(settings.negatives, settings.recipe, trained.console)
        extractor = network.feature_model(trained.model)
        negative_features = features.compute(extractor, pixels, range(len(pixels)))
    fitted = familiarity.fit(
        trained.features("train"),
        trained.parts["train"].truth,
        trained.features("val"),
        negatives=negative_features,
        seed=settings.seed,
    )
    familiarity.save(run, fitted)
    return fitted


def metrics(
    run: Run,
    trained: TrainedNetwork,
    evaluated: Evaluated,
    fitted: Familiarity | None,
) -> dict[str, Any]:
    """The content of metrics.json."""
    val, test = evaluated.val, evaluated.test
    photos = [photo.path for photo in run.part("test")]
    cross_validated = CrossValidated.from_record(run.config)
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
                    evaluated.uncalibrated[part],
                    evaluation.probabilities,
                    evaluation.truth,
                )
                for name, part, evaluation in (
                    ("validation", "val", val),
                    ("test", "test", test),
                )
            },
        },
        "familiarity": _familiarity_record(run, trained, fitted),
        "learning_curve": run.config.get("learning_curve"),
        "mistakes": mistakes.listed(
            mistakes.mistakes(test), test, photos, run.photos_root
        ),
        "uncertain": mistakes.listed(
            mistakes.least_certain(test), test, photos, run.photos_root
        ),
    }


def _familiarity_record(
    run: Run, trained: TrainedNetwork, fitted: Familiarity | None
) -> dict[str, Any] | None:
    """How many of the known photos are not called unknown, with 95 % intervals."""
    if fitted is None:
        return None
    record: dict[str, Any] = {
        "prototypes": fitted.kernel.shape[1],
        "threshold": familiarity.LIMIT,
        "negatives": run.settings.negatives,
    }
    for name, part in (("validation", "val"), ("test", "test")):
        scores = fitted.scores(trained.features(part))
        passed = int((scores >= familiarity.LIMIT - 1e-6).sum())
        record[name] = {
            "photos": len(scores),
            "passed": passed,
            "share": passed / len(scores),
            "interval": wilson(passed, len(scores)),
        }
    return record


# -- several seeds --------------------------------------------------------------------
def summarize_seeds(runs: Sequence[Run]) -> dict[str, Any]:
    """The spread of the same training with several seeds.

    A seed sets the split (unless the photos come in parts), the order of the photos,
    augmentation and dropout. Each figure of the test part: run by run, mean, and
    Student's 95 % interval of the mean, clipped to 0..1. Written into metrics.json of
    the first run.
    """
    from scipy.stats import t

    records = [run.metrics for run in runs]
    summary: dict[str, Any] = {
        "runs": [run.name for run in runs],
        "seeds": [run.settings.seed for run in runs],
        "of": "the test part, Keras before export",
    }
    for name in SEED_FIGURES:
        values = np.array([record["test"][name] for record in records])
        mean, deviation = float(values.mean()), float(values.std(ddof=1))
        half = float(t.ppf(0.975, len(values) - 1)) * deviation / len(values) ** 0.5
        summary[name] = {
            "each": values.tolist(),
            "mean": mean,
            "deviation": deviation,
            "interval": [max(0.0, mean - half), min(1.0, mean + half)],
        }
    runs[0].write_json("metrics.json", {**records[0], "repeats": summary})
    return summary
