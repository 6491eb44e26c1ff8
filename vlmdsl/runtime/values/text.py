"""Texts: the format of a tower, and the tokens in a batch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from vlmdsl.runtime.tokenizer import Side, Tokenizer
from vlmdsl.runtime.values.bad_sample import BadSample
from vlmdsl.runtime.values.family import FieldColumns, SampleColumns, first_value

__all__ = [
    "TextBatch", "TextFamily", "TextFormat", "TextValue", "alternatives", "clean_text", "texts_in",
]  # fmt: skip


class TextBatch(NamedTuple):
    """Texts in the form of one tower: `ids [b, L]`, int64, and `mask [b, L]`, true = a token."""

    ids: Tensor
    mask: Tensor

    @property
    def padded(self) -> tuple[str, ...]:
        """The members with the axis L."""
        return ("ids", "mask")


@dataclass(frozen=True)
class TextFormat:
    """Texts as `length` ids of a tokenizer, marks and padding included; padding is at the end unless it is said to be
    elsewhere, for a tower that reads it."""

    tokenizer: Tokenizer
    length: int
    padding_side: Side = "right"

    def encode(self, texts: Sequence[str]) -> TextBatch:
        """Each of `length` ids, cut or padded; see `Tokenizer.encode`."""
        return TextBatch(*self.tokenizer.encode(texts, self.length, self.padding_side))

    def characters(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Where each of these ids is in the text; see `Tokenizer.characters`."""
        return self.tokenizer.characters(text, self.length, self.padding_side)

    def characters_of(self, texts: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The same of several texts in turn."""
        return self.tokenizer.characters_of(texts, self.length, self.padding_side)


@dataclass(frozen=True, slots=True)
class TextValue:
    """A text and other phrasings of it, in the order of the data and without repetitions."""

    text: str
    rewrites: tuple[str, ...] = ()


class TextFamily:
    """Fields of kind Text: a sample is a `TextValue`, a batch `TextBatch`."""

    kind = "Text"

    def probe(self, samples: object, field: FieldColumns) -> None:
        """Nothing."""

    def read(self, sample: SampleColumns, field: FieldColumns) -> TextValue:
        """The text in the first column that has one, with its alternatives; raises `BadSample` if none has.

        Of a column that lists several it is the one that `sample.choice` says. Texts are cut at `field.text_characters`.
        """
        columns, longest = sample.columns, field.text_characters
        if first_value(columns, field.columns) is None and all(columns.get(name) is None for name in field.columns):
            raise BadSample(f"missing {field.name}")
        listed = next((texts for name in field.columns if (texts := list(texts_in(columns.get(name), longest)))), None)
        if listed is None:
            raise BadSample(f"empty {field.name}")
        text = listed[sample.choice(field, len(listed)) if len(listed) > 1 else 0]
        return TextValue(text, alternatives(text, (columns.get(name) for name in field.alternatives), longest))

    def collate(self, samples: Sequence[TextValue], form: object) -> TextBatch:
        """The tokens of the form's tokenizer."""
        assert isinstance(form, TextFormat), f"texts are brought to a tower in a TextFormat, not {form!r}"
        return form.encode([value.text for value in samples])


def clean_text(value: object, longest: int | None = None) -> str:
    """A text of at most `longest` characters, without blanks at its ends, in well-formed Unicode; empty for null.

    Numbers are taken as they are written, since tables hold texts of digits as such. Raises `BadSample` for anything else,
    truth values included.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float | np.number):
        raise BadSample("text column does not hold a text")
    # JSON may hold half a surrogate pair, which no tokenizer can encode.
    return str(value).strip()[:longest].encode("utf-8", "replace").decode("utf-8").rstrip()


def alternatives(text: str, values: Iterable[object], longest: int | None = None) -> tuple[str, ...]:
    """All texts in `values` (lists are opened, nulls and empty ones dropped) that differ from `text` and each other."""
    others = dict.fromkeys(other for value in values for other in texts_in(value, longest))
    others.pop(text, None)
    return tuple(others)


def texts_in(value: object, longest: int | None = None) -> Iterator[str]:
    """The texts of a value that is one or a list of them, lists in lists opened; empty ones are dropped."""
    waiting = [value]
    while waiting:  # JSON may be nested deeper than functions may call each other
        value = waiting.pop()
        if isinstance(value, list | tuple):
            waiting.extend(reversed(value))
        elif text := clean_text(value, longest):
            yield text
