"""The model card: what a `.tflite` file says about itself.

A card lies as ``card.json`` in the zip that TFLite Metadata appends to the file.
`read_card` returns it, or None for a file without one.

It does not know: how a card is written into a file (quantize/tflite/metadata.py), or
whether what it says is true.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from edge.errors import EdgegraftError, ModelError
from edge.preprocess import InputRecipe

if TYPE_CHECKING:
    import zipfile

SCHEMA = 1
CARD_NAME = "card.json"
LABELS_NAME = "labels.txt"

_EMPTY: Mapping[str, Any] = MappingProxyType({})
_PROBABILITIES: Mapping[str, str] = MappingProxyType({"probabilities": "probabilities"})


@dataclass(frozen=True)
class ModelCard:
    """Labels, input recipe, thresholds, provenance and measured figures.

    `outputs` maps a role (``probabilities``, ``familiarity``) to the name of the
    signature's output. `model_sha256` is of the flatbuffer without the zip.
    """

    labels: tuple[str, ...]
    input: InputRecipe
    variant: str
    outputs: Mapping[str, str] = field(default_factory=lambda: _PROBABILITIES)
    schema: int = SCHEMA
    name: str = "model"
    temperature: float = 1.0
    familiarity_threshold: float | None = None
    provenance: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    measured: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    model_sha256: str | None = None

    def __post_init__(self) -> None:
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

        try:
            record = json.loads(text)
        except ValueError as error:
            raise ModelError(f"model card: expected JSON, got {error}") from None
        if not isinstance(record, dict):
            raise ModelError(f"model card: expected an object, got {record!r:.40}")
        schema = record.get("schema")
        if type(schema) is not int or not 1 <= schema <= SCHEMA:
            raise ModelError(
                f"model card: expected schema 1 to {SCHEMA}, got {schema!r}; "
                "a newer edgegraft wrote this file, update this one"
            )
        known = {f.name for f in fields(cls)}
        values = {key: value for key, value in record.items() if key in known}
        try:
            values["labels"] = _strings(values.get("labels"))
            values["input"] = InputRecipe.from_dict(values.get("input"))
            values.setdefault("variant", "unknown")
            for name in ("outputs", "provenance", "measured"):
                if not isinstance(values.setdefault(name, {}), dict):
                    raise ModelError(f"expected {name} to be an object")
            values["outputs"] = values["outputs"] or dict(_PROBABILITIES)
            _numbers(values)
            return cls(**values)
        except EdgegraftError as error:
            text = str(error)
            raise ModelError(
                text if text.startswith("model card") else f"model card: {text}"
            ) from None


def read_card(model: str | os.PathLike[str] | bytes) -> ModelCard | None:
    """The card inside a model file, or None when the file has none.

    ModelError when there is a card that cannot be read, or no such file.
    """
    text = read_attached(model, CARD_NAME)
    return None if text is None else ModelCard.from_json(text)


def read_labels(model: str | os.PathLike[str] | bytes) -> tuple[str, ...] | None:
    """The labels of a file with TFLite Metadata, or None when it has none."""
    text = read_attached(model, LABELS_NAME)
    if text is None:
        return None
    return tuple(text.decode("utf-8", "replace").splitlines())


def check_digest(model: bytes, card: ModelCard, where: str) -> None:
    """ModelError when the model's bytes are not those the card was written for."""
    if card.model_sha256 is None:
        return
    import hashlib

    with _attached(model) as attached:
        end = min(entry.header_offset for entry in attached.infolist())
    found = hashlib.sha256(memoryview(model)[:end]).hexdigest()
    if found != card.model_sha256:
        raise ModelError(
            f"{where}: damaged model, its digest is {found[:12]} and its card says "
            f"{card.model_sha256[:12]}; copy or export it again"
        )


def digest(model: bytes) -> str:
    """What a model is known by: sha256 of its flatbuffer, as its card says (figures
    may be added to the card), of the whole file where it has no card."""
    card = read_card(model)
    if card is not None and card.model_sha256 is not None:
        return card.model_sha256
    import hashlib

    return hashlib.sha256(model).hexdigest()


def read_attached(model: str | os.PathLike[str] | bytes, name: str) -> bytes | None:
    """One file of the zip behind the flatbuffer, or None when it isn't there."""
    import zipfile

    try:
        with _attached(model) as attached:
            return attached.read(name)
    except KeyError:
        return None
    except OSError as error:
        raise ModelError(f"{model!s:.200}: {error.strerror or error}") from None
    except zipfile.BadZipFile as error:
        if "not a zip file" in str(error):
            return None
        raise ModelError(
            f"damaged {name} in the model file ({error}); copy or export it again"
        ) from None
    except (RuntimeError, NotImplementedError, ValueError, EOFError) as error:
        raise ModelError(
            f"cannot read {name} in the model file ({error}); export it again"
        ) from None


def _attached(model: str | os.PathLike[str] | bytes) -> zipfile.ZipFile:
    import io
    import zipfile

    return zipfile.ZipFile(io.BytesIO(model) if isinstance(model, bytes) else model)


def _strings(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise ModelError(f"expected labels to be a list of names, got {value!r:.80}")
    return tuple(value)


def _numbers(values: dict[str, Any]) -> None:
    for name in ("temperature", "familiarity_threshold"):
        value = values.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float, type(None))):
            raise ModelError(f"expected {name} to be a number, got {value!r:.40}")
    if values.get("temperature", 1.0) is None:
        raise ModelError("expected temperature to be a number, got null")
