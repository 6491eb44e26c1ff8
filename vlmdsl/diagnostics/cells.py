"""Text as a terminal shows it: tabs, wide and combining characters, and nothing that could control the terminal."""

from __future__ import annotations

import unicodedata

__all__ = ["cells", "displayed", "plain"]

_TAB = 4
_REPLACEMENT = "�"


def cells(text: str) -> int:
    """How many columns of a terminal `text` takes, itself made `displayed`.

    >>> cells("ab"), cells("\\t"), cells("漢字"), cells("e\\u0301")
    (2, 4, 4, 1)
    """
    return sum(_width(character) for character in text)


def _width(character: str) -> int:
    if character == "\t":
        return _TAB
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def displayed(text: str) -> str:
    """`text` with tabs as blanks and without characters that could move the cursor or turn the direction of writing."""
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if character == "\t":
        return " " * _TAB
    return _REPLACEMENT if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") else character


def plain(text: str) -> str:
    """A message that may quote the user's text, safe to print; its line breaks stay."""
    return "\n".join(displayed(line) for line in text.split("\n"))
