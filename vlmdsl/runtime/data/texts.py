"""A pass over the texts of the data, to train the tokenizer and to count repeated captions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping

from vlmdsl.runtime.data.mapping import FieldMapping
from vlmdsl.runtime.data.source import BadSample, Source, probed_positions
from vlmdsl.runtime.values import FieldColumns, SampleColumns, family_of

__all__ = ["duplicate_share", "texts_of"]


def texts_of(
    source: Source, mapping: FieldMapping, fields: Iterable[str], limit: int = 200_000, *, rewrites: bool = True
) -> Iterator[str]:
    """The texts of `fields`, and optionally their rewrites, in order; of at most `limit` samples, spread evenly.

    A field may be one of phrases, which are texts too.
    """
    fields = list(fields)
    for index in probed_positions(len(source), limit):
        for name in fields:
            try:
                yield from _texts(source[index], mapping.field(name), rewrites)
            except BadSample:
                continue


def _texts(sample: Mapping[str, object], field: FieldColumns, rewrites: bool) -> Iterator[str]:
    """The texts of one field of a sample."""
    if isinstance(field.facts, tuple):  # what is known of phrases: names that occur
        yield family_of("Phrases").read(SampleColumns(sample), field).text
        return
    value = family_of("Text").read(SampleColumns(sample), field)
    yield value.text
    yield from value.rewrites if rewrites else ()


def duplicate_share(values: Iterable[Hashable]) -> float:
    """The share of texts or images that another one equals: such pairs are each other's negatives although they agree.

    >>> duplicate_share(["a dog", "a cat", "a dog", "a bird"])
    0.5
    """
    counts = Counter(values)
    total = sum(counts.values())
    return sum(count for count in counts.values() if count > 1) / total if total else 0.0
