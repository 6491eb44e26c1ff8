"""What the boxes of an image are called: a phrase per box, or a caption with the spans that name each box.

From these the views `text_of`, `prompt` and `concepts` make texts that know which part of them names which box.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from vlmdsl.runtime.values.bad_sample import BadSample
from vlmdsl.runtime.values.family import FieldColumns, SampleColumns, first_value
from vlmdsl.runtime.values.numeric import whole_number
from vlmdsl.runtime.values.text import TextFormat, TextValue, clean_text

__all__ = [
    "ConceptBatch", "ConceptFamily", "ConceptsValue", "NamingText", "PhraseFamily", "PhrasesValue", "Spans", "WordMaps",
    "joined_phrases", "word_maps",
]  # fmt: skip

Spans: TypeAlias = tuple[tuple[int, int], ...]
"""Parts of a text, each from one character to another, which is not included."""

SEPARATOR = ". "
"""Between the names of a prompt, as in GLIP."""
_MOST_PHRASES = 1000
_MOST_SPANS = 100
_MOST_CONCEPTS = 1000


class WordMaps(NamedTuple):
    """Which tokens of its text, or which of its texts, name each region of a sample: `words [b, R, L]`, bool."""

    words: Tensor


class ConceptBatch(NamedTuple):
    """Several texts per sample in the form of one tower: `ids [b, N, L]`, int64, `tokens [b, N, L]`, true = a token, and
    `real [b, N]`, true = a text: a sample may have fewer than N."""

    ids: Tensor
    tokens: Tensor
    real: Tensor


@dataclass(frozen=True, slots=True)
class PhrasesValue:
    """A `text`, and for each region the `spans` of it that name the region; `names` has one phrase per region. `others` are
    names that occur elsewhere in the data, from which negatives are drawn."""

    text: str
    spans: tuple[Spans, ...]
    names: tuple[str, ...]
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NamingText(TextValue):
    """A text and the spans of it that name each region."""

    spans: tuple[Spans, ...] = ()

    @property
    def regions(self) -> int:
        """How many regions are named."""
        return len(self.spans)


@dataclass(frozen=True, slots=True)
class ConceptsValue:
    """Several texts, at most `count`, and for each region which of them name it."""

    texts: tuple[str, ...]
    count: int
    named_by: tuple[tuple[int, ...], ...] = ()

    @property
    def regions(self) -> int:
        """How many regions are named."""
        return len(self.named_by)


class PhraseFamily:
    """Fields of kind Phrases: a sample is a `PhrasesValue`; a batch holds views of them only, as texts."""

    kind = "Phrases"

    def probe(self, samples: Iterable[Mapping[str, object]], field: FieldColumns) -> tuple[str, ...]:
        """The names that occur in the samples, sorted: negatives are drawn from them where the run names no others."""
        names: set[str] = set()
        for columns in samples:
            try:
                names.update(_read(first_value(columns, field.columns), field).names)
            except BadSample:
                continue
        return tuple(sorted(names))

    def read(self, sample: SampleColumns, field: FieldColumns) -> PhrasesValue:
        """A list of phrases, one per box, or a mapping with a `text` and for each box the `spans` of it, each the first
        character and the one after the last. Raises `BadSample` for anything else, and for spans outside the text."""
        value = next((sample.columns.get(name) for name in field.columns if sample.columns.get(name) is not None), None)
        return _read(value, field)

    def collate(self, samples: Sequence[PhrasesValue], form: object) -> WordMaps:
        """Phrases are encoded as views of them only: a batch of plain ones has no words."""
        return WordMaps(torch.zeros(len(samples), 1, 1, dtype=torch.bool))


class ConceptFamily:
    """Fields of kind Concepts: a sample is a `ConceptsValue`, a batch a `ConceptBatch`."""

    kind = "Concepts"

    def probe(self, samples: object, field: FieldColumns) -> None:
        """Nothing."""

    def read(self, sample: SampleColumns, field: FieldColumns) -> ConceptsValue:
        """A list of texts; raises `BadSample`."""
        value = first_value(sample.columns, field.columns)
        texts = tuple(filter(None, _texts(field, value)))
        if not texts or len(texts) > _MOST_CONCEPTS:
            raise BadSample(f"{field.name} are not a list of at most {_MOST_CONCEPTS} texts")
        return ConceptsValue(texts, len(texts))

    def collate(self, samples: Sequence[ConceptsValue], form: object) -> ConceptBatch:
        """The tokens of the form's tokenizer, of as many texts as the sample with the most."""
        assert isinstance(form, TextFormat), f"texts are brought to a tower in a TextFormat, not {form!r}"
        most = max(value.count for value in samples)
        padded = [text for value in samples for text in (*value.texts, *[""] * (most - len(value.texts)))]
        real = torch.tensor([[place < len(value.texts) for place in range(most)] for value in samples])
        ids, tokens = form.encode(padded)
        return ConceptBatch(ids.unflatten(0, (-1, most)), tokens.unflatten(0, (-1, most)), real)


def joined_phrases(names: Sequence[str], order: Sequence[str]) -> NamingText:
    """The distinct names in this order, joined with ". ", and the part that names each region.

    >>> joined_phrases(["a dog", "a cat"], ["a cat", "a sofa", "a dog"])
    NamingText(text='a cat. a sofa. a dog', rewrites=(), spans=(((15, 20),), ((0, 5),)))
    """
    places: dict[str, tuple[int, int]] = {}
    start = 0
    for name in order:
        places[name] = (start, start + len(name))
        start += len(name) + len(SEPARATOR)
    spans = tuple((places[name],) if name in places else () for name in names)
    return NamingText(SEPARATOR.join(order), spans=spans)


def word_maps(values: Sequence[NamingText] | Sequence[ConceptsValue], form: TextFormat) -> WordMaps:
    """The words of each region as the form has them: the tokens that share a character with one of its spans, or its texts.

    Special tokens, and tokens beyond the length of the form, name nothing.
    """
    maps = [_of_concepts(value) if isinstance(value, ConceptsValue) else _of_text(value, form) for value in values]
    regions, columns = (max(1, *(one.shape[axis] for one in maps)) for axis in (0, 1))
    words = np.zeros((len(maps), regions, columns), dtype=bool)
    for row, one in enumerate(maps):
        words[row, : one.shape[0], : one.shape[1]] = one
    return WordMaps(torch.from_numpy(words))


def _of_concepts(value: ConceptsValue) -> np.ndarray:
    """Which of the texts name each region: bool [R, N]."""
    words = np.zeros((len(value.named_by), value.count), dtype=bool)
    for region, concepts in enumerate(value.named_by):
        words[region, list(concepts)] = True
    return words


def _of_text(value: NamingText, form: TextFormat) -> np.ndarray:
    """Which tokens name each region: bool [R, L]."""
    first, last = form.characters(value.text)
    words = np.zeros((len(value.spans), form.length), dtype=bool)
    for region, spans in enumerate(value.spans):
        for start, end in spans:
            words[region] |= (first < end) & (last > start)
    return words


def _read(value: object, field: FieldColumns) -> PhrasesValue:
    others = field.facts if isinstance(field.facts, tuple) else ()
    if isinstance(value, Mapping):
        return _with_spans(field.name, value, others)
    names = _texts(field, value)
    if not all(names) or len(names) > _MOST_PHRASES:
        raise BadSample(f"{field.name} are not a phrase for each box")
    text = joined_phrases(names, list(dict.fromkeys(names)))
    return PhrasesValue(text.text, text.spans, names, others)


def _with_spans(field: str, value: Mapping[str, object], others: tuple[str, ...]) -> PhrasesValue:
    text = value.get("text")
    if not isinstance(text, str) or not text.strip():
        raise BadSample(f"{field} have no text that their spans are in")
    text = text.encode("utf-8", "replace").decode("utf-8")
    listed = _listed(field, value.get("spans"))
    if len(listed) > _MOST_PHRASES:
        raise BadSample(f"{field} are too many")
    spans = tuple(_spans_of(field, one, len(text)) for one in listed)
    names = tuple(" ".join(text[start:end] for start, end in one) for one in spans)
    return PhrasesValue(text, spans, names, others)


def _spans_of(field: str, value: object, length: int) -> Spans:
    """The spans of one box, in a list, or a single one; those of length 0 name nothing."""
    listed = _listed(field, value)
    single = len(listed) == 2 and not any(isinstance(part, list | tuple | np.ndarray) for part in listed)
    if not single and len(listed) > _MOST_SPANS:
        raise BadSample(f"{field} have a box with more than {_MOST_SPANS} spans")
    spans = [_span(field, span, length) for span in ([listed] if single else listed)]
    return tuple((start, end) for start, end in spans if start < end)


def _span(field: str, value: object, length: int) -> tuple[int, int]:
    numbers = [whole_number(part) for part in _listed(field, value)]
    if len(numbers) != 2 or None in numbers:
        raise BadSample(f"{field} have a span that is not two whole numbers")
    start, end = (number for number in numbers if number is not None)
    if not 0 <= start <= end <= length:
        raise BadSample(f"{field} have a span outside the text")
    return start, end


def _texts(field: FieldColumns, value: object) -> tuple[str, ...]:
    """The texts of a list of nothing else: numbers instead of names are those of categories, which no tower knows."""
    listed = _listed(field.name, value)
    for text in listed:
        if text is not None and not isinstance(text, str):
            raise BadSample(f"{field.name} hold {_held(text)} instead of a text")
    return tuple(clean_text(text, field.text_characters) for text in listed)


def _held(value: object) -> str:
    """What a value is, in words."""
    if isinstance(value, bool | np.bool_):
        return "a truth value"
    return "a number" if isinstance(value, Real) else "something else"


def _listed(field: str, value: object) -> list[object]:
    if value is None:
        raise BadSample(f"missing {field}")
    if not isinstance(value, list | tuple | np.ndarray):
        raise BadSample(f"{field} are not a list")
    return list(value)
