"""From what a column holds to the value of a field, one function a kind of field."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from vlmdsl.runtime.data.source import BadSample

__all__ = [
    "MISSING_LABEL", "MaskedText", "TextValue", "alternatives", "clean_text", "first_value", "flag_value", "key_number",
    "label_value", "number_value", "text_value",
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


def clean_text(value: object) -> str:
    """A text without blanks at its ends, in well-formed Unicode; empty for null."""
    text = "" if value is None else str(value)
    # JSON may hold half a surrogate pair, which no tokenizer can encode.
    return text.encode("utf-8", "replace").decode("utf-8").strip()


def text_value(field: str, sample: Mapping[str, object], columns: Iterable[str], rewrites: Iterable[str] = ()) -> TextValue:
    """The text in the first column that has one, with the alternatives that the columns `rewrites` list."""
    columns = tuple(columns)
    if first_value(sample, columns) is None and all(sample.get(column) is None for column in columns):
        raise BadSample(f"missing {field}")
    text = next((text for column in columns for text in _texts(sample.get(column))), "")
    if not text:
        raise BadSample(f"empty {field}")
    return TextValue(text, alternatives(text, (sample.get(column) for column in rewrites)))


def alternatives(text: str, values: Iterable[object]) -> tuple[str, ...]:
    """All texts in `values` (lists are opened, nulls and empty ones dropped) that differ from `text` and each other."""
    found = dict.fromkeys(other for value in values for other in _texts(value))
    found.pop(text, None)
    return tuple(found)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, list | tuple):
        for element in value:
            yield from _texts(element)
    elif text := clean_text(value):
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


def flag_value(field: str, value: object) -> bool:
    """Yes or no: a truth value, 0 or 1, or a word for one."""
    word = str(value).strip().lower()
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
