"""The photos a command was pointed at: a folder, a list or an archive, less what an
audit.csv leaves out.

It does not know what is done with them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data.audit.report import Exclusion, read_exclusion
from data.photos import PhotoFolder, scan
from data.scan import shown
from edge.text import plural


@dataclass(frozen=True)
class Source:
    """`folder` holds what is left; `exclusion` says what was taken out, if anything."""

    folder: PhotoFolder
    exclusion: Exclusion | None = None

    def lines(self, digests: Mapping[Path, str]) -> list[str]:
        """What a person should know of the exclusion, a line each.

        `digests` are those of the photos as they were read now.
        """
        if self.exclusion is None:
            return []
        source = shown(self.exclusion.source)
        lines = [f"{plural(len(self.exclusion.paths), 'photo')} left out by {source}"]
        if not self.exclusion.paths:
            lines = [
                f"no photo left out by {source}: no line has yes in its column exclude"
            ]
        changed = self.exclusion.changed(digests)
        if changed:
            lines.append(
                f"warning: {plural(len(changed), 'photo')} changed since that audit "
                f"(first: {shown(changed[0])}); audit them anew"
            )
        return lines


def choose(
    photos: Path,
    exclude_from: Path | None = None,
    *,
    follow_links: bool = False,
    few: bool = False,
) -> Source:
    """Scan `photos` and leave out what `exclude_from`, an audit.csv, marks.

    EdgegraftError as `data.photos.scan` and `data.audit.report.read_exclusion`.
    """
    folder = scan(photos, follow_links=follow_links, few=few)
    if exclude_from is None:
        return Source(folder)
    exclusion = read_exclusion(exclude_from, folder)
    return Source(exclusion.apply(folder), exclusion)
