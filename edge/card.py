"""The model card: what a `.tflite` file says about itself.

A card lies as ``card.json`` in the zip that TFLite Metadata appends to the file;
`ModelFile.card` reads it, quantize/tflite/metadata.py writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from edge.errors import EdgegraftError, ModelError
from edge.preprocess import InputRecipe

if TYPE_CHECKING:
    import zipfile

SCHEMA = 2  # the newest that is read
_PLAIN, _WITH_REGION = 1, 2  # what is written: readers of 1 know no region
CARD_NAME = "card.json"
LABELS_NAME = "labels.txt"
_MAX_BYTES = 4 << 20  # 100,000 labels; a card has some thousands

_EMPTY: Mapping[str, Any] = MappingProxyType({})
_PROBABILITIES: Mapping[str, str] = MappingProxyType({"probabilities": "probabilities"})


@dataclass(frozen=True)
class ModelCard:
    """Labels, input recipe, thresholds, provenance and measured figures.

    `outputs` maps a role (``probabilities``, ``familiarity``) to the name of the
    signature's output. `familiarity_threshold_unsmoothed` is for programs that shrink
    photos without smoothing, as MediaPipe does. `model_sha256` is of the flatbuffer
    without the zip.
    """

    labels: tuple[str, ...]
    input: InputRecipe
    variant: str
    outputs: Mapping[str, str] = field(default_factory=lambda: _PROBABILITIES)
    schema: int = _PLAIN
    name: str = "model"
    temperature: float = 1.0
    familiarity_threshold: float | None = None
    familiarity_threshold_unsmoothed: float | None = None
    provenance: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    measured: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    model_sha256: str | None = None

    def __post_init__(self) -> None:
        if self.input.region is not None:
            object.__setattr__(self, "schema", _WITH_REGION)
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise ModelError(
                f"model card: expected two or more different labels, "
                f"got {list(self.labels)!r:.80}"
            )
        if "probabilities" not in self.outputs:
            raise ModelError(
                f"model card: expected outputs to name probabilities, "
                f"got {dict(self.outputs)!r:.80}"
            )

    def to_json(self) -> str:
        import json

        record = {f.name: getattr(self, f.name) for f in fields(self)}
        record["labels"] = list(self.labels)
        record["input"] = self.input.to_dict()
        for name in ("outputs", "provenance", "measured"):
            record[name] = dict(record[name])
        return json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> ModelCard:
        """The card of a JSON text; unknown keys are left out, ModelError otherwise."""
        import json

        from edge import records

        content = text if isinstance(text, bytes) else text.encode()
        try:
            record = records.parse_record(content, {}, "model card", _MAX_BYTES)
        except EdgegraftError as error:
            raise ModelError(str(error)) from None
        schema = record.get("schema")
        if type(schema) is not int or not 1 <= schema <= SCHEMA:
            raise ModelError(
                f"model card: expected schema 1 to {SCHEMA}, got {schema!r}; "
                "a newer edgegraft wrote this file, update this one"
            )
        names = {field.name for field in fields(cls)}
        values = {key: value for key, value in record.items() if key in names}
        try:
            records.check(values, records.CARD, "model card")
            for name, value in values.items():
                try:
                    json.dumps(value, ensure_ascii=False).encode()
                except UnicodeEncodeError:  # no file can be written with it
                    raise ModelError(
                        f"model card: {name}: expected Unicode text, got a part of a "
                        "character"
                    ) from None
            if values.get("labels") is None:
                raise ModelError("model card: labels: expected a list, got none")
            values = _without_null(values)
            if "measured" in values:
                parts = _without_null(values["measured"]).items()
                values["measured"] = {part: _without_null(v) for part, v in parts}
            values["labels"] = tuple(values["labels"])
            values["input"] = InputRecipe.from_dict(values.get("input"))
            values.setdefault("variant", "unknown")
            values["outputs"] = values.get("outputs") or dict(_PROBABILITIES)
            return cls(**values)
        except EdgegraftError as error:
            message = str(error).removeprefix("model card: ")
            raise ModelError(f"model card: {message}") from None


def attached(model: bytes) -> zipfile.ZipFile | None:
    """The zip behind a flatbuffer; None where there is none that can be read."""
    import io
    import zipfile

    try:
        archive = zipfile.ZipFile(io.BytesIO(model))
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return None
    return archive if archive.infolist() else None


def flatbuffer_of(model: bytes, archive: zipfile.ZipFile | None) -> bytes:
    """The file without the zip behind it: what interpreters get."""
    entries = archive.infolist() if archive else []
    start = min((entry.header_offset for entry in entries), default=0)
    return model[:start] if 0 < start < len(model) else model


def digest(model: bytes) -> str:
    """What a model is known by: sha256 of its flatbuffer. Figures may be added to the
    card behind it."""
    from edge.files import sha256

    return sha256(flatbuffer_of(model, attached(model)))


def _without_null(record: dict[str, Any]) -> dict[str, Any]:
    """A field that is null counts as absent."""
    return {name: value for name, value in record.items() if value is not None}
