"""The photos a command was pointed at: a folder, a list or an archive, less what an
audit.csv leaves out.

It does not know what is done with them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data.folder import PhotoFolder, scan
from data.report import Exclusion, read_exclusion
from data.walk import shown


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
        lines = [f"{len(self.exclusion.paths):,} photos left out by {source}"]
        changed = self.exclusion.changed(digests)
        if changed:
            lines.append(
                f"warning: {len(changed):,} photos changed since that audit "
                f"(first: {shown(changed[0])}); audit them anew"
            )
        return lines


def choose(
    photos: Path, exclude_from: Path | None = None, *, follow_links: bool = False
) -> Source:
    """Scan `photos` and leave out what `exclude_from`, an audit.csv, marks.

    EdgegraftError as `data.folder.scan` and `data.report.read_exclusion`.
    """
    folder = scan(photos, follow_links=follow_links)
    if exclude_from is None:
        return Source(folder)
    exclusion = read_exclusion(exclude_from, folder)
    return Source(exclusion.apply(folder), exclusion)
