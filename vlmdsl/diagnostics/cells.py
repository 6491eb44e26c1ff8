"""Text as a terminal shows it: tabs, wide and combining characters, and nothing that could control the terminal.

Whoever prints what a recipe, a path or data says sends it through `plain`, or through `json_text` for machines.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["cells", "controls", "displayed", "json_text", "plain"]

_TAB = 4
_REPLACEMENT = "�"
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of what moves the cursor, breaks lines, turns the direction of writing, or cannot be encoded."""
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""What turns the direction of writing; other format characters (Cf) belong to the spelling of Persian words or to emoji."""


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
    return _REPLACEMENT if unicodedata.category(character) in _UNSEEN else character


def plain(text: str) -> str:
    """A message that may quote the user's text, safe to print; its line breaks stay."""
    return "\n".join(displayed(line) for line in text.split("\n"))


def controls(text: str) -> list[str]:
    """The characters of `text` that no name of a file may hold: control characters, line ends, turns of direction, halves of
    surrogate pairs.

    >>> controls("a\\u202eb\\n"), controls("\u0645\u06cc\u200c\u062e")
    (['\\u202e', '\\n'], [])
    """
    return [character for character in text if character in _TURNING or unicodedata.category(character) in _UNSEEN - {"Cf"}]


def json_text(value: object) -> str:
    """`value` as JSON that is safe to print: what `displayed` would replace stands as an escape. ValueError for NaN.

    >>> json_text({"name": "\u6f22\\u202e"})
    '{\\n  "name": "\u6f22\\\\u202e"\\n}'
    """
    import json  # most commands print none

    def escaped(match: re.Match[str]) -> str:
        return json.dumps(match[0])[1:-1] if unicodedata.category(match[0]) in _UNSEEN else match[0]

    return re.sub(r"[^\n\x20-\x7e]", escaped, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
