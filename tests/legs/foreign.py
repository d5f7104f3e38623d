"""What a foreign client says of photos, against `edge classify`: label and familiarity.

It does not know: who the client is, or how it was asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

# The least share of photos with the same best label. At full size the client resizes by
# itself, without smoothing, which turns nearly even answers: 4 of 200 were seen here.
# Float32 files turn about as many as int8 files do.
AGREEMENT = {"input": 0.985, "full": 0.975}
# Of familiarity, which goes from 0 to 1 in steps of 1/256. At the input's size both see
# the same pixels, and XNNPACK's releases round a little differently.
MAX_DIFFERENCE = 4 / 256
FAMILIARITY = "familiarity"

Ours = Mapping[str, Sequence[tuple[str, float]]]


class Disagreement(Exception):
    """It does not say what `edge classify` says, and how much not."""


def judge(ours: Ours, theirs: Mapping[str, Any], *, sure: bool) -> str:
    """A sentence of how well they agree; Disagreement where not well enough.

    `ours`: photo to ranking, familiarity last if the file has it. `theirs`: "client",
    "labels", and for "input" and "full" size photo to (best label, familiarity).
    Not `sure`: a network unsure of many photos, judged at the input's size only.
    """
    best = {photo: ranking[0][0] for photo, ranking in ours.items()}
    if not best or not set(best.values()) <= set(theirs["labels"]):
        raise Disagreement(f"expected the labels {set(best.values())}, got {theirs}")
    shares = {}
    for size in ("input", "full"):
        answers = theirs[size]
        found = {photo: answers[photo][0] for photo in best if photo in answers}
        same = sum(found.get(photo) == label for photo, label in best.items())
        shares[size] = same / len(best)
    told = (
        f"{theirs['client']} agrees with edge classify on {shares['full']:.2%} of "
        f"{len(best)} photos handed over at full size, {shares['input']:.2%} at the "
        f"input's size; labels {theirs['labels']}"
    )
    for size in ("input", "full") if sure else ("input",):
        if shares[size] < AGREEMENT[size]:
            expected = f"expected {AGREEMENT[size]:.1%} at {size} size"
            raise Disagreement(f"{told}; {expected}")
    return f"{told}; {_familiarity(ours, theirs['input'], sure=sure)}"


def _familiarity(ours: Ours, theirs: Mapping[str, Any], *, sure: bool) -> str:
    """The second output, photo by photo, on the same pixels; of a network that is not
    `sure` reported only: XNNPACK's rounding moves it further."""
    known = {
        photo: ranking[-1][1]
        for photo, ranking in ours.items()
        if ranking[-1][0] == FAMILIARITY
    }
    if not known:
        return "the file has no familiarity"
    missing = [photo for photo in known if theirs[photo][1] is None]
    if missing:
        raise Disagreement(
            f"expected a head named {FAMILIARITY}, got none for {missing[0]}"
        )
    apart = sorted(abs(theirs[photo][1] - value) for photo, value in known.items())
    told = (
        f"familiarity, its second head, is {median(apart):.4f} apart in the middle, "
        f"{apart[-1]:.4f} at most"
    )
    if median(apart) > MAX_DIFFERENCE and sure:
        raise Disagreement(f"{told}; expected {MAX_DIFFERENCE:.4f} in the middle")
    return told
