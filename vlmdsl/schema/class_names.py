"""Names of classes as people give them: with commas between, or in a file."""

from __future__ import annotations

import json
from collections import Counter
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from vlmdsl.source.regular_files import BadFile, lines_of, read_text

__all__ = ["CLASSES_UNUSABLE", "HOW_TO_NAME", "ClassNames", "named_classes"]

HOW_TO_NAME = "name classes with commas between, `dog,cat`, or a file with one name per line"

CLASSES_UNUSABLE = "classes_unusable"
"""The type of the error of a setting whose text does not name classes."""

_LARGEST = 2**19
"""Most bytes of a file: its names are kept in the configuration of a run, which is read with a limit of its own."""


def named_classes(text: str) -> tuple[str, ...]:
    """The names in a text with commas between them; of a text without a comma, those in the file that it names.

    Such a file has one name per line, where `#` begins a comment, or is a JSON list of names. Raises `BadFile` for a file
    that cannot be read, and for fewer than two names.

    >>> named_classes("red circle, blue square")
    ('red circle', 'blue square')
    """
    names = tuple(name.strip() for name in (text.split(",") if "," in text else _names_in(text)) if name.strip())
    if len(names) < 2:
        raise BadFile("there are fewer than two names")
    return names


def _names_in(path: str) -> list[str]:
    """The names in a file; raises `BadFile`."""
    text = read_text(path, _LARGEST)
    if not text.lstrip().startswith("["):
        return lines_of(text)
    try:
        names = json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise BadFile("it begins with `[`, but is not JSON") from fault
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadFile("it is not a list of names")
    return names


def _of_a_text(value: object) -> object:
    """The names of a list, or those that one text holds or names a file of."""
    if not isinstance(value, str):
        return value
    try:
        return named_classes(value)
    except BadFile as fault:
        raise PydanticCustomError(CLASSES_UNUSABLE, "{reason}", {"reason": fault.reason}) from fault


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    counts = Counter(names)
    twice = [name for name in counts if counts[name] > 1]
    if twice:
        raise ValueError(f"must name each class once, and `{twice[0]}` is named twice")
    return names


_Name = Annotated[str, Field(min_length=1, max_length=1000)]
ClassNames: TypeAlias = Annotated[tuple[_Name, ...], BeforeValidator(_of_a_text), AfterValidator(_different)]
"""A setting that lists classes, in place of which a text is read as in `named_classes`."""
