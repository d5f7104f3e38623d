"""An audit on disk: audit.json for programs, audit.csv for people with a spreadsheet,
audit.html to look at; and audit.csv read back, to leave photos out.

audit.csv has a line for each photo. Its column `exclude` says yes for copies that can
go without loss, and `reasons` why; edit it as you like, then pass it to
--exclude-from.
"""

import csv
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data.audit.audit import Audit
from data.audit.findings import BOTH_WRONG, Finding
from data.photos import PhotoFolder
from edge.errors import EdgegraftError, reason_of
from edge.files import sha256, write_atomic, write_csv
from edge.text import printable

NAMES = ("audit.json", "audit.csv", "audit.html")
COLUMNS = (
    *("path", "label", "part", "sha256", "exclude", "findings", "reasons", "format"),
    *("mode", "width", "height", "turn", "blur", "low", "high", "deviation"),
)
FACTS = COLUMNS[COLUMNS.index("format") :]


@dataclass(frozen=True)
class Exclusion:
    """What audit.csv leaves out: paths, and the digests all photos had then."""

    source: str  # the file's name
    sha256: str  # of the file
    paths: frozenset[Path]
    digests: Mapping[Path, str]
    content: bytes  # of the file, for a run to keep

    def apply(self, folder: PhotoFolder) -> PhotoFolder:
        """`folder` without these photos."""
        photos = tuple(p for p in folder.photos if p.path not in self.paths)
        return replace(folder, photos=photos)

    def changed(self, digests: Mapping[Path, str]) -> list[Path]:
        """Photos whose bytes differ from those that were audited."""
        audited = self.digests
        return [path for path, d in digests.items() if audited.get(path, d) != d]

    def to_dict(self) -> dict[str, Any]:
        """For a run's record."""
        return {"file": self.source, "sha256": self.sha256, "photos": len(self.paths)}


def write(audit: Audit, folder: Path, *, overwrite: bool = False) -> Path:
    """Write the three files into `folder`, each whole or not at all; the page's path.

    EdgegraftError when one is there already and `overwrite` is not asked for, or when
    they cannot be written.
    """
    from data.audit.html import page

    refuse(folder, overwrite)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        record = json.dumps(audit.to_dict(), indent=1, ensure_ascii=False)
        write_atomic(folder / "audit.json", _encoded(record + "\n"))
        _write_csv(audit, folder / "audit.csv")
        write_atomic(folder / "audit.html", _encoded(page(audit)))
    except OSError as error:
        raise EdgegraftError(
            f"{printable(folder)}: expected a place to write the audit to, got: "
            f"{error.strerror}"
        ) from None
    return folder / "audit.html"


def refuse(folder: Path, overwrite: bool) -> None:
    """EdgegraftError when an audit lies in `folder` and may not be replaced."""
    existing = [name for name in NAMES if os.path.lexists(folder / name)]
    if existing and not overwrite:
        raise EdgegraftError(
            f"{printable(folder)}: expected a folder without an audit, got one with "
            f"{existing[0]}; choose another or add --overwrite"
        )


def read_exclusion(path: str | os.PathLike[str], folder: PhotoFolder) -> Exclusion:
    """Read audit.csv: which photos of `folder` to leave out.

    EdgegraftError, with the line, when it is missing, no such file, or about photos
    of another folder.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig", "surrogateescape")
        rows = list(csv.DictReader(text.splitlines(keepends=True)))
    except (OSError, csv.Error) as error:
        raise EdgegraftError(
            f"{printable(path)}: expected audit.csv, got: {reason_of(error)}"
        ) from None
    required = ("path", "sha256", "exclude")
    if not rows or not set(required) <= rows[0].keys():
        got = ", ".join(str(name) for name in (rows[0] if rows else ())) or "nothing"
        raise EdgegraftError(
            f"{printable(path)}: expected the columns {', '.join(required)}, got "
            f"{got!r:.80}"
        )
    paths, digests = set(), {}
    for line, row in enumerate(rows, 2):
        exclude = (row["exclude"] or "").strip().lower()
        if exclude not in ("yes", "no", ""):
            raise EdgegraftError(
                f"{printable(path)}, line {line}: expected yes, no or nothing in the "
                f"column exclude, got {exclude!r:.40}"
            )
        photo = folder.root / (row["path"] or "")
        if exclude == "yes":
            paths.add(photo)
        if row["sha256"]:
            digests[photo] = row["sha256"]
    in_folder = frozenset(photo.path for photo in folder.photos if photo.path in paths)
    if paths and not in_folder:
        raise EdgegraftError(
            f"{printable(path)}: expected photos of {printable(folder.root)}, got none "
            f"of them (first: {printable(min(paths))}); audit this folder again"
        )
    return Exclusion(path.name, sha256(data), in_folder, digests, data)


def _write_csv(audit: Audit, path: Path) -> None:
    root = audit.folder.root
    reasons: dict[Path, list[tuple[str, str]]] = {}  # with the finding's kind
    for finding in audit.findings:
        for photo_path, reason in _reasons(finding, root):
            reasons.setdefault(photo_path, []).append((finding.kind, reason))
    rows = []
    for photo in audit.folder.photos:
        facts = audit.fact_store.get(photo.path)
        photo_reasons = reasons.get(photo.path, [])
        row = {
            "path": photo.path.relative_to(root).as_posix(),
            "label": photo.label,
            "part": photo.part or "",
            "sha256": audit.digests.get(photo.path, ""),
            "exclude": "yes" if photo.path in audit.excluded else "no",
            "findings": " ".join(dict.fromkeys(kind for kind, _ in photo_reasons)),
            "reasons": "; ".join(reason for _, reason in photo_reasons),
        }
        if facts is not None:
            row |= {name: getattr(facts, name) for name in FACTS}
        rows.append(row)
    write_csv(path, COLUMNS, ([row.get(name, "") for name in COLUMNS] for row in rows))


def _reasons(finding: Finding, root: Path) -> Iterator[tuple[Path, str]]:
    """Each photo that the finding is about, and the reason for that photo."""

    def inside(path: Path) -> str:
        return path.relative_to(root).as_posix()

    others = ", ".join(map(inside, finding.others))
    yield finding.path, f"{finding.reason} {others}".rstrip()
    if finding.kind in BOTH_WRONG:
        for other in finding.others:
            if other != finding.path:  # a list may name one file under two labels
                yield other, f"{inside(finding.path)}: {finding.reason} this one"


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
