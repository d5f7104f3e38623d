"""README.md of a run: the model card for people, in the Hugging Face layout.

Front matter that the Hub reads, then what a person asks: what it is, what it was
trained on, how good each file is, where it fails, how to run it.

Source: huggingface.co/docs/hub/model-cards. It does not know: what the photos show
beyond their labels, or under which licence they are; whoever publishes adds that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from finetune.run import Run, write_atomic
from quantize import recipes

if TYPE_CHECKING:
    from quantize.measured import Comparison, Measured
    from quantize.timing import Setting

NAME = "README.md"


def write(comparison: Comparison, run: Run) -> None:
    """The card into the run's folder, in place of an older one."""
    text = "\n".join(_lines(comparison, run)) + "\n"
    write_atomic(run.folder / NAME, lambda to: to.write_text(text, encoding="utf-8"))


def _lines(comparison: Comparison, run: Run) -> list[str]:
    best = comparison.choice.file or comparison.files[0]
    return [
        *_front(comparison, run, best),
        "",
        f"# {run.name}",
        "",
        f"Tells {_words(run.labels)} apart in photos. One TensorFlow Lite file holds "
        "the network, its labels and how photos are resized; made by edgegraft.",
        "",
        f"Ship `exports/{best.path.name}`: {comparison.choice.why}.",
        "",
        "## Data",
        "",
        *_data(run),
        "",
        "## Training",
        "",
        *_training(run),
        "",
        "## Metrics",
        "",
        *_metrics(comparison),
        "",
        "## Limits",
        "",
        *_limits(run, best),
        "",
        "## How to run it",
        "",
        "```sh",
        f"edgegraft edge classify exports/{best.path.name} PHOTO...",
        f"python -m edge classify exports/{best.path.name} PHOTO...  # on a device",
        "```",
        "",
        "Any TensorFlow Lite client can open the file: MediaPipe Tasks, ML Kit and",
        "Android Studio read the labels and the value range from its metadata.",
        f"Input: {_input(run, best)}. Output: one probability for each label, in the",
        f"order {_words(run.labels)}.",
    ]


def _front(comparison: Comparison, run: Run, best: Measured) -> list[str]:
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": run.photos_root.name, "type": "imagefolder"},
        "metrics": [
            {
                "type": "accuracy",
                "value": round(file.evaluation.accuracy, 4),
                "name": f"test accuracy, {file.title}",
            }
            for file in comparison.files
        ],
    }
    # JSON is YAML: quoting a label or a name cannot go wrong that way
    return [
        "---",
        "library_name: tflite",
        "pipeline_tag: image-classification",
        f"tags: {json.dumps(['edgegraft', 'tflite', best.variant])}",
        "metrics: [accuracy]",
        f"model-index: {json.dumps([{'name': run.name, 'results': [result]}])}",
        "---",
    ]


def _data(run: Run) -> list[str]:
    split = run.split()
    lines = ["| part | photos | " + " | ".join(_cell(n) for n in run.labels) + " |"]
    lines.append("|---|---:|" + "---:|" * len(run.labels))
    for part in ("train", "val", "test"):
        found = [row.photo.label for row in split.rows if row.part == part]
        counts = " | ".join(f"{found.count(label):,}" for label in run.labels)
        lines.append(f"| {part} | {len(found):,} | {counts} |")
    return [
        *lines,
        "",
        f"Fingerprint of photos, labels and split: `{split.fingerprint[:16]}`. Copies "
        "of a photo are on one side of the split.",
    ]


def _training(run: Run) -> list[str]:
    settings = run.config["settings"]
    origin = (run.config.get("weights") or {}).get("weights", settings.get("weights"))
    facts = {
        "backbone": settings.get("backbone"),
        "started from": origin,
        "input": f"{run.recipe.width} x {run.recipe.height}, {run.recipe.resize}",
        "trained": settings.get("unfreeze"),
        "augmentation": settings.get("augment"),
        "seed": settings.get("seed"),
        "made": run.config.get("created"),
        "versions": ", ".join(
            f"{name} {version}"
            for name, version in (run.config.get("versions") or {}).items()
        ),
    }
    return [f"- {name}: {value}" for name, value in facts.items() if value]


def _metrics(comparison: Comparison) -> list[str]:
    files, first = comparison.files, comparison.files[0]
    head = [
        *("file", "accuracy", "95 % interval", "lost / gained", "p", "MB", "p50 ms"),
        *("runs on TFLite from", "refused by"),
    ]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    lines += [f"| {' | '.join(_row(file, comparison.judged))} |" for file in files]
    return [
        *lines,
        "",
        f"{first.evaluation.photos:,} test photos, each through the file itself; lost "
        "/ gained: photos that only float32, only this file got right; p: McNemar's "
        f"test of these; p50: median latency on {comparison.judged}.",
        "",
        *_per_class(comparison.choice.file or first),
    ]


def _row(file: Measured, judged: Setting) -> tuple[str, ...]:
    low, high = file.evaluation.interval
    pair, timing = file.paired, file.at(judged)
    return (
        file.title,
        f"{file.evaluation.accuracy:.1%}",
        f"{100 * low:.1f} to {100 * high:.1f}",
        f"{pair.lost} / {pair.gained}" if pair else "-",
        f"{pair.p:.2f}" if pair else "-",
        f"{file.size_bytes / 1e6:.2f}",
        f"{timing.p50_ms:.2f}" if timing else "-",
        file.oldest_runtime or "newest",
        ", ".join(file.refused_by) or "-",
    )


def _per_class(file: Measured) -> list[str]:
    lines = [f"Per class, {file.title}:", ""]
    lines += ["| label | photos | precision | recall |", "|---|---:|---:|---:|"]
    return lines + [
        f"| {_cell(entry['label'])} | {entry['photos']:,} | {entry['precision']:.1%} | "
        f"{entry['recall']:.1%} |"
        for entry in file.evaluation.per_class
    ]


def _limits(run: Run, best: Measured) -> list[str]:
    low, high = best.evaluation.interval
    worst = min(best.evaluation.per_class, key=lambda entry: entry["recall"])
    return [
        f"- It knows {_words(run.labels)} and nothing else: any other photo gets one "
        "of these labels.",
        f"- Measured on {best.evaluation.photos:,} photos of the same folder as it "
        f"was trained on: the accuracy lies between {low:.1%} and {high:.1%} for "
        "photos like these, and may be lower for others.",
        f"- Weakest label: {worst['label']}, of which it finds {worst['recall']:.1%}.",
        f"- Calibration error {best.calibration_error:.3f}: how far "
        "its probabilities are from how often it is right.",
    ]


def _input(run: Run, best: Measured) -> str:
    kind = recipes.variant(best.variant).input_type.lower()
    return f"{kind} RGB, 0 to 255, [1, {run.recipe.height}, {run.recipe.width}, 3]"


def _words(labels: Sequence[str]) -> str:
    return ", ".join(labels[:-1]) + f" and {labels[-1]}"


def _cell(text: Any) -> str:
    return str(text).replace("|", "\\|")
