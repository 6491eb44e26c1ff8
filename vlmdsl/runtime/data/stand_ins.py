"""Stand-ins: substitutes for fields that the data lacks, if the mapping names them (`summary=summarize(text)`).

A stand-in is not equivalent to what the authors of a method used (a summariser, a captioner, a detector), so it is chosen by
name, is part of the run's configuration, and is listed in its report. To add one, write its function and a row of
`STAND_INS`.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.diagnostics.catalog.data import UnknownStandIn
from vlmdsl.diagnostics.catalog.environment import PackageMissing
from vlmdsl.diagnostics.suggest import closest
from vlmdsl.runtime.data.images import decode_image
from vlmdsl.runtime.data.limits import DEFAULT_LIMITS, Limits
from vlmdsl.runtime.data.source import BadSample, KeysByPlace, LazyColumns, Samples, Source, parts_of, remarks_of
from vlmdsl.runtime.data.streams import SampleStream
from vlmdsl.runtime.data.summaries import summarize
from vlmdsl.runtime.values import resized
from vlmdsl.runtime.values.text import alternatives, texts_in
from vlmdsl.source import Span

__all__ = [
    "STAND_INS",
    "Call",
    "StandIn",
    "StandInSource",
    "calls_of",
    "columns_of",
    "made_of",
    "stand_ins_for",
    "stream_with_stand_ins",
    "with_stand_ins",
]

_PLACE = Span("<command line>", 0, 0)
_COMMA = re.compile(r",(?![^()]*\))")
_CALL = re.compile(r"(\w+)\s*\(([^()]*)\)")
_MOST_PHRASES = _MOST_REGIONS = 10
_REGION_SIDE = 8


@dataclass(frozen=True)
class StandIn:
    """A stand-in for fields of one kind: what columns it takes, in words, and the function of their values."""

    kind: str
    takes: tuple[str, ...]
    summary: str
    make: Callable[..., object]
    several: bool = False
    """Whether it takes any number of columns like the last."""


@dataclass(frozen=True)
class Call:
    """A stand-in with the columns that it is made of, as a mapping writes it."""

    name: str
    columns: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}({','.join(self.columns)})"


def _summary(text: object) -> str:
    return summarize(_filled(text))


def _template(*words: object) -> str:
    """`a picture of A, B and C`, of at most ten distinct phrases."""
    phrases = alternatives("", words)[:_MOST_PHRASES]
    if not phrases:
        raise BadSample("nothing to put into a template")
    *first, last = phrases
    return "a picture of " + (", ".join(first) + " and " if first else "") + last


def _label(text: object) -> int:
    digest = hashlib.blake2b(_filled(text).encode(), digest_size=6).digest()
    return int.from_bytes(digest, "little")


def _filled(text: object) -> str:
    first = next(texts_in(text), None)
    if first is None:
        raise BadSample("no text for a stand-in")
    return first


def _grid(image: np.ndarray) -> np.ndarray:
    """The nine fields of an image cut in thirds, as regions `[9, F]`."""
    return _regions(image, [(box[0], box[1], box[2], box[3]) for box in _cells(image).tolist()])


def _crops(image: np.ndarray, boxes: object) -> np.ndarray:
    """What is inside the boxes (left, top, right, bottom in pixels), at most ten, as regions `[R, F]`."""
    height, width = image.shape[:2]
    try:
        clipped = np.asarray(boxes, dtype=np.float64).reshape(-1, 4).clip(0, (width, height, width, height))
    except (TypeError, ValueError, OverflowError) as fault:
        raise BadSample("boxes are not four numbers each") from fault
    clipped = clipped[(clipped[:, 2] - clipped[:, 0] >= 1) & (clipped[:, 3] - clipped[:, 1] >= 1)][:_MOST_REGIONS]
    if not len(clipped):
        raise BadSample("no boxes to cut out")
    return _regions(image, [(box[0], box[1], box[2], box[3]) for box in clipped.tolist()])


def _regions(image: np.ndarray, boxes: Sequence[tuple[float, float, float, float]]) -> np.ndarray:
    """Each box as its pixels, 8 by 8 and in [-1, 1], and its place as shares of the image: 196 numbers."""
    height, width = image.shape[:2]
    pixels = [resized(image, box, _REGION_SIDE).reshape(-1) / 127.5 - 1 for box in boxes]
    places = np.array(boxes) / (width, height, width, height)
    return np.concatenate([np.stack(pixels), places], axis=1).astype(np.float32)


def _cells(image: np.ndarray) -> np.ndarray:
    """The cells of a 3 x 3 grid, as boxes `[9, 4]`."""
    height, width = image.shape[:2]
    rows, columns = (list(itertools.pairwise(size * np.linspace(0, 1, 4))) for size in (height, width))
    return np.array([(left, top, right, bottom) for top, bottom in rows for left, right in columns])


def _whole(image: np.ndarray) -> np.ndarray:
    """The whole image, as boxes `[1, 4]`."""
    height, width = image.shape[:2]
    return np.array([(0.0, 0.0, width, height)])


def _blank(image: np.ndarray) -> np.ndarray:
    """An image of the same size that is grey everywhere."""
    return np.full_like(image, 128)


def _phrase(text: object) -> list[str]:
    """A text as the phrase of a single box."""
    return [_filled(text)]


def _spans(text: object, spans: object) -> Mapping[str, object]:
    """The phrases of boxes as parts of a text."""
    return {"text": text, "spans": spans}


def _superpixels(image: np.ndarray) -> np.ndarray:
    """Superpixels by Felzenszwalb's method, with the scale and the deviation of SegCLIP's code, 224 and 0.9; the smallest
    has 224 pixels, or that share of an image smaller than 224 x 224."""
    try:
        from skimage.segmentation import felzenszwalb
    except ImportError as fault:
        missing = PackageMissing.at(
            _PLACE,
            what="the stand-in `superpixels`",
            package="scikit-image",
            help=("run `pip install 'vlmdsl[superpixels]'`", "or map a column that has segments: `--map segments=COLUMN`"),
        )
        raise DiagnosticError((missing,)) from fault
    share = min(image.shape[0] * image.shape[1] / 224**2, 1.0)
    segments: np.ndarray = felzenszwalb(image, scale=224, sigma=0.9, min_size=max(round(224 * share), 1))
    return segments


STAND_INS: dict[str, StandIn] = {
    "summarize": StandIn("Text", ("TEXT",), "the first sentence of a text", _summary),
    "template": StandIn("Text", ("WORDS",), "`a picture of A, B and C`, of words or phrases", _template, several=True),
    "grid": StandIn("Regions", ("IMAGE",), "the cells of a 3 x 3 grid over an image, as small images", _grid),
    "crops": StandIn("Regions", ("IMAGE", "BOXES"), "the contents of annotated boxes, as small images", _crops),
    "cells": StandIn("Boxes", ("IMAGE",), "the cells of a 3 x 3 grid over an image", _cells),
    "whole": StandIn("Boxes", ("IMAGE",), "the whole image as a single box", _whole),
    "blank": StandIn("Image", ("IMAGE",), "a grey image, for a model that is to see nothing", _blank),
    "phrase": StandIn("Phrases", ("TEXT",), "a text as the phrase of a single box", _phrase),
    "spans": StandIn("Phrases", ("TEXT", "SPANS"), "the parts of a text that name each box", _spans),
    "superpixels": StandIn("Segments", ("IMAGE",), "superpixels of an image by Felzenszwalb's method", _superpixels),
    "hash": StandIn("Label", ("TEXT",), "a class for each distinct text", _label),
}
"""By name. `TEXT` is a column of texts, `WORDS` one of words, phrases or lists of them, `BOXES` one of pixel boxes."""


def stand_ins_for(kind: str, columns: Iterable[str] = ()) -> list[tuple[str, str]]:
    """How each stand-in for fields of a kind is written, and what it is.

    Its arguments are columns, if some of `columns` have these names.

    >>> stand_ins_for("Regions", ["image"])[1]
    ('crops(image,BOXES)', 'the contents of annotated boxes, as small images')
    """
    present = set(columns)
    return [
        (f"{name}({','.join(taken.lower() if taken.lower() in present else taken for taken in one.takes)})", one.summary)
        for name, one in STAND_INS.items()
        if one.kind == kind
    ]


def columns_of(assignment: str) -> tuple[str, ...]:
    """The columns and stand-ins that one assignment lists, in one spelling.

    >>> columns_of("tags, crops(image, boxes)")
    ('tags', 'crops(image,boxes)')
    """
    parts = [part.strip() for part in _COMMA.split(assignment)]
    return tuple(str(call) if (call := _call(part)) else part for part in parts)


def made_of(column: str) -> tuple[str, ...]:
    """The columns that a stand-in is made of; none of a column of the data.

    >>> made_of("crops(image,boxes)"), made_of("text")
    (('image', 'boxes'), ())
    """
    call = _call(column)
    return () if call is None else call.columns


def calls_of(assignments: Mapping[str, str]) -> dict[str, list[Call]]:
    """Field -> the stand-ins that its assignment names; raises `DiagnosticError` for an unknown one."""
    by_field = {name: [call for part in _COMMA.split(text) if (call := _call(part))] for name, text in assignments.items()}
    faults = tuple(fault for calls in by_field.values() for call in calls for fault in _faults(call))
    if faults:
        raise DiagnosticError(faults)
    return {name: calls for name, calls in by_field.items() if calls}


def _call(part: str) -> Call | None:
    match = _CALL.fullmatch(part.strip())
    return Call(match[1], tuple(column.strip() for column in match[2].split(","))) if match else None


def _faults(call: Call) -> Iterator[Diagnostic]:
    stand_in = STAND_INS.get(call.name)
    if stand_in is None:
        near = closest(call.name, STAND_INS)
        listed = ", ".join(f"`{name}({','.join(one.takes)})`" for name, one in STAND_INS.items())
        help = f"did you mean `{near}`?" if near else f"there are {listed}"
        yield UnknownStandIn.at(_PLACE, given=call, reason="there is none with this name", help=(help,))
    elif (
        not all(call.columns)
        or len(call.columns) < len(stand_in.takes)
        or (len(call.columns) > len(stand_in.takes) and not stand_in.several)
    ):
        help = f"write `{call.name}({','.join(stand_in.takes)})`"
        yield UnknownStandIn.at(_PLACE, given=call, reason="it does not name the columns that it needs", help=(help,))


def with_stand_ins(source: Source, calls: Iterable[Call], limits: Limits = DEFAULT_LIMITS) -> Source:
    """The source with an additional column per stand-in; itself without any. Stand-ins of missing columns are left out."""
    possible = _possible(source, calls)
    return StandInSource(source, possible, limits) if possible else source


def stream_with_stand_ins(stream: SampleStream, calls: Iterable[Call], limits: Limits = DEFAULT_LIMITS) -> SampleStream:
    """The same for a stream, whose columns are those of its head."""
    calls = list(calls)
    possible = _possible(stream.head, calls) if calls else []  # the head of a remote one takes a while
    return _StandInStream(stream, possible, limits) if possible else stream


def _possible(source: Source, calls: Iterable[Call]) -> list[Call]:
    return [call for call in dict.fromkeys(calls) if all(column in source.columns for column in call.columns)]


class _WithStandIns:
    """Samples with stand-ins as further columns, named as they are written: `summarize(text)`."""

    def __init__(self, samples: Samples, calls: Sequence[Call], limits: Limits) -> None:
        self.name = samples.name
        self._samples = samples
        self._calls = list(calls)
        self._limits = limits

    def __getitem__(self, index: int) -> Mapping[str, object]:
        sample = self._samples[index]
        return LazyColumns(sample, {str(call): partial(self._made, call, sample, index) for call in self._calls})

    def folder_of(self, index: int) -> str | None:
        return self._samples.folder_of(index)

    def _made(self, call: Call, sample: Mapping[str, object], index: int) -> object:
        stand_in = STAND_INS[call.name]
        values = [sample.get(column) for column in call.columns]
        if stand_in.takes[0] == "IMAGE":
            values[0] = decode_image(values[0], self.folder_of(index), self._limits)
        return stand_in.make(*values)


class StandInSource(_WithStandIns):
    """A source with stand-ins as further columns."""

    def __init__(self, source: Source, calls: Sequence[Call], limits: Limits = DEFAULT_LIMITS) -> None:
        super().__init__(source, calls, limits)
        self.remarks = remarks_of(source)
        self.columns: tuple[str, ...] = (*source.columns, *map(str, calls))
        self.class_names = source.class_names
        self._source = source

    @property
    def keys(self) -> Sequence[str]:
        return self._source.keys

    def __len__(self) -> int:
        return len(self._source)

    def parts(self) -> tuple[list[str], np.ndarray]:
        """The names of the sources, and for each sample the number of the one that it comes from."""
        return parts_of(self._source)


class _StandInStream(_WithStandIns):
    """A stream with stand-ins as further columns; its head is without them."""

    def __init__(self, stream: SampleStream, calls: Sequence[Call], limits: Limits) -> None:
        super().__init__(stream, calls, limits)
        self._stream = stream
        self.shards, self.head = stream.shards, stream.head
        self.places, self.forget, self.count = stream.places, stream.forget, stream.count
        self.read_once, self.fingerprint = stream.read_once, stream.fingerprint

    @property
    def keys(self) -> KeysByPlace:
        return self._stream.keys
