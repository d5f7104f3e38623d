"""How a count is told: one photo, two photos.

It does not know nouns whose plural takes more than an s.
"""


def plural(count: int, noun: str) -> str:
    """`count` with thousands set apart, and the noun: "1 photo", "2,000 photos"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
