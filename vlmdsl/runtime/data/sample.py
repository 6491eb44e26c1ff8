"""One sample of the source as the values that a batch is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sized
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from vlmdsl.runtime.data.context import NO_MATERIALS, Materials, ViewContext
from vlmdsl.runtime.data.images import ImageCache, decode_image, image_extent
from vlmdsl.runtime.data.mapping import FieldMapping
from vlmdsl.runtime.data.source import BadSample, Samples
from vlmdsl.runtime.data.views import View
from vlmdsl.runtime.draws import generator
from vlmdsl.runtime.values import (
    BoxesValue,
    ConceptsValue,
    FieldColumns,
    ImageFormat,
    NamingText,
    SampleColumns,
    TextValue,
    family_of,
    first_value,
    gumbel_noise,
)

__all__ = ["BegunSample", "Loaded", "Sample", "SampleReader"]


_SWAPS = 20
"""How many other samples are looked at for another text."""


@dataclass(frozen=True)
class Loaded:
    """One value of a batch, made per sample: a view of a field, in the format of the module that takes it (None if no module
    does), the length of its noise, and the field that holds the segments of an image, where these are read, or its
    columns. Boxes are in the field `image`, in the format of a tower of it."""

    view: View
    form: object = None
    noise: int | None = None
    segments: str | FieldColumns | None = None
    image: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """The values of one sample, by their names in a batch, as their families read them.

    `kept` are the patches to encode of images with dropped patches, `replaced` those that are replaced, `noise` the
    draws for towers that draw in training, `segments` those of the patches of images, `own` whether a text was not swapped.
    `index` is the position of the sample in its source.
    """

    index: int
    key: str
    values: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, np.ndarray] = field(default_factory=dict)
    replaced: dict[str, np.ndarray] = field(default_factory=dict)
    noise: dict[str, np.ndarray] = field(default_factory=dict)
    segments: dict[str, np.ndarray] = field(default_factory=dict)
    own: dict[str, bool] = field(default_factory=dict)


@dataclass(slots=True)
class BegunSample:
    """A sample before its images are decoded: the fault that was met (None: none), or the encoded images, by field, the
    values of its fields as far as they have been read, its views and the texts that it takes of others, so that each is made
    once, and what its views lacked."""

    sample: Sample
    epoch: int
    fault: BadSample | None = None
    columns: SampleColumns | None = None
    encoded: dict[str, object] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    shown: dict[int, Any] = field(default_factory=dict)
    swapped: dict[int, tuple[Any, bool]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)


class SampleReader:
    """Reads samples by index, through the mapping and the views. The same arguments always give the same sample.

    `values` are the values to make, by their names in a batch. Remembers which samples are bad, and decoded images and their
    segments up to `cache_bytes`.
    """

    def __init__(
        self,
        source: Samples,
        mapping: FieldMapping,
        values: Mapping[str, Loaded],
        *,
        seed: int = 0,
        cache_bytes: int = 0,
        materials: Materials = NO_MATERIALS,
    ) -> None:
        self.source = source
        self.values = dict(values)
        self._sides: dict[str, int] = {}
        self._read_field: dict[str, Callable[[SampleColumns], Any]] = {}
        self._pictured: FieldColumns | None = None
        self._boxed: dict[str, FieldColumns] = {}
        for loaded in self.values.values():
            name, kind = loaded.view.field, loaded.view.field_kind
            if isinstance(loaded.form, ImageFormat):
                self._sides[name] = max(loaded.form.size, self._sides.get(name, 1))
            self._read_field[name] = partial(family_of(kind).read, field=mapping.field(name))
            if kind == "Image" and self._pictured is None:
                self._pictured = mapping.field(name)
            if loaded.image is not None:
                self._boxed[name] = mapping.field(loaded.image)
            if loaded.segments is not None:
                own = mapping.field(loaded.segments) if isinstance(loaded.segments, str) else loaded.segments
                self._read_field[own.name] = partial(family_of("Segments").read, field=own)
        self._pictures = [
            mapping.field(name)
            for name in dict.fromkeys(one.view.field for one in self.values.values() if one.view.field_kind == "Image")
        ]
        self._fits = _fits_of(self.values)
        self._shown = _numbered({name: (loaded.view.shown, loaded.form) for name, loaded in self.values.items()})
        swaps = {name: (loaded.view.field, loaded.view.swap or {}) for name, loaded in self.values.items()}
        self._swaps = _numbered({name: (own, frozenset(swap.items())) for name, (own, swap) in swaps.items()})
        self._seed = seed
        self._materials = materials
        self._images = ImageCache(cache_bytes)
        self._bad: dict[int, str] = {}

    def read(self, index: int, epoch: int, counts: Counter[str]) -> Sample:
        """Sample `index` in `epoch`; what its views lacked is added to `counts`. Raises `BadSample`."""
        return self.finish(self.begin(index, epoch), counts)

    def begin(self, index: int, epoch: int) -> BegunSample:
        """The same sample, up to what is made of its images. Raises nothing.

        It takes less time to begin all samples of a batch and then to finish them than to read one after the other:
        decoding leaves nothing else in the cache of the processor.
        """
        try:
            if index in self._bad:
                raise BadSample(self._bad[index])
            columns, key = self.source[index], self.source.keys[index]
        except BadSample as fault:
            return BegunSample(Sample(index, ""), epoch, fault)
        begun = BegunSample(Sample(index, key), epoch)
        try:
            image, extent = partial(self._image, begun), partial(self._extent, index, columns)
            begun.columns = SampleColumns(columns, key, image, partial(self._choice, epoch, key), extent)
            for own in self._pictures:
                if self._images.get((index, own.name)) is None:
                    begun.encoded[own.name] = first_value(columns, own.columns)
            for name, loaded in self.values.items():
                if loaded.view.field_kind != "Image":
                    self._make(name, loaded, begun)
        except BadSample as fault:
            begun.fault = fault
        return begun

    def finish(self, begun: BegunSample, counts: Counter[str]) -> Sample:
        """The whole sample; what its views lacked is added to `counts`. Raises `BadSample`."""
        sample = begun.sample
        try:
            if begun.fault is not None:
                raise begun.fault
            for name, loaded in self.values.items():
                if loaded.view.field_kind == "Image":
                    self._make(name, loaded, begun)
            _check_regions(sample.values.values())
        except BadSample as fault:
            self._bad[sample.index] = fault.reason
            raise
        finally:
            begun.columns = None  # which refers to what has been begun
            begun.fields.clear()
            begun.shown.clear()
            begun.swapped.clear()
        counts.update(begun.counts)
        return sample

    def _make(self, name: str, loaded: Loaded, begun: BegunSample) -> None:
        """Add one value to a sample."""
        view, sample, fields = loaded.view, begun.sample, begun.fields
        segmented = loaded.segments.name if isinstance(loaded.segments, FieldColumns) else loaded.segments
        for read in (view.field,) if segmented is None else (view.field, segmented):
            if read not in fields:
                fields[read] = self._segments(read, begun) if read == segmented else self._read(read, begun)
        context = ViewContext(self._seed, begun.epoch, sample.key, loaded.form, begun.counts, self._materials)
        own, shown = fields[view.field], self._shown[name]
        if view.swap is not None:
            swap = self._swaps[name]
            if swap not in begun.swapped:
                begun.swapped[swap] = self._swapped(own, sample.index, view, context)
            own, sample.own[name] = begun.swapped[swap]
        if shown not in begun.shown:  # masks of one view, and the view itself, show the same pixels
            begun.shown[shown] = view.apply(self._written(own, sample.index, view, context), context)
        sample.values[name] = begun.shown[shown]
        if view.drops:
            sample.kept[name] = view.kept(context)
        if view.replaces:
            sample.replaced[name] = view.replaced(context)
        if loaded.noise is not None:
            sample.noise[name] = gumbel_noise(self._seed, begun.epoch, sample.key, name, loaded.noise)
        if segmented is not None:
            sample.segments[name] = view.segments(fields[view.field], fields[segmented], context)

    def _read(self, name: str, begun: BegunSample) -> Any:
        assert begun.columns is not None, "the sample has been read"
        return self._read_field[name](begun.columns)

    def _segments(self, name: str, begun: BegunSample) -> np.ndarray:
        """Segments of an image, which take as long to make (superpixels) as an image takes to decode."""
        key = begun.sample.index, name
        kept = self._images.get(key)
        if kept is not None:
            return kept.astype(np.int64)
        segments: np.ndarray = self._read(name, begun)
        self._images.put(key, segments.astype(np.min_scalar_type(segments.max())))
        return segments

    def _swapped(self, own: Any, index: int, view: View, context: ViewContext) -> tuple[Any, bool]:
        """The value of a sample or, with the probability of the view, that of another one; and whether it is its own."""
        attributes = view.swap or {}
        random, samples = context.random("swap", attributes), len(self.source) if isinstance(self.source, Sized) else 0
        if samples < 2 or random.random() >= float(str(attributes["share"])):
            return own, True
        for _ in range(_SWAPS):
            other = (index + 1 + int(random.integers(samples - 1))) % samples
            key = self.source.keys[other]
            columns = SampleColumns(self.source[other], key, choice=partial(self._choice, 0, key))
            try:
                value = self._read_field[view.field](columns)
            except BadSample:
                continue
            if value.text != own.text:
                return value, False
        return own, True

    def _written(self, own: Any, index: int, view: View, context: ViewContext) -> Any:
        """What a decoder has written of a sample, where the view takes that; else its own value."""
        if view.written is None:
            return own
        writing, attributes = view.written
        texts = self._materials.written.get(writing)
        if texts is None:  # of held-out samples, and of stages by themselves, as for `verify`
            return own
        context.counts["written: draws"] += 1
        if context.random("written", attributes).random() >= float(str(attributes["share"])):
            return own
        text = texts[index]
        context.counts["written: nothing was written, own text used"] += not text
        return TextValue(text) if text else own

    def _choice(self, epoch: int, key: str, field: FieldColumns, count: int) -> int:
        """The first text of several, or one drawn in each epoch."""
        if not self._materials.draw_captions:
            return 0
        return int(generator(self._seed, "caption", epoch, key, field.name).integers(count))

    def _extent(self, index: int, columns: Mapping[str, object], boxes: str = "") -> tuple[int, int]:
        """The width and height of the image that the boxes of this field are in, by default of the first of the sample."""
        pictured = self._boxed.get(boxes, self._pictured)
        if pictured is None:
            raise BadSample("boxes without an image that they are in")
        value, folder = first_value(columns, pictured.columns), self.source.folder_of(index)
        return image_extent(value, folder, self._materials.limits)

    def _image(self, begun: BegunSample, field: FieldColumns) -> np.ndarray:
        index = begun.sample.index
        image = self._images.get((index, field.name))
        if image is None:
            value, folder = begun.encoded.pop(field.name), self.source.folder_of(index)
            fit = self._fits.get(field.name, np.asarray)
            image = decode_image(value, folder, self._materials.limits, self._sides.get(field.name), fit)
            self._images.put((index, field.name), image)
        return image


def _numbered(keys: Mapping[str, Hashable]) -> dict[str, int]:
    """A number for each of these, the same where they are equal."""
    numbers: dict[Hashable, int] = {}
    return {name: numbers.setdefault(key, len(numbers)) for name, key in keys.items()}


def _fits_of(values: Mapping[str, Loaded]) -> dict[str, Callable[[np.ndarray | Image.Image], np.ndarray]]:
    """What brings the image of a field to the format of its tower as soon as it is decoded, where nothing else reads it."""
    readers: dict[str, set[object]] = {}
    for loaded in values.values():
        # What is moved or brought to a shorter side first is not the same if it is done twice.
        once = loaded.view.untouched and loaded.segments is None
        form = loaded.form if once and isinstance(loaded.form, ImageFormat) and loaded.form.shorter is None else None
        readers.setdefault(loaded.view.field, set()).add(form)
    alone = {name: next(iter(forms)) for name, forms in readers.items() if len(forms) == 1}
    return {name: form.fit for name, form in alone.items() if isinstance(form, ImageFormat)}


def _check_regions(values: Iterable[object]) -> None:
    """What is said of the regions of a sample is said of as many; raises `BadSample`."""
    counts = {value.regions for value in values if isinstance(value, BoxesValue | NamingText | ConceptsValue)}
    if len(counts) > 1:
        raise BadSample(f"boxes and their phrases are not as many: {' and '.join(map(str, sorted(counts)))}")
