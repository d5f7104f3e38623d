"""All networks, found by name; `hub:HANDLE` names a module of TF-Hub."""

from __future__ import annotations

import difflib
import re

from backbones import custom_cnn, efficientnet, efficientnet_lite, hub, mobilenet
from backbones.record import HUB, Backbone
from edge.errors import EdgegraftError

_SHORT = 40  # characters of a module's handle in a folder's name
_RECORDS = {
    record.name: record
    for family in (efficientnet_lite, mobilenet, efficientnet, custom_cnn)
    for record in family.RECORDS
}


def names() -> tuple[str, ...]:
    """All names, families together, small first."""
    return tuple(_RECORDS)


def get(name: str) -> Backbone:
    """The record of that name. EdgegraftError that lists what exists otherwise."""
    if name.startswith(HUB):
        return hub.record(name)
    if name in _RECORDS:
        return _RECORDS[name]
    similar = _similar(name)
    if not similar:
        raise EdgegraftError(
            f"expected a known backbone, got {name!r} (known: "
            f"{', '.join(_RECORDS)}, and {HUB}HANDLE for a module of TF-Hub)"
        )
    suggestion = similar[0] if len(similar) == 1 else f"one of {', '.join(similar)}"
    raise EdgegraftError(
        f"expected a known backbone, got {name!r}; did you mean {suggestion}? "
        "(edgegraft backbones lists all)"
    )


def _similar(name: str) -> list[str]:
    """All networks of a family, however it is spelt; else the most similar name."""

    def plain(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.lower())

    prefix = plain(name)
    family = [known for known in _RECORDS if prefix and plain(known).startswith(prefix)]
    return family or difflib.get_close_matches(name, _RECORDS, n=1, cutoff=0.5)


def full_name(name: str) -> str:
    """The name of the same network from any folder: a module's path is resolved."""
    return hub.full_name(name) if name.startswith(HUB) else name


def short_name(name: str) -> str:
    """A name for a folder: of a module, the end of its handle."""
    if not name.startswith(HUB):
        return name
    plain = re.sub(r"[^A-Za-z0-9.]+", "_", name[len(HUB) :]).strip("_.")
    return f"hub-{plain[-_SHORT:].strip('_.')}"
