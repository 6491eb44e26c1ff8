"""A survey of the data before the first step: what is cut, skipped, repeated, ignored or left out."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.cells import displayed
from vlmdsl.ir.operations import OPERATIONS
from vlmdsl.runtime.data.context import Materials
from vlmdsl.runtime.data.left_out import shortened
from vlmdsl.runtime.data.mapping import FieldMapping
from vlmdsl.runtime.data.report import Skipped, SkipReport, too_few_usable, too_many_bad
from vlmdsl.runtime.data.sample import Loaded, SampleReader
from vlmdsl.runtime.data.source import BadSample, Source, is_sound, probed_positions, remarks_of
from vlmdsl.runtime.data.stand_ins import made_of
from vlmdsl.runtime.data.texts import duplicate_share
from vlmdsl.runtime.data.views import View
from vlmdsl.runtime.values import TextFormat, first_value
from vlmdsl.runtime.values.text import texts_in
from vlmdsl.types import FIELD_KINDS, plain_kinds

__all__ = ["CutTexts", "Survey", "survey"]

_READ, _COUNTED = 512, 2000
"""How many samples are read as a whole, and of how many texts and images are counted; spread over the data."""

_KEPT = 0.99
_NOTABLE = 0.01
"""The share of repeated texts or images from which on they are reported."""

_MOST_COLUMNS, _MOST_NOTED = 12, 100
"""Columns that are reported, and that are noted."""


@dataclass(frozen=True)
class CutTexts:
    """The share of texts longer than `length` tokens, and the length in tokens at which 99 % of them stay whole."""

    share: float
    length: int
    keeping: int


@dataclass
class Survey:
    """The result of inspecting `looked_at` samples; shares are of a field's texts or images, by name."""

    looked_at: int
    read: int
    """How many of them were read as a whole, images and all."""
    remarks: list[str]
    skipped: SkipReport
    unused: list[str] = field(default_factory=list)
    """Columns that nothing reads."""
    draws_captions: bool = False
    """Whether one of several texts is drawn in each epoch."""
    cut: dict[str, CutTexts] = field(default_factory=dict)
    length_setting: str = "model.text_length"
    """The setting that says of how many tokens texts are."""
    overlong: dict[str, float] = field(default_factory=dict)
    """Longer than `data.max_text_characters`."""
    listed: dict[str, float] = field(default_factory=dict)
    """One of several that a sample lists."""
    repeated: dict[str, float] = field(default_factory=dict)
    """Texts that another one equals."""
    repeated_images: dict[str, float] = field(default_factory=dict)

    def lines(self, training: bool = True) -> list[str]:
        """Remarks for people, one line each, safe for a terminal. Some apply to training data only."""
        lines = [*self.remarks, *self._on_samples(), *self._on_cuts()]
        if training:
            lines += [*self._on_columns(), *self._on_lists(), *self._on_repetitions()]
        return [displayed(line) for line in lines]

    def _on_samples(self) -> Iterable[str]:
        if self.skipped.samples:
            skipped = "; ".join(line.strip() for line in self.skipped.table().splitlines())
            yield f"of {self.read:,} samples read: {skipped}"

    def _on_columns(self) -> Iterable[str]:
        if self.unused:
            shown = ", ".join(f"`{shortened(name)}`" for name in self.unused[:_MOST_COLUMNS])
            more = len(self.unused) - _MOST_COLUMNS
            yield f"unused columns: {shown}{f' and {more} more' if more > 0 else ''}"

    def _on_cuts(self) -> Iterable[str]:
        for name, cut in self.cut.items():
            if cut.share > 0:
                yield (
                    f"{cut.share:.1%} of the inspected `{name}` are truncated to {cut.length} tokens; "
                    f"`{self.length_setting}={cut.keeping}` keeps 99 % of them whole"
                )
        for name, share in self.overlong.items():
            yield f"{share:.1%} of the inspected `{name}` are truncated to `data.max_text_characters`"

    def _on_lists(self) -> Iterable[str]:
        for name, share in self.listed.items():
            used = "the first is used (`data.captions=draw` draws one in each epoch)"
            if self.draws_captions:
                used = "one is drawn in each epoch (`data.captions=first` uses the first)"
            yield f"{share:.0%} of the inspected samples list several texts for `{name}`, of which {used}"

    def _on_repetitions(self) -> Iterable[str]:
        for name, share in (self.repeated | self.repeated_images).items():
            if share >= _NOTABLE:
                yield f"{share:.0%} of the inspected `{name}` are not unique: such pairs are each other's negatives"

    def as_dict(self) -> dict[str, object]:
        """The same as JSON may hold it, without what is empty; repeated texts are always there."""
        cut = {
            name: {"share": cut.share, "tokens": cut.length, "tokens_for_99_percent": cut.keeping}
            for name, cut in self.cut.items()
        }
        parts: dict[str, object] = {
            "looked_at": self.looked_at,
            "read": self.read,
            "skipped": self.skipped.counts,
            "unused_columns": self.unused[:_MOST_NOTED],
            "cut_texts": cut,
            "overlong_texts": self.overlong,
            "listed_texts": self.listed,
            "duplicate_images": self.repeated_images,
        }
        return {"duplicate_texts": self.repeated} | {name: part for name, part in parts.items() if part}


def survey(
    source: Source,
    mapping: FieldMapping,
    fields: Mapping[str, str],
    values: Mapping[str, Loaded],
    *,
    materials: Materials,
    batch: int = 1,
    max_bad_share: float = 1.0,
) -> Survey:
    """Inspect up to 512 samples, and the texts and images of up to 2,000.

    `fields` are the fields that are read, with their kinds, `values` those of batches. Raises `DiagnosticError` if there are
    fewer good samples than `batch`, or a larger share of bad ones than `max_bad_share`.
    """
    read = {name: kind for name, kind in fields.items() if name in mapping}
    positions = [] if is_sound(source) else probed_positions(len(source), _READ)
    skipped = _skipped(source, mapping, read, positions, values, materials)
    if skipped:
        good = len(positions) - len(skipped)
        if not good or (good < batch and len(positions) == len(source)):
            raise DiagnosticError((too_few_usable(source.name, len(positions), good, batch, skipped),))
        if len(skipped) > max_bad_share * len(positions):
            raise DiagnosticError((too_many_bad(source.name, len(positions), len(skipped), max_bad_share, skipped),))
    used = {part for columns in mapping.columns.values() for column in columns for part in (column, *made_of(column))}
    result = Survey(
        looked_at=min(len(source), _COUNTED),
        read=len(positions),
        remarks=list(remarks_of(source)),
        skipped=SkipReport({sample.key: sample.reason for sample in skipped}),
        unused=[] if is_sound(source) else [name for name in source.columns if name not in used],
        draws_captions=materials.draw_captions,
    )
    for name, kind in read.items():
        if kind == "Text":
            encoded = [one.form for one in values.values() if one.view.field == name and _is_whole(one.view)]
            forms = [form for form in dict.fromkeys(encoded) if isinstance(form, TextFormat)]
            _count_texts(result, source, mapping, name, forms)
        elif kind == "Image" and not is_sound(source):
            result.repeated_images[name] = duplicate_share(_identities(source, mapping, name, result.skipped.samples))
    return result


def _is_whole(view: View) -> bool:
    """Whether all of a text becomes tokens: not its summary, nor an image of it."""
    return view.kind == "Text" and not any(OPERATIONS[operation].in_evaluation for operation, _ in view.steps)


def _skipped(
    source: Source,
    mapping: FieldMapping,
    fields: Mapping[str, str],
    positions: Sequence[int],
    values: Mapping[str, Loaded],
    materials: Materials,
) -> list[Skipped]:
    """The samples that cannot be used."""
    forms = {one.view.field: one.form for one in values.values() if one.view.kind == fields.get(one.view.field)}
    plain = {
        name: Loaded(View(name, kind), forms.get(name))
        for name, kind in sorted(fields.items(), key=lambda field: field[1] not in plain_kinds())  # as a loader does it
        if kind in FIELD_KINDS and FIELD_KINDS[kind].family is not None
    }
    reader = SampleReader(source, mapping, plain, materials=materials)
    skipped = []
    for index in positions:
        try:
            reader.read(index, 0, Counter())
        except BadSample as fault:
            skipped.append(Skipped(source.keys[index], fault.reason))
    return skipped


def _count_texts(result: Survey, source: Source, mapping: FieldMapping, name: str, encoded: Iterable[TextFormat]) -> None:
    """Add the counts of the texts of a field, which become tokens in these formats."""
    texts: list[str] = []
    listed = overlong = 0
    for sample in _samples(source):
        try:
            value = mapping.read(name, "Text", sample)
            values = next(filter(None, (list(texts_in(sample.get(column))) for column in mapping.columns[name])))
        except BadSample:
            continue
        texts.append(value.text)
        listed += len(values) > 1
        overlong += len(values[0]) > mapping.text_characters
    result.repeated[name] = duplicate_share(texts)
    if listed:
        result.listed[name] = listed / len(texts)
    if overlong:
        result.overlong[name] = overlong / len(texts)
    if texts:
        cut = [_cut(form, texts) for form in encoded]
        result.cut |= {name: max(cut, key=lambda one: one.share)} if cut else {}


def _cut(form: TextFormat, texts: Sequence[str]) -> CutTexts:
    lengths = sorted(form.tokenizer.lengths(texts))
    share = sum(length > form.length for length in lengths) / len(lengths)
    return CutTexts(share, form.length, lengths[min(int(_KEPT * len(lengths)), len(lengths) - 1)])


def _identities(source: Source, mapping: FieldMapping, name: str, bad: Container[str]) -> Iterable[Hashable]:
    """Identifiers of images without decoding them: their paths, or a digest of their bytes, without `bad` samples."""
    for position, sample in zip(probed_positions(len(source), _COUNTED), _samples(source), strict=True):
        try:
            value = None if source.keys[position] in bad else first_value(sample, mapping.columns[name])
        except BadSample:
            continue
        if isinstance(value, bytes):
            yield hashlib.blake2b(value, digest_size=16).digest()
        elif isinstance(value, str | Path):
            yield os.path.normpath(os.path.join(source.folder_of(position) or "", str(value).strip()))


def _samples(source: Source) -> Iterable[Mapping[str, object]]:
    """Up to 2,000 samples, a bad one without columns."""
    for index in probed_positions(len(source), _COUNTED):
        try:
            yield source[index]
        except BadSample:
            yield {}
