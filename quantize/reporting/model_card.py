"""README.md of a run: the model card, in the Hugging Face layout.

Front matter for the Hub, then the model, its training data, the accuracy of each file,
its limitations, and how to run it. What the photos show beyond their labels, and their
licence, is left to the publisher.
Source: huggingface.co/docs/hub/model-cards, and its annotated template.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edge.files import write_atomic
from edge.text import plural
from finetune.familiarity import negatives_of
from finetune.run import Run
from quantize import recipes
from quantize.reporting import columns
from quantize.reporting import text as words
from quantize.reporting.columns import Column

if TYPE_CHECKING:
    from quantize.comparison.records import Comparison, MeasuredFile

NAME = "README.md"


def write(comparison: Comparison, run: Run) -> None:
    """Write the card into the run's folder, in place of an older one."""
    write_atomic(run.folder / NAME, "\n".join(_lines(comparison, run)) + "\n")


def _advice(comparison: Comparison) -> str:
    choice = comparison.choice
    if choice.file is None:
        return f"No file to ship: {choice.why}."
    weakest = words.weakest(choice.file, comparison.headline)
    return (
        f"Ship `exports/{choice.file.path.name}`: {words.accuracy(comparison)}; "
        f"weakest label {weakest}. Why: {choice.why}."
    )


def _lines(comparison: Comparison, run: Run) -> list[str]:
    best = comparison.choice.file or comparison.files[0]
    return [
        *_front(comparison, run, best),
        "",
        f"# {run.name}",
        "",
        f"Classifies photos as {_words(run.labels)}. One TensorFlow Lite file holds "
        "the network, its labels and how photos are resized; made with edgegraft.",
        "",
        _advice(comparison),
        "",
        "## Model details",
        "",
        *_details(run, best),
        "",
        "## Uses",
        "",
        f"One photo in, one of {len(run.labels)} labels out, on a device without a "
        "network. Not meant for photos unlike those below, nor for decisions about "
        "people.",
        "",
        "## Bias, risks and limitations",
        "",
        *_limits(comparison, run, best),
        "",
        "## How to get started",
        "",
        *_start(best),
        "",
        "## Training details",
        "",
        "### Training data",
        "",
        *_data(run),
        "",
        "### Training procedure",
        "",
        *_training(run),
        "",
        "## Evaluation",
        "",
        *_evaluation(comparison),
    ]


def _details(run: Run, best: MeasuredFile) -> list[str]:
    card = best.card
    refuses = card is not None and card.familiarity_threshold is not None
    return [
        f"- network: {run.config['settings'].get('backbone')}, "
        f"{best.multiply_adds / 1e6:.1f} million multiply-adds a photo",
        f"- input: {_input(run, best)}",
        f"- output: one probability for each label, in the order {_words(run.labels)}"
        + ("; and how familiar the photo is" if refuses else ""),
        "- license: not stated; the publisher of the photos or the network adds it",
    ]


def _start(best: MeasuredFile) -> list[str]:
    return [
        "```sh",
        f"edgegraft edge classify exports/{best.path.name} PHOTO...",
        f"edgegraft edge pack exports/{best.path.name} -o device  # for a Raspberry Pi",
        "```",
        "",
        "MediaPipe Tasks, ML Kit and Android Studio read the labels and the value "
        "range from the file's metadata:",
        "",
        "```python",
        "import mediapipe as mp",
        "from mediapipe.tasks.python import vision",
        "",
        "classifier = vision.ImageClassifier.create_from_model_path(",
        f'    "exports/{best.path.name}"',
        ")",
        'answer = classifier.classify(mp.Image.create_from_file("photo.jpg"))',
        "print(answer.classifications[0].categories[0].category_name)",
        "```",
    ]


def _front(comparison: Comparison, run: Run, best: MeasuredFile) -> list[str]:
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
        labels = [row.photo.label for row in split.rows if row.part == part]
        counts = " | ".join(f"{labels.count(label):,}" for label in run.labels)
        lines.append(f"| {part} | {len(labels):,} | {counts} |")
    return [
        *lines,
        "",
        f"Fingerprint of photos, labels and split: `{split.fingerprint[:16]}`. Copies "
        "of a photo are on one side of the split.",
    ]


def _trained(run: Run) -> tuple[str, bool]:
    """The trained layers, and whether the files have fine-tuned weights."""
    unfrozen = run.config.get("unfrozen", run.config["settings"].get("unfreeze"))
    best = run.config.get("best") or {}
    if unfrozen == "none":
        return "a linear probe, no fine-tuning", False
    if run.config.get("probe") and best.get("epoch") == 0:
        return f"{unfrozen}, but the linear probe was better and is kept", False
    alpha = best.get("alpha", 1)
    if alpha < 1:  # an average with the probe
        return f"{unfrozen}, {alpha:.0%} of it and {1 - alpha:.0%} probe kept", True
    return unfrozen, True


def _training(run: Run) -> list[str]:
    settings = run.config["settings"]
    origin = (run.config.get("weights") or {}).get("weights", settings.get("weights"))
    trained, fine_tuned = _trained(run)
    augmented = fine_tuned or settings.get("teacher_views", 1) > 1
    negative_count = len(negatives_of(run))
    facts = {
        "backbone": settings.get("backbone"),
        "started from": origin,
        "input": f"{run.recipe.width} x {run.recipe.height}, {run.recipe.resize}"
        + (f", region {run.settings.region}" if run.settings.region else ""),
        "trained": trained,
        "augmentation": settings.get("augment") if augmented else "none",
        "negatives": plural(negative_count, "photo") if negative_count else "",
        "seed": settings.get("seed"),
        "made": run.config.get("created"),
        "versions": ", ".join(
            f"{name} {version}"
            for name, version in (run.config.get("versions") or {}).items()
        ),
    }
    return [f"- {name}: {value}" for name, value in facts.items() if value]


def _limits(comparison: Comparison, run: Run, best: MeasuredFile) -> list[str]:
    low, high = best.evaluation.interval
    headline = comparison.headline
    folds = headline if headline and headline.source != "test photos" else None
    note = headline.note if headline else ""
    error = 100 * best.evaluation.calibration_error
    return [
        f"- {_unknown(run, best)}",
        *([f"- Accuracy {words.cross_validated(folds)}."] if folds else []),
        f"- Measured on {best.evaluation.photos:,} photos of the folder it was trained "
        f"from: its accuracy on photos like these is between {low:.1%} and {high:.1%}; "
        "on others it may be lower.",
        *([f"- {note[0].upper()}{note[1:]}."] if note else []),
        f"- Weakest label: {words.weakest(best, headline)}.",
        *(f"- {line[0].upper()}{line[1:]}." for line in words.cautions(best)),
        f"- Calibration error {error:.1f} points: the mean distance of its "
        "probabilities from its accuracy, less what chance adds.",
        "- What the photos show beyond their labels (light, place, kinds of things) "
        "was not checked; the network has not seen what they lack.",
    ]


def _unknown(run: Run, best: MeasuredFile) -> str:
    """The prediction for a photo that shows none of the labels."""
    card = best.card
    if card is None or card.familiarity_threshold is None:
        return f"Any photo gets one of the labels {_words(run.labels)}."
    if best.refusal is None:
        return (
            "A photo that looks unlike the training photos is answered `unknown`; how "
            "often that works was not measured (`edgegraft compare --unknown DIR`)."
        )
    refusal = best.refusal
    return (
        f"Of {refusal.photos:,} photos that show none of the labels it answers "
        f"{refusal.share:.1%} with `unknown`, and {refusal.known_share:.1%} of the "
        "test photos by mistake."
    )


def _input(run: Run, best: MeasuredFile) -> str:
    kind = recipes.variant(best.variant).input_type.lower()
    return f"{kind} RGB, 0 to 255, [1, {run.recipe.height}, {run.recipe.width}, 3]"


def _words(labels: Sequence[str]) -> str:
    return ", ".join(labels[:-1]) + f" and {labels[-1]}"


def _evaluation(comparison: Comparison) -> list[str]:
    """The figures of each file, and those of each label for the chosen one."""
    files = comparison.files
    figures = [file.figures() for file in files]
    chosen = comparison.choice.file or files[0]
    runtimes = ", ".join(dict.fromkeys(file.accuracy_runtime for file in files))
    return [
        "### Testing data and metrics",
        "",
        f"{chosen.evaluation.photos:,} test photos, used for nothing else, each "
        f"through the file itself on {runtimes}.",
        "",
        *(f"- {column.head}: {column.help}" for column in columns.QUALITY[1:]),
        "",
        "### Results",
        "",
        *_table(columns.QUALITY, figures),
        "",
        *_exports(figures),
        *_table(columns.FILES, figures),
        "",
        f"Each label, {chosen.title}:",
        "",
        *_table(columns.LABELS, chosen.evaluation.rows),
        *_not_measured(chosen),
        "",
        "### Speed and memory",
        "",
        *_table(columns.TIMES, words.times(files)),
        "",
        f"{comparison.method}.",
        *(f"\nWarning: {warning}." for warning in comparison.warnings),
    ]


def _exports(figures: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each file reached on validation photos, by which repair."""
    rows = words.exported(figures)
    if not rows:
        return []
    return ["On validation photos:", "", *_table(columns.EXPORT, rows), ""]


def _not_measured(file: MeasuredFile) -> list[str]:
    """The labels without test photos."""
    empty = [row["label"] for row in file.evaluation.per_class if not row["photos"]]
    return ["", f"Not measured, no test photos: {', '.join(empty)}."] if empty else []


def _table(heads: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A Markdown table: the first column to the left, figures to the right."""
    shown = columns.filled(heads, rows)
    return [
        f"| {' | '.join(column.head for column in shown)} |",
        "|---|" + "---:|" * (len(shown) - 1),
        *(
            f"| {' | '.join(_cell(column.text(figures)) for column in shown)} |"
            for figures in rows
        ),
    ]


def _cell(text: Any) -> str:
    """Text for a cell of a Markdown table."""
    return str(text).replace("|", "\\|")
