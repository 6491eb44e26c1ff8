"""The classes of labels and their names, from the data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vlmdsl.runtime.data.source import BadSample, Source, probed_positions
from vlmdsl.runtime.values import MISSING_LABEL, first_value
from vlmdsl.runtime.values.scalar import label_value, word_of

__all__ = ["Classes", "classes_of", "has_unnamed_classes", "largest_class", "renumbered"]

_MOST_CLASSES = 1_000_000


@dataclass(frozen=True)
class Classes:
    """The names of classes, by number, and the columns that hold the class of a sample. `names` is empty if none are known;
    a number without a name has an empty one.

    `numbered`: the data has numbers, and names for them; else it has names, which are numbered in their alphabet.
    """

    names: tuple[str, ...]
    columns: tuple[str, ...]
    numbered: bool = False


def classes_of(source: Source, columns: tuple[str, ...], class_name: tuple[str, ...] = ()) -> Classes:
    """The classes of the samples, whose labels are in `columns`: labels that are words, or the names beside numbers (in the
    columns `class_name`). If one number has several names, as in joined folders, the names are the classes.

    Reads labels only; stops at once if the first label is a number and no column has names.
    """
    if columns[0] == "label" and source.class_names:
        return Classes(source.class_names, columns)
    words: set[str] = set()
    named: dict[int, set[str]] = {}
    for index in range(len(source)):
        try:
            sample = source[index]
            value = first_value(sample, columns)
            number = label_value(value, {})
            name = first_value(sample, class_name)
            word = None if name is None else word_of(name)
        except BadSample:
            continue
        if number >= 0 and not class_name:
            return Classes((), columns)
        if number >= 0:
            named.setdefault(number, set()).update([] if word is None else [word])
        elif isinstance(value, str):
            words.add(word_of(value))
    if any(len(names) > 1 for names in named.values()):
        return Classes(tuple(sorted(set().union(*named.values()))), class_name)
    if named and max(named) < _MOST_CLASSES:
        names = {number: next(iter(names)) for number, names in named.items() if names}
        return Classes(tuple(names.get(number, "") for number in range(max(named) + 1)), columns, bool(names))
    return Classes(tuple(sorted(words)), columns)


def has_unnamed_classes(source: Source, columns: Iterable[str]) -> bool:
    """Whether any of the inspected samples has a class without a name."""
    columns = tuple(columns)
    for index in probed_positions(len(source)):
        try:
            if label_value(first_value(source[index], columns), {}) != MISSING_LABEL:
                return True
        except BadSample:
            continue
    return False


def largest_class(source: Source, columns: tuple[str, ...], names: tuple[str, ...]) -> int:
    """The largest number of a class of the samples, whose labels are in `columns`: numbers, or words that are numbered as in
    `names`; `MISSING_LABEL` where no sample has a class."""
    numbers, largest = {name: number for number, name in enumerate(names)}, MISSING_LABEL
    for index in range(len(source)):
        try:
            largest = max(largest, label_value(first_value(source[index], columns), numbers))
        except BadSample:
            continue
    return largest


def renumbered(names: tuple[str, ...], by: tuple[str, ...]) -> dict[int, int]:
    """The number of each class in `names` -> its number in `by`; classes that are missing there get the next numbers.

    >>> renumbered(("cat", "dog", "owl"), by=("owl", "ant", "cat"))
    {0: 2, 1: 6, 2: 0}
    """
    numbers = {name: number for number, name in reversed(list(enumerate(by))) if name}
    for name in names:
        numbers.setdefault(name, len(by) + len(numbers))
    return {number: numbers[name] for number, name in enumerate(names) if name}
