"""A whole pass over data: what is damaged and why, sizes, texts that are cut, repetitions, scripts."""

from __future__ import annotations

import hashlib
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from torch.utils.data import Dataset

from vlmdsl.runtime.data.images import decode_image, image_content
from vlmdsl.runtime.data.left_out import shortened
from vlmdsl.runtime.data.limits import Limits
from vlmdsl.runtime.data.loading import in_order, workers_for
from vlmdsl.runtime.data.mapping import FieldMapping
from vlmdsl.runtime.data.report import Skipped, SkipReport
from vlmdsl.runtime.data.source import BadSample, Source, probed_positions
from vlmdsl.runtime.values import TextFormat, first_value
from vlmdsl.runtime.values.text import texts_in

__all__ = ["Findings", "Repeated", "inspect", "script_of"]

_CHUNK = 64
_SHOWN = 3
_NOT_REPEATED = 0


@dataclass
class Findings:
    """What a pass over so many `samples` has found; digests, widths and heights are one per sample that could be read."""

    samples: int = 0
    skipped: SkipReport = field(default_factory=SkipReport)
    images: array[int] = field(default_factory=lambda: array("Q"))
    """A digest of each image, 0 without one."""
    texts: array[int] = field(default_factory=lambda: array("Q"))
    places: array[int] = field(default_factory=lambda: array("Q"))
    """The positions of the samples in the source."""
    widths: array[int] = field(default_factory=lambda: array("L"))
    heights: array[int] = field(default_factory=lambda: array("L"))
    words: array[int] = field(default_factory=lambda: array("L"))
    tokens: array[int] = field(default_factory=lambda: array("L"))
    scripts: Counter[str] = field(default_factory=Counter)
    """How many texts are in which script mostly."""
    listed: int = 0
    """Samples with several texts."""

    def add(self, other: Findings) -> None:
        """Add those of another part of the data."""
        self.samples += other.samples
        self.listed += other.listed
        self.skipped.merge(other.skipped)
        self.scripts.update(other.scripts)
        for name in ("images", "texts", "places", "widths", "heights", "words", "tokens"):
            getattr(self, name).extend(getattr(other, name))


@dataclass(frozen=True)
class Repeated:
    """How many samples another one equals, and the positions of two that are equal, of each of the largest groups."""

    samples: int
    examples: tuple[tuple[int, int, int], ...]
    """The size of the group, and two positions."""

    @classmethod
    def of(cls, digests: Sequence[int], places: Sequence[int]) -> Repeated:
        """Those with equal digests.

        >>> Repeated.of([7, 8, 7, 7, 0, 0], [0, 1, 2, 3, 4, 5])
        Repeated(samples=3, examples=((3, 0, 2),))
        """
        own, positions = np.asarray(digests, dtype=np.uint64), np.asarray(places, dtype=np.uint64)
        order = np.argsort(own, kind="stable")
        values, starts, counts = np.unique(own[order], return_index=True, return_counts=True)
        several = (counts > 1) & (values != _NOT_REPEATED)
        groups = sorted(zip(counts[several].tolist(), starts[several].tolist(), strict=True), key=lambda group: -group[0])
        examples = [(count, *positions[order[start : start + 2]].tolist()) for count, start in groups[:_SHOWN]]
        return cls(int(counts[several].sum()), tuple(examples))


def inspect(
    source: Source, mapping: FieldMapping, limits: Limits, *, form: TextFormat | None = None, most: int | None = None
) -> Findings:
    """Read all samples, or `most` of them spread evenly: their images and texts, as far as `mapping` has them.

    `form` counts tokens. Worker processes read them where cores allow.
    """
    positions = probed_positions(len(source), most or len(source))
    chunks = _Chunks(source, mapping, limits, form, positions)
    findings = Findings()
    for part in in_order(chunks, range(len(chunks)), workers_for(None, len(chunks))):
        findings.add(part)
    return findings


class _Chunks(Dataset[Findings]):
    """The findings of 64 samples each."""

    def __init__(
        self, source: Source, mapping: FieldMapping, limits: Limits, form: TextFormat | None, positions: Sequence[int]
    ) -> None:
        self._source, self._mapping, self._limits, self._form = source, mapping, limits, form
        self._positions = positions

    def __len__(self) -> int:
        return -(-len(self._positions) // _CHUNK)

    def __getitem__(self, number: int) -> Findings:
        findings, texts = Findings(), list[str]()
        for index in self._positions[number * _CHUNK : (number + 1) * _CHUNK]:
            findings.samples += 1
            try:
                sample = self._source[index]
                text = self._mapping.read("text", "Text", sample).text if "text" in self._mapping else ""
                extent, digest = self._image(index, sample)
            except BadSample as fault:
                findings.skipped.add([Skipped(self._source.keys[index], fault.reason)])
                continue
            findings.places.append(index)
            findings.images.append(digest)
            findings.texts.append(_digest(text.encode()) if text else _NOT_REPEATED)
            findings.widths.append(extent[0])
            findings.heights.append(extent[1])
            findings.words.append(len(text.split()))
            findings.scripts[script_of(text)] += 1 if text else 0
            findings.listed += self._several(sample)
            texts.append(text)
        if self._form is not None:
            findings.tokens.extend(self._form.tokenizer.lengths(texts))
        return findings

    def _image(self, index: int, sample: Mapping[str, object]) -> tuple[tuple[int, int], int]:
        """The width, height and digest of an image, all 0 where the data has none; raises `BadSample`."""
        if "image" not in self._mapping:
            return (0, 0), _NOT_REPEATED
        folder = self._source.folder_of(index)
        content = image_content(first_value(sample, self._mapping.columns["image"]), folder, self._limits)
        pixels = decode_image(content, folder, self._limits)
        return (pixels.shape[1], pixels.shape[0]), _digest(content if isinstance(content, bytes) else pixels.tobytes())

    def _several(self, sample: Mapping[str, object]) -> bool:
        columns = self._mapping.columns.get("text", ())
        return len(next(filter(None, (list(texts_in(sample.get(column))) for column in columns)), [])) > 1


def _digest(content: bytes) -> int:
    """A number of 64 bits, never 0."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") or 1


def script_of(text: str) -> str:
    """The script that most letters of a text are in; empty without letters.

    >>> script_of("ein Hund, 2 собаки"), script_of("一只狗"), script_of("...")
    ('Latin', 'Chinese characters', '')
    """
    counts = Counter(filter(None, map(_script, text)))
    return min(counts, key=lambda script: (-counts[script], script)) if counts else ""


_NAMED = {"CJK": "Chinese characters", "HANGUL": "Hangul", "HIRAGANA": "Japanese kana", "KATAKANA": "Japanese kana"}


@lru_cache(maxsize=65_536)
def _script(letter: str) -> str:
    """The script of a letter, by its name in Unicode: `LATIN SMALL LETTER A`; empty for everything else."""
    if not letter.isalpha():
        return ""
    first = unicodedata.name(letter, "OTHER").split()[0].partition("-")[0]
    return _NAMED.get(first, first.capitalize())


def example_keys(source: Source, repeated: Repeated) -> Iterator[str]:
    """A line for each of the largest groups of equal samples."""
    for count, first, second in repeated.examples:
        yield f"{count:,} times: {shortened(source.keys[first])}, {shortened(source.keys[second])}"
