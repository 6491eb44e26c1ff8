"""Whether captions name the objects of their images, where the data says what these are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

__all__ = ["Objects", "objects_in", "right_shares"]

Objects: TypeAlias = Sequence[Mapping[str, str]]
"""The objects of an image: of each its attributes in words, such as `{"colour": "red", "shape": "circle"}`."""

_MOST_WORDS = 1000
"""Most words that an attribute may have over all samples."""


def objects_in(value: object) -> Objects | None:
    """A column of a sample as objects; None if it is not that."""
    if not isinstance(value, list | tuple) or not value:
        return None
    if not all(isinstance(thing, Mapping) and thing for thing in value):
        return None
    plain = [(name, word) for thing in value for name, word in thing.items()]
    return value if all(isinstance(name, str) and isinstance(word, str) and word for name, word in plain) else None


def right_shares(captions: Sequence[str], references: Sequence[str], objects: Sequence[Objects | None]) -> dict[str, float]:
    """The share of the captions that name the right number of objects (`counts`), the right words of each attribute, as
    often as there are objects with them (`colours`), and the right objects (`scenes`).

    Captions are not parsed: words of an attribute are those that some sample has, and are found as whole words; objects are
    what their attributes make in the order of a caption. An attribute is measured if every reference names it fully, so
    that neither synonyms nor attributes that captions leave out count. Nothing is measured unless every sample has objects.

    >>> seen = [[{"colour": "red", "shape": "disc"}], [{"colour": "blue", "shape": "box"}]]
    >>> right_shares(["a red box", "a blue box"], ["a red disc", "a blue box"], seen)
    {'counts': 1.0, 'colours': 1.0, 'shapes': 0.5, 'scenes': 0.5}
    """
    seen = [own for own in objects if own is not None]
    if not captions or len(seen) < len(captions):
        return {}
    names = [name for name in seen[0][0] if all(name in thing for own in seen for thing in own)]
    words = {name: _Words({thing[name] for own in seen for thing in own}) for name in names}
    named = [name for name in names if words[name].usable]
    measured = [name for name in named if all(_right(words[name], name, references, seen))]
    if not measured:
        return {}
    first = words[measured[0]]
    shares = {"counts": _share(len(first.find(text)) == len(own) for text, own in zip(captions, seen, strict=True))}
    shares |= {f"{name}s": _share(_right(words[name], name, captions, seen)) for name in measured}
    shares["scenes"] = _share(
        _things([words[name].find(text) for name in measured])
        == Counter(tuple(thing[name].lower() for name in measured) for thing in own)
        for text, own in zip(captions, seen, strict=True)
    )
    return shares


class _Words:
    """The words of one attribute, which are found in texts as whole words, the longest first."""

    def __init__(self, words: set[str]) -> None:
        self.usable = len(words) <= _MOST_WORDS
        listed = sorted({word.lower() for word in words}, key=lambda word: (-len(word), word)) if self.usable else []
        self._pattern = re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in listed) or r"(?!)")

    def find(self, text: str) -> list[str]:
        """The words of a text, in order."""
        return self._pattern.findall(text.lower())


def _right(words: _Words, name: str, texts: Sequence[str], objects: Sequence[Objects]) -> list[bool]:
    """Whether each text has just the words of an attribute that its objects have."""
    return [
        Counter(words.find(text)) == Counter(thing[name].lower() for thing in own)
        for text, own in zip(texts, objects, strict=True)
    ]


def _things(named: list[list[str]]) -> Counter[tuple[str, ...]] | None:
    """The objects of a caption, by the words of their attributes; None where some have more words than others."""
    return Counter(zip(*named, strict=True)) if len({len(words) for words in named}) == 1 else None


def _share(right: Iterable[bool]) -> float:
    outcomes = list(right)
    return sum(outcomes) / len(outcomes)
