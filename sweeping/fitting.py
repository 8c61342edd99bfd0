"""Texts in the columns of a terminal, where some characters take two and some none."""

from bisect import bisect
from itertools import accumulate
from unicodedata import category, east_asian_width

from utils.commands import printable


def columns(text: str) -> int:
    """Return how many columns a printable text takes."""
    return sum(map(columns_of, text))


def columns_of(character: str) -> int:
    if category(character) in ("Mn", "Me"):  # accents, which stand over what is before them
        return 0
    return 2 if east_asian_width(character) in "WF" else 1


def fitted(text: str, width: int) -> str:
    """Return a text that takes just `width` columns: cut in its middle, or filled up.

    The ends of names tell them apart: the category here, the seed there.
    """
    text = printable(text)
    if columns(text) > width:
        tail = (width - 1) // 2
        text = f"{beginning(text, width - 1 - tail)}…{beginning(text[::-1], tail)[::-1]}"
    return text + " " * (width - columns(text))


def beginning(text: str, width: int) -> str:
    """Return as much of a text as fits into `width` columns."""
    return text[: bisect(list(accumulate(map(columns_of, text))), width)]
