"""What a training run is asked to do: one frozen record, checked before any work.

Does not know: photos, networks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data.augment import preset
from edge.errors import EdgegraftError
from edge.preprocess import FILTERS, RESIZES, InputRecipe
from finetune.loop.examples import BALANCES
from finetune.loop.precision import PRECISIONS

FAMILIARITY = ("prototypes", "none")
UNFREEZE = ("auto", "none", "top", "all")  # or a number of layers


@dataclass(frozen=True)
class Settings:
    """The configuration of a run; what is None is decided by the backbone.

    size: pixels of the square input. unfreeze: which part of a pretrained backbone is
    trained after the probe. rate: peak learning rate of Adam
    (`finetune.defaults` has one for each network). val, test: fractions of
    the photos, where the user gave no such part. patience: epochs without a better
    validation result before training from scratch stops. rate_decay: the rate of the
    lowest trained layers, as a fraction of the head's. average: memory of the weights'
    moving average, in epochs; 0 is off. balance: how unbalanced classes are met.
    precision: the numbers it is trained in; what is kept is float32. familiarity: how a
    photo unlike the training photos is told. negatives: a folder of examples of what is
    not wanted. teacher: a run folder or `.tflite` whose soft answers are learnt;
    unlabelled: a folder of photos that it answers, too; teacher_*: see
    `finetune.distill.lesson` and `finetune.distill.hints`.
    """

    backbone: str = "mobilenet_v2_0.35"
    size: int = 224
    weights: str = "imagenet"
    cnn: Mapping[str, Any] | None = None
    resize: str = "stretch"
    filter: str = "bilinear"
    unfreeze: str = "auto"
    augment: str = "standard"
    epochs: int = 8
    batch: int = 32
    rate: float = 2e-4
    rate_decay: float = 1.0
    average: float = 1.0
    label_smoothing: float = 0.1
    balance: str = "none"
    precision: str = "auto"
    patience: int = 8
    seed: int = 0
    teacher: str | None = None
    unlabelled: str | None = None
    teacher_temperature: float = 2.0
    teacher_share: float = 0.9
    teacher_views: int = 1
    teacher_hints: float = 0.0
    val: float = 0.15
    test: float = 0.15
    familiarity: str = "prototypes"
    negatives: str | None = None

    def __post_init__(self) -> None:
        def expect(option: str, what: str, got: object, ok: bool) -> None:
            if not ok:
                raise EdgegraftError(f"expected --{option} to be {what}, got {got!r}")

        choices = (
            ("resize", self.resize, RESIZES),
            ("filter", self.filter, FILTERS),
            ("balance", self.balance, BALANCES),
            ("familiarity", self.familiarity, FAMILIARITY),
            ("precision", self.precision, PRECISIONS),
        )
        for name, value, known in choices:
            expect(name, "one of " + ", ".join(known), value, value in known)
        layers = self.unfreeze.isdecimal() and int(self.unfreeze) > 0
        expect(
            "unfreeze",
            "one of " + ", ".join(UNFREEZE) + " or a number of layers above 0",
            self.unfreeze,
            self.unfreeze in UNFREEZE or layers,
        )
        expect("size", "8 to 1024 pixels", self.size, 8 <= self.size <= 1024)
        expect("epochs", "1 to 10000", self.epochs, 1 <= self.epochs <= 10_000)
        expect("batch", "1 to 4096 photos", self.batch, 1 <= self.batch <= 4096)
        smoothing = self.label_smoothing
        expect("label-smoothing", "from 0 to below 1", smoothing, 0 <= smoothing < 1)
        preset(self.augment)
        if self.negatives is not None:
            where = "left out with --familiarity none"
            expect("negatives", where, self.negatives, self.familiarity != "none")
        expect("rate", "above 0 and at most 1", self.rate, 0 < self.rate <= 1)
        expect(
            "rate-decay",
            "above 0 and at most 1",
            self.rate_decay,
            0 < self.rate_decay <= 1,
        )
        expect("average", "0 to 1000 epochs", self.average, 0 <= self.average <= 1000)
        expect("patience", "at least 1 epoch", self.patience, self.patience >= 1)
        expect("seed", "0 or more", self.seed, 0 <= self.seed < 2**31)
        share, degrees = self.teacher_share, self.teacher_temperature
        times = self.teacher_views
        expect("teacher-share", "above 0 and at most 1", share, 0 < share <= 1)
        expect("teacher-views", "1 to 100", times, 1 <= times <= 100)
        hints = self.teacher_hints
        expect("teacher-hints", "0 to 100", hints, 0 <= hints <= 100)
        expect("teacher-temperature", "0.5 to 20", degrees, 0.5 <= degrees <= 20)
        if self.unlabelled is not None and self.teacher is None:
            raise EdgegraftError(
                "expected --teacher with --unlabelled (somebody has to answer those "
                f"photos), got --unlabelled {self.unlabelled} alone"
            )
        for name, part in (("val", self.val), ("test", self.test)):
            expect(name, "a fraction above 0 and below 0.5", part, 0 < part < 0.5)

    @property
    def recipe(self) -> InputRecipe:
        return InputRecipe(self.size, self.size, self.resize, self.filter)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})
