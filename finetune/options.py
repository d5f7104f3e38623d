"""The options of a training run, for `finetune` and `build`.

Does not know: what they lead to (`finetune.cli`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from edge.run_folder import ARTIFACTS
from finetune.defaults import FROM_SCRATCH, LARGE_RATE, SMALL, SMALL_RATE
from finetune.loop.examples import BALANCES
from finetune.loop.precision import PRECISIONS
from finetune.settings import FAMILIARITY, Settings


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a training run; `build` has them too."""
    from backbones import registry
    from data.augment import PRESETS

    default = Settings()
    add = parser.add_argument
    add("--run", metavar="NAME", help="run folder's name (default: made from PHOTOS)")
    add(
        "--artifacts",
        type=Path,
        default=Path(ARTIFACTS),
        metavar="DIR",
        help=f"where runs lie (default: {ARTIFACTS})",
    )
    add(
        "--backbone",
        metavar="NAME",
        help=f"one of {', '.join(registry.names())}, or hub:HANDLE for a module of "
        f"TF-Hub, its address or a folder (default: {default.backbone})",
    )
    add(
        "--size",
        type=int,
        help="input width and height, pixels (default: 224; CNN 96)",
    )
    add(
        "--weights",
        metavar="W",
        help="imagenet, none or an .h5 file "
        f"(default: {default.weights}; custom_cnn: "
        f"{FROM_SCRATCH['weights']})",
    )
    add("--cnn", metavar="TOML", help="options of custom_cnn from a TOML file")
    add("--set", action="append", metavar="NAME=VALUE", help="one custom_cnn option")
    add("--resize", help="stretch, crop or pad (default: stretch, as MediaPipe does)")
    add(
        "--unfreeze",
        metavar="WHAT",
        help="what is fine-tuned after the probe: none, top, all, so many layers, or "
        "auto: the upper two thirds, as far as validation says (default)",
    )
    add(
        "--augment",
        choices=tuple(PRESETS),
        help=f"how photos are varied in training (default: {default.augment})",
    )
    add(
        "--epochs",
        type=int,
        help="at most so many passes over the photos "
        f"(default: {default.epochs}, from "
        f"scratch {FROM_SCRATCH['epochs']})",
    )
    add(
        "--batch",
        type=int,
        help=f"photos in a step (default: {default.batch}, from scratch 16)",
    )
    add(
        "--rate",
        type=float,
        help=f"peak learning rate (default: {LARGE_RATE:g}, below {SMALL:,} parameters "
        f"{SMALL_RATE:g}, from scratch {FROM_SCRATCH['rate']:g})",
    )
    add(
        "--rate-decay",
        type=float,
        metavar="SHARE",
        help="rate of the lowest layers, as a share of the head's (default: 1)",
    )
    add(
        "--average",
        type=float,
        metavar="EPOCHS",
        help="memory of the weights' moving average (default: 1; 0 is off)",
    )
    add(
        "--balance",
        choices=BALANCES,
        help="unbalanced labels: weights in the loss, or sampling them equally often "
        f"(default: {default.balance})",
    )
    add(
        "--precision",
        choices=PRECISIONS,
        help="numbers to train in (default: auto, bfloat16 on GPUs that gain from it)",
    )
    add(
        "--teacher",
        metavar="RUN_OR_MODEL",
        help="a better run or .tflite whose soft answers are learnt (distillation)",
    )
    add(
        "--unlabelled",
        metavar="DIR",
        help="photos without labels, of the same kind, that the teacher answers",
    )
    add(
        "--teacher-temperature",
        type=float,
        metavar="T",
        help="softens the teacher's answers (default: "
        f"{default.teacher_temperature:g})",
    )
    add(
        "--teacher-views",
        type=int,
        metavar="N",
        help="show the teacher each photo in so many fixed variations, and learn them "
        "all; an epoch is so many times longer (default: 1, the photo itself)",
    )
    add(
        "--teacher-share",
        type=float,
        metavar="SHARE",
        help="of the teacher in what is learnt; the rest is the label (default: "
        f"{default.teacher_share:g})",
    )
    add(
        "--teacher-hints",
        type=float,
        metavar="WEIGHT",
        help="of what a teacher that is a run sees in a photo, beside what it answers "
        f"(default: {FROM_SCRATCH['teacher_hints']:g} for a network from scratch, "
        "0 for a pretrained one, which gains nothing by it)",
    )
    add(
        "--label-smoothing",
        type=float,
        help="0 is off "
        f"(default: {default.label_smoothing:g}, from scratch "
        f"{FROM_SCRATCH['label_smoothing']:g})",
    )
    add(
        "--time-limit",
        type=float,
        metavar="MINUTES",
        help="end training after so long, with what it has; the rate falls in time",
    )
    add(
        "--patience",
        type=int,
        help="from scratch: stop after so many epochs without a better one (pretrained "
        f"networks are trained to the last of --epochs; default: "
        f"{FROM_SCRATCH['patience']})",
    )
    add(
        "--familiarity",
        choices=FAMILIARITY,
        help="second output of the files, from which a photo unlike the training "
        "photos is answered unknown (default: prototypes)",
    )
    add(
        "--negatives",
        metavar="DIR",
        help="photos of what is not wanted, to be answered unknown",
    )
    add("--seed", type=int, help="makes a run repeatable (default: 0)")
    add("--val", type=float, metavar="SHARE", help="validation part (default: 0.15)")
    add("--test", type=float, metavar="SHARE", help="test part (default: 0.15)")
    add(
        "--memory-limit",
        type=float,
        default=0.25,
        metavar="GB",
        help="decoded photos beyond this go to a temporary file (default: 0.25)",
    )
    add(
        "--exclude-from",
        type=Path,
        metavar="CSV",
        help="leave out the photos that this audit.csv or doubts.csv marks with "
        "exclude = yes",
    )
    add(
        "--add",
        type=Path,
        metavar="DIR",
        help="train with the photos in DIR/LABEL, too, such as those the page's Review "
        "labelled; what is measured stays the same",
    )
    add("--overwrite", action="store_true", help="replace a run of that name")
    add("--resume", action="store_true", help="go on with an interrupted run")
