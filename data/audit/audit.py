"""What is wrong with a folder of photos, before a minute is spent on training.

Every photo is decoded in full. A finding names one photo, what kind of trouble it has
and which other photos share it; `data.audit.findings` lists the kinds, the gravest
first, and a new check is one more entry and one more function there (of single photos)
or in `data.audit.copies` (of several). Nothing is changed or deleted. Only photos that
cannot be decoded are left out of training, unless the user passes audit.csv to
--exclude-from.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from data.audit import copies
from data.audit.facts import FactCache, FactStore
from data.audit.findings import KINDS, Finding, Kind, check_photos
from data.batches import read_photos
from data.photos import Photo, PhotoFolder, count
from data.split import shortages
from edge.text import plural, printable

FEW = 30  # usable photos of a label
UNEVEN = 5  # times as many photos of one label as of another
_ORDER = [kind.name for kind in KINDS]
LISTED = 10  # findings of a kind that the terminal shows
NAMED = 5  # labels or obstacles that one line names
ROWS = 20  # labels that the terminal's table shows


@dataclass(frozen=True)
class Audit:
    """The findings, the gravest kind first, and the digests of what can be read.

    `near_duplicates`: pairs that `make_split` keeps on one side. `in_large_groups`:
    photos that look alike, too many for one side.
    """

    folder: PhotoFolder
    findings: tuple[Finding, ...]
    digests: Mapping[Path, str]
    fact_store: FactStore = field(default_factory=FactStore)
    near_duplicates: tuple[tuple[Path, Path], ...] = ()
    in_large_groups: frozenset[Path] = frozenset()

    def __repr__(self) -> str:
        counts = Counter(finding.kind for finding in self.findings)
        kinds = ", ".join(f"{kind}: {count}" for kind, count in counts.items())
        photos = plural(len(self.folder.photos), "photo")
        summary = [f"cannot train: {line}" for line in self.obstacles[:1]]
        if kinds or not summary:
            summary.append(kinds or "no findings")
        return f"<Audit of {photos} in {self.folder.root}: {'; '.join(summary)}>"

    def __str__(self) -> str:
        return "\n".join(self.lines())

    @classmethod
    def from_pass(
        cls,
        folder: PhotoFolder,
        digests: Mapping[Path, str],
        failures: Sequence[tuple[Path, str]],
        fact_store: FactStore | None = None,
        missing: Mapping[Path, float] | None = None,
    ) -> "Audit":
        """From the results of `read_photos`: a digest or a reason for each photo, and
        the fraction of rows that is `missing` from those that are cut off."""
        fact_store = FactStore() if fact_store is None else fact_store
        faults = list(check_photos(folder.photos, fact_store))
        groups = copies.same_files(folder.photos, digests, faults)
        pairs = copies.near_pairs(groups, fact_store, faults)
        near_duplicates, large_groups = copies.split_links(
            folder.photos, digests, pairs
        )
        findings = [Finding("unreadable", path, reason) for path, reason in failures]
        findings += [
            Finding("cut-off", path, _cut_off(fraction))
            for path, fraction in (missing or {}).items()
        ]
        findings += copies.shared_files(groups)
        findings += [
            finding
            for finding in copies.near_copies(pairs)
            if finding.exclude or finding.path not in large_groups
        ]
        findings += faults
        findings.sort(key=lambda finding: (_ORDER.index(finding.kind), finding.path))
        return cls(
            folder, tuple(findings), digests, fact_store, near_duplicates, large_groups
        )

    def usable(self, photos: Sequence[Photo]) -> tuple[Photo, ...]:
        """Those of `photos` that no finding leaves out."""
        return tuple(photo for photo in photos if photo.path not in self._left_out)

    @cached_property
    def usable_digests(self) -> dict[Path, str]:
        """The digests of the usable photos, as `make_split` wants them."""
        return {p.path: self.digests[p.path] for p in self.usable(self.folder.photos)}

    @cached_property
    def counts(self) -> dict[str, dict[str, int]]:
        """Column -> label -> count: all photos, the usable, those of each part."""
        folder, usable = self.folder, self.usable(self.folder.photos)
        columns = {"photos": folder.photos, "usable": usable}
        for part in folder.parts:
            columns[part] = tuple(photo for photo in usable if photo.part == part)
        return {name: count(photos, folder.labels) for name, photos in columns.items()}

    @cached_property
    def obstacles(self) -> list[str]:
        """Why the photos cannot be trained on, a line each; empty when they can."""
        lines = shortages(self.folder.photos, self.folder.labels, self.usable_digests)
        if len(self.folder.labels) < 2:
            only = self.folder.labels[0]
            lines.insert(
                0, f"expected two labels or more, got only {printable(only)!r}"
            )
        return lines

    @cached_property
    def warnings(self) -> list[str]:
        """What is wrong with the labels as a whole, a line each."""
        counts = self.counts["usable"]
        lines = []
        if self.in_large_groups:
            alike, photos = len(self.in_large_groups), sum(counts.values())
            quantity = "most photos" if 2 * alike > photos else "some photos"
            lines.append(
                f"{quantity} look alike ({alike:,} of {photos:,}), as from a camera "
                "that does not move: the split takes them in runs by name, and its "
                "test part is easier than reality; test on photos of other days"
            )
        if not self.fact_store.comparable:
            lines.append(
                "near copies were not looked for, as OpenCV is not installed; pip "
                "install opencv-python-headless"
            )
        few = sorted((n, label) for label, n in counts.items() if n < FEW)
        if len(few) == 1:
            n, label = few[0]
            lines.append(
                f"label {printable(label)!r} has {plural(n, 'usable photo')}; "
                f"with fewer than {FEW} too few are left to measure how well it is "
                "recognized"
            )
        elif few:
            fewest = ", ".join(f"{printable(label)} {n}" for n, label in few[:NAMED])
            more = ", ..." if len(few) > NAMED else ""
            lines.append(
                f"{len(few):,} labels have fewer than {FEW} usable photos ({fewest}"
                f"{more}): too few are left to measure how well each is recognized"
            )
        rare = min(counts, key=counts.__getitem__)
        common = max(counts, key=counts.__getitem__)
        if counts[common] >= UNEVEN * max(counts[rare], 1):
            lines.append(
                f"labels are uneven: {counts[common]:,} photos of "
                f"{printable(common)!r}, {counts[rare]:,} of {printable(rare)!r}: look "
                "at the recall of the rare one, not at the accuracy alone"
            )
        return lines

    @property
    def kinds(self) -> list[Kind]:
        """The kinds of trouble that were found, the gravest first."""
        names = {finding.kind for finding in self.findings}
        return [kind for kind in KINDS if kind.name in names]

    def of_kind(self, name: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.kind == name]

    def lines(self) -> list[str]:
        """The report for a terminal; what matters comes first."""
        return list(_lines(self))

    def brief(self, *, examples: bool = True) -> list[str]:
        """The report for a run: one line where there is nothing to look at.

        Without `examples`, no photo is named and no label counted.
        """
        if self.findings or self.warnings or self.folder.notes():
            return list(_lines(self, examples=examples))
        return [f"audit: {plural(len(self.folder.photos), 'photo')}, nothing found"]

    def to_dict(self) -> dict[str, Any]:
        """The report for a program. Paths are relative to `root`, with slashes."""
        root = self.folder.root
        return {
            "root": str(root),
            "trainable": not self.obstacles,
            "obstacles": self.obstacles,
            "warnings": self.warnings,
            "photos": len(self.folder.photos),
            "usable": len(self.usable(self.folder.photos)),
            "labels": {
                label: {name: column[label] for name, column in self.counts.items()}
                for label in self.folder.labels
            },
            "findings": [
                {
                    "kind": finding.kind,
                    "path": inside(finding.path, root),
                    "reason": finding.reason,
                    "others": [inside(other, root) for other in finding.others],
                    "exclude": finding.exclude,
                }
                for finding in self.findings
            ],
            "left_out": {
                "hidden": len(self.folder.hidden),
                "linked_folders": len(self.folder.linked),
                "not_photos": len(self.folder.ignored),
                "unlabelled": len(self.folder.unlabelled),
            },
            "notes": self.folder.notes(),
        }

    @cached_property
    def excluded(self) -> frozenset[Path]:
        """The photos that audit.csv proposes to leave out: copies that can go without
        loss, and what cannot be read. Photos of a test part that the user made are not
        proposed: the score would change.
        """
        parts = {photo.path: photo.part for photo in self.folder.photos}
        spare = {f.path for f in self.findings if f.exclude and parts[f.path] != "test"}
        return self._left_out | spare

    @cached_property
    def _left_out(self) -> frozenset[Path]:
        kinds = {kind.name for kind in KINDS if kind.leaves_out}
        return frozenset(f.path for f in self.findings if f.kind in kinds)


def audit(
    folder: PhotoFolder,
    *,
    workers: int | None = None,
    fact_cache: FactCache | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Decode every photo of `folder` that `fact_cache` does not know, and report.

    A JPEG's decoder may stop at a smaller scale, but the whole file is parsed.
    """
    digests: dict[Path, str] = {}
    failures: list[tuple[Path, str]] = []
    paths = list(dict.fromkeys(photo.path for photo in folder.photos))
    fact_store = FactStore(len(paths))
    missing: dict[Path, float] = {}
    for reading in read_photos(
        paths,
        with_facts=True,
        white=folder.white,
        fact_cache=fact_cache,
        workers=workers,
        progress=progress,
    ):
        if reading.missing is not None:
            missing[reading.path] = reading.missing
        if reading.facts is None:
            failures.append((reading.path, reading.reason))
        else:
            digests[reading.path] = reading.sha256
            fact_store.add(reading.path, reading.facts)
    return Audit.from_pass(folder, digests, failures, fact_store, missing)


def _cut_off(fraction: float) -> str:
    """What is missing from a JPEG without its end, `fraction` of its rows."""
    percent = f"{fraction:.0%}"
    return "its end marker is missing" if percent == "0%" else f"last {percent} missing"


def _lines(audit: Audit, *, examples: bool = True) -> Iterator[str]:
    folder, usable = audit.folder, audit.usable(audit.folder.photos)
    if examples or len(usable) != len(folder.photos):
        yield (
            f"{folder.source or printable(folder.root)}: "
            f"{plural(len(folder.photos), 'photo')}, "
            f"{len(usable):,} usable, {plural(len(folder.labels), 'label')}"
        )
    for obstacle in audit.obstacles[:NAMED]:
        yield f"cannot train: {obstacle}"
    if len(audit.obstacles) > NAMED:
        yield f"cannot train: {len(audit.obstacles) - NAMED:,} more lines like these"
    for kind in audit.kinds:
        findings = audit.of_kind(kind.name)
        yield f"{len(findings):,} {kind.sentence(len(findings))}"
        if not examples:
            continue
        for finding in findings[:LISTED]:
            others = ", ".join(inside(other, folder.root) for other in finding.others)
            path = inside(finding.path, folder.root)
            yield f"  {path}: {finding.reason} {others}".rstrip()
        if len(findings) > LISTED:
            yield f"  and {len(findings) - LISTED:,} more (--json lists all)"
    if examples and not audit.findings:
        yield "nothing damaged, no file twice"
    for warning in audit.warnings:
        yield f"warning: {warning}"
    if examples:
        yield from _table(audit)
    for note in folder.notes():
        yield f"note: {note}"


def _table(audit: Audit) -> Iterator[str]:
    labels = audit.folder.labels
    width = max(map(len, ("label", *labels)))
    yield "label".ljust(width) + "".join(f"{name:>9}" for name in audit.counts)
    rare = sorted(labels, key=audit.counts["usable"].__getitem__)
    for label in labels if len(labels) <= ROWS else rare[:ROWS]:
        cells = "".join(f"{column[label]:>9,}" for column in audit.counts.values())
        yield label.ljust(width) + cells
    if len(labels) > ROWS:
        yield f"and {plural(len(labels) - ROWS, 'label')} with as many photos or more"


def inside(path: Path, root: Path) -> str:
    """The path from `root`, with slashes, safe for a terminal."""
    return printable(path.relative_to(root).as_posix())
