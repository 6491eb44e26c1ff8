"""From what a column holds to the value of a field, one function a kind of field."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from vlmdsl.runtime.data.source import BadSample

__all__ = [
    "MISSING_LABEL", "MaskedText", "TextValue", "alternatives", "clean_text", "first_value", "flag_value", "key_number",
    "label_value", "number_value", "text_value", "texts_in", "word_of",
]  # fmt: skip

MISSING_LABEL = -1
"""The class of a sample without one; `same(label)` takes it as equal to nothing else."""

_LARGEST_CLASS = 2**53
"""Beyond it a float, which is what JSON numbers may be, does not hold every integer."""

_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


@dataclass(frozen=True, slots=True)
class MaskedText:
    """A text of whose tokens a `share` is chosen, each for itself: of the chosen `hidden` become the mask token, `replaced`
    become a random one, the rest stay. `purpose` is the key of its draws."""

    text: str
    share: float
    hidden: float
    replaced: float
    purpose: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class TextValue:
    """A text and other phrasings of it, in the order of the data and without repetitions; with its mask, if it has one."""

    text: str
    rewrites: tuple[str, ...] = ()
    masked: MaskedText | None = None


def key_number(key: str) -> int:
    """The key of a sample as a number of 63 bits: equal for equal keys, and for others with a chance of 2**-63.

    >>> key_number("scene-1") == key_number("scene-1")
    True
    """
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def first_value(sample: Mapping[str, object], columns: Iterable[str]) -> object:
    """The first of the columns that has a value; None if none has."""
    for column in columns:
        value = sample.get(column)
        if value is not None and not (isinstance(value, str | list | tuple) and not value):
            return value
    return None


def clean_text(value: object, longest: int | None = None) -> str:
    """A text of at most `longest` characters, without blanks at its ends, in well-formed Unicode; empty for null.

    Numbers are taken as they are written. Raises `BadSample` for what is no text.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, str | int | float | np.number):
        raise BadSample("text column holds no text")
    # JSON may hold half a surrogate pair, which no tokenizer can encode.
    return str(value).strip()[:longest].encode("utf-8", "replace").decode("utf-8").rstrip()


def text_value(
    field: str,
    sample: Mapping[str, object],
    columns: Iterable[str],
    rewrites: Iterable[str] = (),
    *,
    longest: int | None = None,
    choose: Callable[[int], int] | None = None,
) -> TextValue:
    """The text in the first column that has one, with the alternatives that the columns `rewrites` list.

    Of a column that lists several it is the first, or that whose number `choose` gives for how many there are. Texts are cut
    at `longest` characters.
    """
    columns = tuple(columns)
    if first_value(sample, columns) is None and all(sample.get(column) is None for column in columns):
        raise BadSample(f"missing {field}")
    listed = next((texts for column in columns if (texts := list(texts_in(sample.get(column), longest)))), None)
    if listed is None:
        raise BadSample(f"empty {field}")
    text = listed[choose(len(listed)) if choose is not None and len(listed) > 1 else 0]
    return TextValue(text, alternatives(text, (sample.get(column) for column in rewrites), longest))


def alternatives(text: str, values: Iterable[object], longest: int | None = None) -> tuple[str, ...]:
    """All texts in `values` (lists are opened, nulls and empty ones dropped) that differ from `text` and each other."""
    found = dict.fromkeys(other for value in values for other in texts_in(value, longest))
    found.pop(text, None)
    return tuple(found)


def texts_in(value: object, longest: int | None = None) -> Iterator[str]:
    """The texts of a value that is one or a list of them, lists in lists opened; empty ones are dropped."""
    waiting = [value]
    while waiting:  # JSON may be nested deeper than functions may call each other
        value = waiting.pop()
        if isinstance(value, list | tuple):
            waiting.extend(reversed(value))
        elif text := clean_text(value, longest):
            yield text


def label_value(value: object, classes: Mapping[str, int]) -> int:
    """The class as an integer; a name is looked up in `classes`; `MISSING_LABEL` where there is none or it is unknown."""
    if value is None:
        return MISSING_LABEL
    if isinstance(value, str):
        name = value.strip()
        if name in classes:
            return classes[name]
        return _class_number(name) if name.removeprefix("-").isdecimal() else MISSING_LABEL
    return _class_number(value)


def _class_number(value: object) -> int:
    number = _number(value)
    if number is None or not number.is_integer() or abs(number) > _LARGEST_CLASS:
        raise BadSample("label is no class")
    return int(number)


def word_of(value: object) -> str:
    """A name as text: of a class, of a source. Raises `BadSample` for a list or an object."""
    if isinstance(value, list | tuple | dict):
        raise BadSample("name is no word")
    return str(value).encode("utf-8", "replace").decode("utf-8").strip()


def flag_value(field: str, value: object) -> bool:
    """Yes or no: a truth value, 0 or 1, or a word for one."""
    word = "" if isinstance(value, list | tuple | dict) else str(value).strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise BadSample(f"missing {field}" if value is None else f"{field} is neither true nor false")


def number_value(field: str, value: object) -> float:
    """A finite number."""
    number = _number(value)
    if number is None:
        raise BadSample(f"missing {field}" if value is None else f"{field} is no number")
    return number


def _number(value: object) -> float | None:
    """A finite number, from one or from its digits; None for anything else."""
    try:
        number = float(value)  # type: ignore[arg-type]  # a list or an object raises, as it should
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
