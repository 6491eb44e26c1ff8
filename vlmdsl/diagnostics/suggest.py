"""Suggestions: the name that was probably meant, or what there is to choose from."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

__all__ = ["closest", "suggestion"]

_LIKENESS = 0.7
_LONGEST_LIST = 10
_SHORTEST_BEGINNING = 3
_SHORTEST_ALIKE = 4
"""Words of fewer letters have half of them in common with many others: only one slip makes them alike."""
_LONGEST_COMPARED = 64
_MOST_COMPARED = 64
"""So many candidates are compared letter by letter; of more, a few that share most pairs of letters with the name."""
_FEW = 16


def closest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `name` is probably a slip for, or None where a guess would mislead.

    A match except for case wins; then the most similar spelling, if it is similar enough; then the only candidate with this
    prefix.

    >>> closest("Contrast", ["contrast", "contour"])
    'contrast'
    >>> closest("minimise", ["minimize", "recipe"])
    'minimize'
    >>> closest("temp", ["temperature", "column_temperature"])
    'temperature'
    >>> closest("queue", ["image", "text"]) is None
    True
    """
    names = list(dict.fromkeys(candidates))
    lowered = name.lower()
    for candidate in names:
        if candidate.lower() == lowered:
            return candidate
    compared = _worth_comparing(name, names)
    scored = [(_likeness(name, candidate), -index, candidate) for index, candidate in enumerate(compared)]
    best = max(scored, default=(0.0, 0, ""))
    if best[0] >= _LIKENESS:
        return best[2]
    longer = [candidate for candidate in names if len(name) >= _SHORTEST_BEGINNING and candidate.startswith(name)]
    return longer[0] if len(longer) == 1 else None


def _worth_comparing(name: str, names: list[str]) -> list[str]:
    """The candidates that are of about the length of `name`: of very many, those that look most like it at a glance."""
    length = min(len(name), _LONGEST_COMPARED)
    shortest, longest = length * _LIKENESS / (2 - _LIKENESS) - 1, length * (2 - _LIKENESS) / _LIKENESS + 1
    near = [candidate for candidate in names if shortest <= min(len(candidate), _LONGEST_COMPARED) <= longest]
    if len(near) <= _MOST_COMPARED:
        return near
    pairs = _pairs(name)
    return sorted(near, key=lambda candidate: len(pairs & _pairs(candidate)), reverse=True)[:_FEW]


@lru_cache(maxsize=16_384)
def _pairs(name: str) -> frozenset[str]:
    """The pairs of letters that follow one another in a name."""
    start = name[:_LONGEST_COMPARED].lower()
    return frozenset(map(str.__add__, start, start[1:]))


def _likeness(name: str, candidate: str) -> float:
    """From 0 to 1: twice the letters in common by the letters of both; one slip is forgiven in any word."""
    from difflib import SequenceMatcher  # most texts have nothing to suggest

    first, second = name[:_LONGEST_COMPARED].lower(), candidate[:_LONGEST_COMPARED].lower()
    if len(first) < _SHORTEST_ALIKE:
        return _LIKENESS if len(first) >= _SHORTEST_BEGINNING and _one_slip(first, second) else 0.0
    ratio = SequenceMatcher(None, first, second, autojunk=False).ratio()
    return max(ratio, _LIKENESS) if _one_slip(first, second) else ratio


def _one_slip(first: str, second: str) -> bool:
    """Whether one letter left out, added, changed or swapped with its neighbour turns one word into the other."""
    start = 0
    while start < min(len(first), len(second)) and first[start] == second[start]:
        start += 1
    rest, other = first[start:], second[start:]
    return (
        rest[1:] == other
        or rest == other[1:]
        or rest[1:] == other[1:]
        or (rest[:2] == other[1::-1] and rest[2:] == other[2:])
    )


def suggestion(name: str, candidates: Iterable[str], what: str = "") -> str:
    """The help for an unknown name: the probable one, else the short list of what is possible, else nothing.

    >>> suggestion("imgae", ["image", "text"])
    'did you mean `image`?'
    >>> suggestion("queue", ["image", "text"], "the fields")
    'the fields are `image` and `text`'
    """
    names = list(dict.fromkeys(candidates))
    near = closest(name, names)
    if near is not None:
        return f"did you mean `{near}`?"
    if not names:
        return ""
    shown = [f"`{candidate}`" for candidate in names[:_LONGEST_LIST]]
    if len(names) > _LONGEST_LIST:
        return f"{what or 'the possibilities'} are {', '.join(shown)} and {len(names) - _LONGEST_LIST} more"
    if len(shown) == 1:
        return f"{what or 'the possibilities'}: only {shown[0]}"
    return f"{what or 'the possibilities'} are {', '.join(shown[:-1])} and {shown[-1]}"
