"""Files among the data that are not read, counted by kind, with some names."""

from __future__ import annotations

from collections import Counter

from vlmdsl.runtime.data.files import well_formed

__all__ = ["LeftOut", "shortened"]

_EXAMPLES = 3
_LONGEST_NAME = 80


class LeftOut:
    """Counts what is left out, by kind.

    >>> left_out = LeftOut()
    >>> for name in ("a.heic", "b.heic"):
    ...     left_out.add("`.heic` files", name)
    >>> left_out.lines()
    ['left out: `.heic` files (2: a.heic, b.heic)']
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def add(self, kind: str, name: str) -> None:
        """One thing of a kind (in the plural), by its name."""
        self._counts[kind] += 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < _EXAMPLES:
            examples.append(shortened(well_formed(name)))

    def lines(self) -> list[str]:
        """A line per kind, the most frequent first."""
        return [
            f"left out: {kind} ({count:,}: {', '.join(self._examples[kind])}{', ...' if count > _EXAMPLES else ''})"
            for kind, count in self._counts.most_common()
        ]


def shortened(name: str) -> str:
    """A name of at most 80 characters; the middle of a longer one is left out.

    >>> shortened("a" * 100) == "a" * 39 + "..." + "a" * 38
    True
    """
    if len(name) <= _LONGEST_NAME:
        return name
    kept = (_LONGEST_NAME - 3) // 2
    return f"{name[: kept + 1]}...{name[-kept:]}"
