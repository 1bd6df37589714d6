"""Names as a terminal may show them: what would move the cursor, end a line or turn text around is written out."""

import re

# Control characters of both sets, separators of lines and paragraphs, marks that reorder text, halves of characters.
_ACTING = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return `text` in one line, with escapes for whatever a terminal would act on; right-to-left letters stay."""
    return _ACTING.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number and what is counted: `1 image`, `2 images`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def were(number: int) -> str:
    """Return the verb for so many: `was` or `were`."""
    return "was" if number == 1 else "were"
