"""The settings of a training run: names, defaults, bounds and help, in one place.

`Settings` is stored in run.json and passed by Python callers; `finetune.cli` derives
its options from the fields below. Defaults that depend on the network are in
`Settings.for_network`.

The peak learning rates, and no label smoothing, were chosen by the log loss of training
photos that were not drawn, on trashnet and on cats and dogs (tests/benchmarks/
finetune_gain.py --photos SET --count N --set rate=RATE). Of 5e-5, 1e-4 and 2e-4
MobileNetV2 1.0 and EfficientNet-Lite0 do better with the largest on trashnet and with
the others on cats and dogs, so they get the middle one; MobileNetV2 0.35 gets the
largest. Wider networks want smaller rates of Adam (Yang et al. 2022, arXiv:2203.03466);
the threshold between the two was not measured. Smoothed labels also make networks whose
int8 files are farther from float32 (tests/benchmarks/int8_loss.py --set
label_smoothing=0.1).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.augment import PRESETS
from edge.errors import EdgegraftError
from edge.preprocess import FILTERS, FULL, RESIZES, InputRecipe
from edge.region import parse_region
from finetune.loop.examples import BALANCES

FAMILIARITY = ("prototypes", "none")
PRECISIONS = ("auto", "float32", "bfloat16")
UNFREEZE = ("auto", "none", "top", "all")  # or a number of layers
SMALL = 1_000_000  # parameters; smaller networks take, and need, longer steps
SMALL_RATE, LARGE_RATE = 2e-4, 1e-4

FROM_SCRATCH: dict[str, Any] = {
    "weights": "none",
    "augment": "standard",
    "unfreeze": "all",
    "epochs": 24,
    "batch": 16,
    "rate": 3e-3,
    "patience": 12,
    "teacher_hints": 2.0,
}
_PATHS = ("teacher", "unlabelled", "negatives")
# Settings of the epochs; the linear probe has its own penalty and no soft targets
_EPOCH_SETTINGS = (
    "augment",
    "epochs",
    "batch",
    "rate",
    "rate_decay",
    "average",
    "label_smoothing",
    "patience",
    "teacher_temperature",
    "teacher_share",
    "teacher_hints",
)


@dataclass(frozen=True)
class Option:
    """The command-line option of a field, and the values it accepts.

    low, high: the smallest and largest value; `above`, `below` exclude the bound
    itself. expected: the bounds in words, for the message that refuses a value.
    """

    help: str
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    expected: str = ""

    def accepts(self, value: Any) -> bool:
        """Whether a value is allowed; TypeError for a text in place of a number."""
        if self.choices:
            return value in self.choices
        return bool(self.low <= value <= self.high and self.above < value < self.below)


def option(default: Any, help: str, **bounds: Any) -> Any:
    """A dataclass field with its `Option`."""
    return field(default=default, metadata={"option": Option(help, **bounds)})


def refuse_out_of_bounds(record: Any) -> None:
    """Check every field of a dataclass that has an `Option`; EdgegraftError."""
    for spec in dataclasses.fields(record):
        bounds = spec.metadata.get("option")
        if bounds is None or not (bounds.choices or bounds.expected):
            continue
        value = getattr(record, spec.name)
        if value is None and spec.default is None:
            continue
        expected = bounds.expected or "one of " + ", ".join(bounds.choices)
        got = repr(value)
        integer = isinstance(spec.default, int)
        if isinstance(value, bool) or (integer and isinstance(value, float)):
            valid, expected = False, "a whole number"
        else:
            try:
                valid = value is not None and bounds.accepts(value)
            except TypeError:  # a text in place of a number, in run.json or in Python
                valid, got = False, f"the {type(value).__name__} {value!r}"
        if not valid:
            name = spec.name.replace("_", "-")
            raise EdgegraftError(f"expected --{name} to be {expected}, got {got}")


@dataclass(frozen=True)
class Settings:
    """The configuration of a run, validated on creation (EdgegraftError).

    Fractions are 0..1, rates are those of Adam. `cnn` holds the options of custom_cnn,
    `white` the white level of 16-bit channels, as detected in the photos.
    """

    backbone: str = option(
        "efficientnet_lite0",
        "pretrained network (list: edgegraft backbones), custom_cnn, or hub:HANDLE for "
        "a TF-Hub module, its address or a folder (default: auto, EfficientNet-Lite0 "
        "where its weights are installed, else a MobileNetV2 whose weights are here)",
        metavar="NAME",
    )
    size: int = option(
        224,
        "input width and height in pixels (default: 192 with --backbone auto, else the "
        "network's own, mostly 224; custom_cnn 96)",
        low=8,
        high=1024,
        expected="8 to 1024 pixels",
    )
    weights: str = option(
        "imagenet",
        "initial weights: imagenet, none or a file, .h5 or .pth (default: imagenet; "
        "custom_cnn: none)",
        metavar="W",
    )
    cnn: Mapping[str, Any] | None = None
    resize: str = option(
        "stretch",
        "stretch, crop or pad (default: stretch, as MediaPipe does)",
        choices=RESIZES,
    )
    filter: str = "bilinear"
    region: str | None = option(
        None,
        "the part of each photo to look at, in training and on the device: shares from "
        "0 to 1, or pixels of photos of one size (default: as data capture recorded "
        "it, else the whole photo)",
        metavar="X,Y,W,H",
    )
    unfreeze: str = option(
        "auto",
        "layers to fine-tune: none, top, all, a number of layers, or auto: the upper "
        "two thirds, kept as far as validation supports it (default)",
        metavar="WHAT",
    )
    augment: str = option(
        "standard",
        "augmentation of training photos (default: standard)",
        choices=tuple(PRESETS),
    )
    epochs: int = option(
        8,
        "at most this many epochs (default: 8, from scratch 24)",
        low=1,
        high=10_000,
        expected="1 to 10000",
    )
    batch: int = option(
        32,
        "photos in a batch (default: 32, from scratch 16)",
        low=1,
        high=4096,
        expected="1 to 4096 photos",
    )
    rate: float = option(
        SMALL_RATE,
        f"peak learning rate (default: {LARGE_RATE:g}, below {SMALL:,} parameters "
        f"{SMALL_RATE:g}, from scratch {FROM_SCRATCH['rate']:g})",
        above=0,
        high=1,
        expected="above 0 and at most 1",
    )
    rate_decay: float = option(
        1.0,
        "learning-rate multiplier of the lowest layers (default: 1)",
        metavar="FACTOR",
        above=0,
        high=1,
        expected="above 0 and at most 1",
    )
    average: float = option(
        1.0,
        "memory of the weights' exponential moving average (default: 1; 0 is off)",
        metavar="EPOCHS",
        low=0,
        high=1000,
        expected="0 to 1000 epochs",
    )
    label_smoothing: float = option(
        0.0,
        "spread this share of each target over all labels (default: 0; with 0.1 int8 "
        "files were farther from float32)",
        metavar="SHARE",
        low=0,
        below=1,
        expected="from 0 to below 1",
    )
    balance: str = option(
        "none",
        "unbalanced labels: class weights in the loss, or sampling each label equally "
        "often (default: none)",
        choices=BALANCES,
    )
    precision: str = option(
        "auto",
        "numbers to train in (default: auto, bfloat16 on GPUs that gain from it)",
        choices=PRECISIONS,
    )
    patience: int = option(
        8,
        "from scratch: stop after this many epochs without improvement (pretrained "
        f"networks train all --epochs; default: {FROM_SCRATCH['patience']})",
        low=1,
        expected="at least 1 epoch",
    )
    seed: int = option(
        0,
        "makes a run repeatable (default: 0)",
        low=0,
        below=2**31,
        expected="0 or more",
    )
    teacher: str | None = option(
        None,
        "a better run or .tflite whose soft predictions are learned (distillation)",
        metavar="RUN_OR_MODEL",
    )
    unlabelled: str | None = option(
        None,
        "photos without labels, of the same kind, for the teacher to label",
        metavar="DIR",
    )
    teacher_temperature: float = option(
        2.0,
        "temperature of the teacher's predictions (default: 2)",
        metavar="T",
        low=0.5,
        high=20,
        expected="0.5 to 20",
    )
    teacher_share: float = option(
        0.9,
        "weight of the teacher in the target; the rest is the label (default: 0.9)",
        metavar="WEIGHT",
        above=0,
        high=1,
        expected="above 0 and at most 1",
    )
    teacher_views: int = option(
        1,
        "augmented views of each photo that the teacher labels; an epoch is this many "
        "times longer (default: 1, the photo itself)",
        metavar="N",
        low=1,
        high=100,
        expected="1 to 100",
    )
    teacher_hints: float = option(
        0.0,
        "weight of matching the features of a teacher that is a run, beside its "
        f"predictions (default: {FROM_SCRATCH['teacher_hints']:g} from scratch, 0 for "
        "a pretrained network, which gains nothing from it)",
        metavar="WEIGHT",
        low=0,
        high=100,
        expected="0 to 100",
    )
    val: float = option(
        0.15,
        "fraction of the photos for validation (default: 0.15)",
        metavar="FRACTION",
        above=0,
        below=0.5,
        expected="a fraction above 0 and below 0.5",
    )
    test: float = option(
        0.15,
        "fraction of the photos for the test (default: 0.15)",
        metavar="FRACTION",
        above=0,
        below=0.5,
        expected="a fraction above 0 and below 0.5",
    )
    familiarity: str = option(
        "prototypes",
        "second output of the files: photos unlike the training photos are answered "
        "unknown (default: prototypes)",
        choices=FAMILIARITY,
    )
    negatives: str | None = option(
        None,
        "photos that show none of the labels and should be answered unknown",
        metavar="DIR",
    )

    white: int = FULL

    def __post_init__(self) -> None:
        for name in ("backbone", "weights", "unfreeze", "filter", "region", *_PATHS):
            value = getattr(self, name)
            optional = name in ("region", *_PATHS)
            if not (isinstance(value, str) or (value is None and optional)):
                raise EdgegraftError(f"expected --{name} to be a text, got {value!r}")
        if not (self.cnn is None or isinstance(self.cnn, Mapping)):
            raise EdgegraftError(
                "expected the options of custom_cnn as a table, such as "
                f"{{'filters': [16, 32]}}, got {self.cnn!r}"
            )
        if self.cnn is not None:
            from backbones import custom_cnn

            custom_cnn.from_mapping(self.cnn, "cnn")
        refuse_out_of_bounds(self)
        if self.region is not None:
            parse_region(self.region, "--region: ")
        if self.filter not in FILTERS:
            raise EdgegraftError(
                f"filter: expected one of {', '.join(FILTERS)}, got {self.filter!r}"
            )
        layer_count = self.unfreeze.isdecimal() and int(self.unfreeze) > 0
        if self.unfreeze not in UNFREEZE and not layer_count:
            raise EdgegraftError(
                f"expected --unfreeze to be one of {', '.join(UNFREEZE)} or a number "
                f"of layers above 0, got {self.unfreeze!r}"
            )
        if self.negatives is not None and self.familiarity == "none":
            raise EdgegraftError(
                "expected no --negatives with --familiarity none, got "
                f"{self.negatives!r}"
            )
        if self.unlabelled is not None and self.teacher is None:
            raise EdgegraftError(
                "expected --teacher with --unlabelled (to label those photos), got "
                f"--unlabelled {self.unlabelled} alone"
            )

    @property
    def recipe(self) -> InputRecipe:
        return InputRecipe(
            self.size,
            self.size,
            self.resize,
            self.filter,
            white=self.white,
            region=None if self.region is None else parse_region(self.region),
        )

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """From run.json; names that a later version may have added are ignored."""
        names = cls.__dataclass_fields__
        return cls(**{name: value for name, value in values.items() if name in names})

    @classmethod
    def for_network(
        cls, say: Callable[[str], None] | None = None, **values: Any
    ) -> Settings:
        """These settings, with the network's own defaults for the other fields.

        A pretrained backbone is fine-tuned gently for a few epochs, a network from
        scratch is trained for many. Folders become absolute, so that `--resume` works
        from any directory. `say` prints which network `--backbone auto` chose.
        EdgegraftError for an unknown backbone or a bad value.
        """
        from backbones import registry

        backbone = values.get("backbone", registry.AUTO)
        if backbone in (registry.AUTO, registry.SMALL):
            if values.get("weights", cls.weights) != "imagenet":
                raise EdgegraftError(
                    "expected --backbone NAME with --weights "
                    f"{values['weights']}, got --backbone {backbone}"
                )
            # a bad value is refused before weights are looked for
            cls(**{name: values[name] for name in values if name != "backbone"})
            choice = registry.choose_pretrained(
                values.get("size"), small=backbone == registry.SMALL
            )
            values |= {"backbone": choice.backbone.name, "size": choice.size}
            if say is not None:
                say(choice.line)
        values["backbone"] = registry.full_name(values["backbone"])
        if values.get("cnn") is not None and values["backbone"] != "custom_cnn":
            raise EdgegraftError(
                "expected the backbone custom_cnn with the options of a CNN, got "
                f"{values['backbone']}"
            )
        for name in _PATHS:
            if values.get(name) is not None:
                values[name] = str(Path(values[name]).resolve())
        return cls(**{**_network_defaults(values), **values})


def _network_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    from backbones import registry

    record = registry.get(values["backbone"])
    size = {"size": record.default_size}
    if record.name == "custom_cnn" or values.get("weights") == "none":
        return {**FROM_SCRATCH, **size}
    small = record.parameters is not None and record.parameters < SMALL
    return {"rate": SMALL_RATE if small else LARGE_RATE, **size}


def without_effect(settings: Settings) -> list[str]:
    """Options, as typed, that a run without fine-tuning does not use.

    A value that equals the default is not listed.
    """
    default = Settings.for_network(backbone=settings.backbone, weights=settings.weights)
    augmented_views = settings.teacher_views > 1
    unused = [
        f"--{name.replace('_', '-')} {getattr(settings, name)}"
        for name in _EPOCH_SETTINGS
        if getattr(settings, name) != getattr(default, name)
        and not (name == "augment" and augmented_views)
    ]
    if settings.balance == "sampling":
        unused.append("--balance sampling")
    if settings.teacher and not augmented_views and settings.unlabelled is None:
        unused.append("--teacher")
    return unused
