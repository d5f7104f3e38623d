"""What fine-tuning gains over the linear probe it starts from, on the float32 file.

    EDGEGRAFT_ASSETS=DIR python tests/benchmarks/finetune_gain.py
    ... finetune_gain.py --backbone mobilenet_v2_1.0 --seeds 3 --test
    ... finetune_gain.py --photos trashnet --count 20 --set 'unfreeze="all"'
    ... finetune_gain.py --photos trashnet --count 50 --folds

Without --test every seed holds out another fifth of the training photos, which is how
the default recipe was chosen; with --test the test photos are scored, once, at the
end. --count takes so many training photos of each label, another draw for each seed,
and scores those that were not drawn. 15 % of the photos that are trained on are the
validation part. Both networks are exported and scored through the runner on the same
photos: the peer of the fine-tuned file is the file of its own probe. The interval is
that of the paired difference over all seeds and photos (a photo's differences averaged
over the seeds with --test). A network from scratch (custom_cnn) has no probe; its peer
is the untrained network. --folds: the same photos, not split, but fine-tuned in folds
and then on all of them (`finetune.loop.folds`), against the network of the split (log
losses at the temperature that each has set for itself), and against the probe that is
cross-fitted to all of them.

DIR holds photos/SET/{train,test} and keras_home; SET is cats_dogs unless --photos names
another. Ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from backbones import network, registry, weights  # noqa: E402
from data import batches  # noqa: E402
from data.source import scan  # noqa: E402
from edge.classifier import Classifier  # noqa: E402
from finetune.console import Console  # noqa: E402
from finetune.head import probe  # noqa: E402
from finetune.loop import fit, folds  # noqa: E402
from finetune.loop.examples import Examples  # noqa: E402
from finetune.loop.trainer import Trainer  # noqa: E402
from finetune.model import Forward, compute_outputs  # noqa: E402
from finetune.run import Run  # noqa: E402
from finetune.settings import Settings  # noqa: E402
from quantize.conversion.convert import Conversion  # noqa: E402
from tests.bench_room import assets  # noqa: E402
from tests.benchmarks.few_photos import drawn  # noqa: E402

FOLDS = 5
VAL = 0.15
CHUNK = 50


def answered(model: Any, array: Any) -> Any:
    """What the float32 file answers: probabilities float32 [n, L]."""
    labels = [str(number) for number in range(model.output_shape[-1])]
    classifier = Classifier(Conversion(model).make("float32"), labels=labels)
    found = [
        classifier.run(array[start : start + CHUNK])["probabilities"].copy()
        for start in range(0, len(array), CHUNK)
    ]
    return np.concatenate(found)


def loss_at(answers: Any, truth: Any, degrees: float) -> float:
    """Log loss of the answers in nats, at a temperature."""
    logits = np.log(np.maximum(answers, 1e-7))
    return probe.log_loss(logits / np.float32(degrees), truth)


def loss_of(answers: Any, truth: Any) -> float:
    """Log loss of the answers in nats, at their best temperature."""
    logits = np.log(np.maximum(answers, 1e-7))
    degrees = np.float32(probe.fit_temperature(logits, truth))
    return probe.log_loss(logits / degrees, truth)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Seeds, photos to score and fields of `Settings`."""
    add = parser.add_argument
    add("--seeds", type=int, default=1, help="0, 1, ... so many less 1")
    add("--first-seed", type=int, default=0)
    add("--test", action="store_true", help="score the test photos")
    add("--set", action="append", default=[], metavar="NAME=JSON")


def fields(args: argparse.Namespace) -> dict[str, Any]:
    """The fields that --set gives."""
    pairs = (pair.partition("=") for pair in args.set)
    return {name: json.loads(value) for name, _, value in pairs}


def one_seed(
    settings: Settings,
    train: Examples,
    out: Examples,
    labels: list[str],
    *,
    with_folds: bool = False,
) -> dict[str, Any]:
    """Train on `train`, score probe and result on `out`."""
    from sklearn.model_selection import train_test_split

    kept, val = train_test_split(
        np.arange(len(train)),
        test_size=VAL,
        stratify=train.truth,
        random_state=settings.seed,
    )
    parts = {
        name: Examples(train.array, train.rows[which], train.truth[which])
        for name, which in (("train", kept), ("val", val))
    }
    record = registry.get(settings.backbone)
    origin = weights.find(record, settings.size, settings.weights)
    with tempfile.TemporaryDirectory() as folder:
        config = {"labels": labels, "settings": settings.to_dict(), "photos": "."}
        run = Run.create(Path(folder) / "run", config, overwrite=False)
        started = time.perf_counter()
        model, trainer = trained(run, parts, origin)
        seconds = time.perf_counter() - started
        photos = out.pixels(np.arange(len(out)))
        tuned = answered(model, photos)
        own_loss = 0.0
        if with_folds:
            logits = Forward(network.logit_model(model))
            val_logits = logits.compute(train.array, parts["val"].rows)
            degrees = probe.fit_temperature(val_logits, parts["val"].truth)
            own_loss = loss_at(tuned, out.truth, degrees)
        model.set_weights(trainer.checkpoint.kept(0))
        start = answered(model, photos)
    found = {
        "tuned": tuned.argmax(axis=1) == out.truth,
        "probe": start.argmax(axis=1) == out.truth,
        "log_losses": [loss_of(start, out.truth), loss_of(tuned, out.truth)],
        "alpha": trainer.alpha,
        "seconds": round(seconds, 1),
    }
    if with_folds:
        found |= in_folds(settings, train, out, labels)
        found["own_losses"] = [round(own_loss, 4), found.pop("own_loss")]
        print(f"folds: {found['folds'].mean():.4f}", file=sys.stderr)
    line = f"{found['probe'].mean():.4f} -> {found['tuned'].mean():.4f}"
    print(f"seed {settings.seed}: {line}, {trainer.alpha}", file=sys.stderr)
    return found


def in_folds(
    settings: Settings, train: Examples, out: Examples, labels: list[str]
) -> dict[str, Any]:
    """Fine-tune in folds, then on all of `train`; score the result on `out`."""
    record, console = registry.get(settings.backbone), Console(json=True)
    origin = weights.find(record, settings.size, settings.weights)
    plan = fit.Plan.from_settings(settings, len(train), pretrained=True)
    started = time.perf_counter()
    model, _ = fit.build_networks(settings, len(labels), origin, plan)
    extractor = network.feature_model(model)
    features = compute_outputs(extractor, train.array, train.rows)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        trainer = Trainer(
            model, settings, train, None, from_probe=True, checkpoint=folder / "c"
        )
        answers = folds.cross_validate(
            trainer, features, list(range(len(train))), console=console
        )
        assert answers is not None
        photos = out.pixels(np.arange(len(out)))
        cross_fit = answered(model, photos)  # the probe of all photos
        trainer.start()
        fit.train_epochs(
            trainer, folder, plan, console, resumed=False, out_of_fold=answers
        )
    seconds = time.perf_counter() - started
    degrees = probe.fit_temperature(answers.at(trainer.alpha), train.truth)
    scored = answered(model, photos)
    return {
        "cross_fit": cross_fit.argmax(axis=1) == out.truth,
        "folds": scored.argmax(axis=1) == out.truth,
        "folds_alpha": trainer.alpha,
        "folds_seconds": round(seconds, 1),
        "own_loss": round(loss_at(scored, out.truth, degrees), 4),
    }


def trained(run: Run, parts: dict[str, Examples], origin: Any) -> tuple[Any, Trainer]:
    """(network, its trainer): the stages of `finetune.job.train` up to the loop."""
    settings, console, classes = run.settings, Console(json=True), len(run.labels)
    pretrained = origin.path is not None
    plan = fit.Plan.from_settings(settings, len(parts["train"]), pretrained=pretrained)
    built, _ = fit.build_networks(settings, classes, origin, plan)
    trainer = Trainer(
        built,
        settings,
        parts["train"],
        parts["val"],
        from_probe=pretrained,
        checkpoint=run.folder / "checkpoint",
    )
    if pretrained:
        fit.fit_probe(built, parts["train"], parts["val"], classes, console)
    trainer.start()
    fit.train_epochs(trainer, run.folder, plan, console, resumed=False)
    return built, trainer


def chosen(truth: Any, count: int | None, seed: int) -> Any:
    """Which photos a seed trains on, bool [N]: `count` of each label, else all but its
    fifth."""
    if count is None:
        fold = np.random.default_rng(0).permutation(len(truth)) % FOLDS
        return fold != seed % FOLDS
    inside = np.zeros(len(truth), bool)
    for label in np.unique(truth):
        own = np.flatnonzero(truth == label)
        inside[own[drawn(len(own), count, seed)]] = True
    return inside


def interval(differences: Any) -> tuple[float, float]:
    """95 % interval of a mean of paired differences (normal), in points."""
    error = 1.96 * differences.std(ddof=1) / np.sqrt(len(differences))
    mean = differences.mean()
    return round(100 * (mean - error), 2), round(100 * (mean + error), 2)


def main() -> int:
    default = Settings()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backbone", default=default.backbone)
    add_options(parser)
    parser.add_argument("--photos", default="cats_dogs", help="set in DIR/photos")
    parser.add_argument("--count", type=int, help="train on so many of each label")
    parser.add_argument("--folds", action="store_true", help="against one split")
    args = parser.parse_args()
    if (real := assets("finetune_gain")) is None:
        return 0
    settings = Settings.for_network(**fields(args), backbone=args.backbone)
    root = real / "photos" / args.photos
    sources = [scan(root / part) for part in ("train", "test")[: 1 + args.test]]
    found = []
    with batches.load(
        [p for s in sources for p in s.photos], settings.recipe
    ) as pixels:
        parts = []
        for source in sources:
            photos = [p for p in source.photos if p.path in pixels.rows]
            rows = np.array([pixels.rows[p.path] for p in photos])
            truth = np.array([source.labels.index(p.label) for p in photos])
            parts.append(Examples(pixels.array, rows, truth))
        labels = list(sources[0].labels)
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            own = Settings.from_dict({**settings.to_dict(), "seed": seed})
            train, out = parts[0], parts[-1]
            if args.count or not args.test:
                inside = chosen(train.truth, args.count, seed)
                if not args.test:
                    out = Examples(
                        train.array, train.rows[~inside], train.truth[~inside]
                    )
                train = Examples(train.array, train.rows[inside], train.truth[inside])
            found.append(one_seed(own, train, out, labels, with_folds=args.folds))
    differences = np.stack if args.test else np.concatenate
    gains = differences([f["tuned"].astype(float) - f["probe"] for f in found])
    if args.test:
        gains = gains.mean(axis=0)
    in_all: dict[str, Any] = {}
    if args.folds:
        more = differences([f["folds"].astype(float) - f["tuned"] for f in found])
        more = more.mean(axis=0) if args.test else more
        over = differences([f["folds"].astype(float) - f["cross_fit"] for f in found])
        over = over.mean(axis=0) if args.test else over
        in_all = {
            "folds_over_probe_points": round(100 * float(over.mean()), 2),
            "folds_over_probe_interval": interval(over),
            "folds_accuracy": round(
                float(np.mean([f["folds"].mean() for f in found])), 4
            ),
            "folds_gain_points": round(100 * float(more.mean()), 2),
            "folds_gain_interval": interval(more),
            "own_log_losses": np.mean([f["own_losses"] for f in found], axis=0)
            .round(4)
            .tolist(),
            "folds_alphas": [f["folds_alpha"] for f in found],
            "folds_seconds": [f["folds_seconds"] for f in found],
        }
    each = [[round(float(f[k].mean()), 4) for k in ("probe", "tuned")] for f in found]
    print(
        json.dumps(
            {
                "benchmark": "finetune_gain",
                "peer": "the linear probe of the same run, as a float32 file",
                "backbone": args.backbone,
                "size": settings.size,
                "set": args.photos,
                "scored_on": "test" if args.test else "held-out training photos",
                "trained_on": len(train),
                "photos": len(gains),
                "seeds": args.seeds,
                "probe_accuracy": round(float(np.mean(each, axis=0)[0]), 4),
                "accuracy": round(float(np.mean(each, axis=0)[1]), 4),
                "each": each,
                "log_losses": np.mean([f["log_losses"] for f in found], axis=0)
                .round(4)
                .tolist(),
                "gain_points": round(100 * float(gains.mean()), 2),
                "gain_interval": interval(gains),
                "alphas": [f["alpha"] for f in found],
                "seconds": [f["seconds"] for f in found],
                **in_all,
                "cores": os.cpu_count(),
            }
        )
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
