"""The kinds of trouble a photo can be in, and one photo in such trouble.

It does not know how trouble is found.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Kind:
    """One kind of trouble; `one` and `title` say it of one photo and of several.

    leaves_out: such photos are never trained on. exclude: what audit.csv proposes for
    them, for those who pass it to --exclude-from.
    """

    name: str
    one: str
    title: str
    leaves_out: bool = False
    exclude: bool = True

    def told(self, count: int) -> str:
        """What is wrong with so many photos, to follow their number."""
        return self.one if count == 1 else self.title


# The gravest first. "two-labels" is about both photos, the others about one.
KINDS = (
    Kind(
        "unreadable",
        "cannot be read; left out",
        "cannot be read; left out",
        leaves_out=True,
    ),
    Kind(
        "leak",
        "lies both in train and in val or test: what is measured is too good",
        "lie both in train and in val or test: what is measured is too good",
    ),
    Kind(
        "near-leak",
        "looks like a photo in another part: measured too well",
        "look like a photo in another part: measured too well",
    ),
    Kind(
        "two-labels",
        "is the same file under two labels: one label is wrong",
        "are the same file under two labels: one label is wrong",
    ),
    Kind(
        "near-two-labels",
        "looks like a photo with another label: one may be wrong",
        "look like a photo with another label: one may be wrong",
    ),
    Kind(
        "doubtful-label",
        "looks like another label to the network",
        "look like another label to the network",
        exclude=False,
    ),
    Kind("blank", "shows next to nothing", "show next to nothing"),
    Kind(
        "duplicate",
        "is a copy of another photo; kept on one side of the split",
        "are copies of another photo; kept on one side of the split",
    ),
    Kind(
        "near-duplicate",
        "looks like another photo; kept on one side of the split",
        "look like another photo; kept on one side of the split",
    ),
    Kind("blurred", "is blurred", "are blurred"),
    Kind("dark", "is very dark", "are very dark"),
    Kind("bright", "is very bright", "are very bright"),
    Kind(
        "small",
        "is much smaller than the others",
        "are much smaller than the others",
        exclude=False,
    ),
    Kind(
        "odd-shape",
        "is much longer one way than the other",
        "are much longer one way than the other",
        exclude=False,
    ),
    Kind(
        "cut-off",
        "is cut off at its end, and used",
        "are cut off at their end, and used",
        exclude=False,
    ),
    Kind(
        "wrong-ending",
        "has an ending that is not its format's",
        "have an ending that is not their format's",
        exclude=False,
    ),
)
BOTH_WRONG = ("two-labels", "near-two-labels")


@dataclass(frozen=True)
class Finding:
    """One photo in trouble. `kind` is the name of one of `KINDS`.

    Where there are `others`, `reason` reads on into their names.
    """

    kind: str
    path: Path
    reason: str
    others: tuple[Path, ...] = ()
