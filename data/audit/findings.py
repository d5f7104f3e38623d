"""The kinds of findings of an audit, and one finding."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Kind:
    """A kind of finding; `singular`, `plural`: its sentence for one photo, for several.

    leaves_out: such photos are never trained on.
    """

    name: str
    singular: str
    plural: str
    leaves_out: bool = False

    def sentence(self, count: int) -> str:
        """The sentence for `count` photos, to follow their number."""
        return self.singular if count == 1 else self.plural


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
        "is in train and in val or test: the score is too good",
        "are in train and in val or test: the score is too good",
    ),
    Kind(
        "near-leak",
        "shows the same as a photo in another part: the score is too good",
        "show the same as a photo in another part: the score is too good",
    ),
    Kind(
        "two-labels",
        "is the same file under two labels: one label is wrong",
        "are the same file under two labels: one label is wrong",
    ),
    Kind(
        "near-two-labels",
        "is a near copy of a photo with another label: one label is likely wrong",
        "are near copies of photos with another label: one label is likely wrong",
    ),
    Kind("blank", "shows next to nothing", "show next to nothing"),
    Kind(
        "duplicate",
        "is a copy of another photo; kept on one side of the split",
        "are copies of another photo; kept on one side of the split",
    ),
    Kind(
        "near-duplicate",
        "is a near copy of another photo; kept on one side of the split",
        "are near copies of another photo; kept on one side of the split",
    ),
    Kind(
        "burst",
        "shows the same moment as another photo; kept on one side of the split",
        "show the same moment as another photo; kept on one side of the split",
    ),
    Kind(
        "same-thing",
        "shows the same thing as another photo; kept on one side of the split",
        "show the same thing as another photo; kept on one side of the split",
    ),
    Kind("blurred", "is blurred", "are blurred"),
    Kind("dark", "is very dark", "are very dark"),
    Kind("bright", "is very bright", "are very bright"),
    Kind(
        "small",
        "is much smaller than the others",
        "are much smaller than the others",
    ),
    Kind(
        "odd-shape",
        "is very long and narrow",
        "are very long and narrow",
    ),
    Kind(
        "cut-off",
        "is cut off at its end, and used",
        "are cut off at their end, and used",
    ),
    Kind(
        "wrong-ending",
        "has an ending that is not its format's",
        "have an ending that is not their format's",
    ),
)
BOTH_WRONG = ("two-labels", "near-two-labels")


@dataclass(frozen=True)
class Finding:
    """One photo with a problem. `kind` is the name of one of `KINDS`.

    The names of the `others` follow the `reason`. exclude: audit.csv proposes to leave
    the photo out, since another one that is kept shows the same.
    """

    kind: str
    path: Path
    reason: str
    others: tuple[Path, ...] = ()
    exclude: bool = False
