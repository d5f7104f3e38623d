"""The kinds of trouble a photo can be in, and one photo in such trouble.

It does not know how trouble is found.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Kind:
    """One kind of trouble.

    leaves_out: such photos are never trained on. exclude: what audit.csv proposes for
    them, for those who pass it to --exclude-from.
    """

    name: str
    title: str
    leaves_out: bool = False
    exclude: bool = True


# The gravest first. "two-labels" is about both photos, the others about one.
KINDS = (
    Kind("unreadable", "cannot be read; left out", leaves_out=True),
    Kind("leak", "lie both in train and in val or test: what is measured is too good"),
    Kind("near-leak", "look like a photo in another part: measured too well"),
    Kind("two-labels", "are the same file under two labels: one label is wrong"),
    Kind("near-two-labels", "look like a photo with another label: one may be wrong"),
    Kind("doubtful-label", "look like another label to the network"),
    Kind("blank", "show next to nothing"),
    Kind("duplicate", "are copies of another photo; kept on one side of the split"),
    Kind("near-duplicate", "look like another photo; kept on one side of the split"),
    Kind("blurred", "are blurred"),
    Kind("dark", "are very dark"),
    Kind("bright", "are very bright"),
    Kind("small", "are much smaller than the others", exclude=False),
    Kind("odd-shape", "are much longer one way than the other", exclude=False),
    Kind("wrong-ending", "have an ending that is not their format's", exclude=False),
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
