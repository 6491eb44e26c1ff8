"""One sample of the source as the values that a batch is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sized
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

__all__ = ["Loaded", "Sample", "SampleReader"]


_SWAPS = 20
"""How many other samples are looked at for another text."""


@dataclass(frozen=True)
class Loaded:
    """One value of a batch, made per sample: a view of a field, in the format of the module that takes it (None if no module
    does), the length of its noise, and the field that holds the segments of an image, where these are read, or its
    columns."""

    view: View
    form: object = None
    noise: int | None = None
    segments: str | FieldColumns | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """The values of one sample, by their names in a batch, as their families read them.

    `kept` are the patches to encode of images with dropped patches, `replaced` those that are replaced, `noise` the
    draws for towers that draw in training, `segments` those of the patches of images, `own` whether a text was not swapped.
    `index` is the position of the sample in its source.
    """

    index: int
    key: str
    values: dict[str, Any]
    kept: dict[str, np.ndarray]
    replaced: dict[str, np.ndarray]
    noise: dict[str, np.ndarray]
    segments: dict[str, np.ndarray] = field(default_factory=dict)
    own: dict[str, bool] = field(default_factory=dict)


class SampleReader:
    """Reads samples by index, through the mapping and the views. The same arguments always give the same sample.

    `values` are the values to make, by their names in a batch. Remembers which samples are bad, and decoded images up to
    `cache_bytes`.
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
        for loaded in self.values.values():
            name, kind = loaded.view.field, loaded.view.field_kind
            if isinstance(loaded.form, ImageFormat):
                self._sides[name] = max(loaded.form.size, self._sides.get(name, 1))
            self._read_field[name] = partial(family_of(kind).read, field=mapping.field(name))
            if kind == "Image" and self._pictured is None:
                self._pictured = mapping.field(name)
            if loaded.segments is not None:
                own = mapping.field(loaded.segments) if isinstance(loaded.segments, str) else loaded.segments
                self._read_field[own.name] = partial(family_of("Segments").read, field=own)
        self._fits = _fits_of(self.values)
        self._seed = seed
        self._materials = materials
        self._images = ImageCache(cache_bytes)
        self._bad: dict[int, str] = {}

    def read(self, index: int, epoch: int, counts: Counter[str]) -> Sample:
        """Sample `index` in `epoch`; what its views lacked is added to `counts`. Raises `BadSample`."""
        if index in self._bad:
            raise BadSample(self._bad[index])
        try:
            return self._read(index, epoch, counts)
        except BadSample as fault:
            self._bad[index] = fault.reason
            raise

    def _read(self, index: int, epoch: int, counts: Counter[str]) -> Sample:
        columns, key = self.source[index], self.source.keys[index]
        sample = SampleColumns(
            columns,
            key,
            partial(self._image, index, columns),
            partial(self._choice, epoch, key),
            partial(self._extent, index, columns),
        )
        roots: dict[str, Any] = {}
        values: dict[str, Any] = {}
        kept: dict[str, np.ndarray] = {}
        replaced: dict[str, np.ndarray] = {}
        noise: dict[str, np.ndarray] = {}
        segments: dict[str, np.ndarray] = {}
        own: dict[str, bool] = {}
        counts_of_views: Counter[str] = Counter()
        for name, loaded in self.values.items():
            view = loaded.view
            segmented = loaded.segments.name if isinstance(loaded.segments, FieldColumns) else loaded.segments
            for read in filter(None, (view.field, segmented)):
                if read not in roots:
                    roots[read] = self._read_field[read](sample)
            context = ViewContext(self._seed, epoch, key, loaded.form, counts_of_views, self._materials)
            root = roots[view.field]
            if view.swap is not None:
                root, own[name] = self._swapped(root, index, view, context)
            root = self._written(root, index, view, context)
            values[name] = view.apply(root, context)
            if view.drops:
                kept[name] = view.kept(context)
            if view.replaces:
                replaced[name] = view.replaced(context)
            if loaded.noise is not None:
                noise[name] = gumbel_noise(self._seed, epoch, key, name, loaded.noise)
            if segmented is not None:
                segments[name] = view.segments(roots[view.field], roots[segmented], context)
        _check_regions(values.values())
        counts.update(counts_of_views)
        return Sample(index, key, values, kept, replaced, noise, segments, own)

    def _swapped(self, own: Any, index: int, view: View, context: ViewContext) -> tuple[Any, bool]:
        """The value of a sample or, with the probability of the view, that of another one; and whether it is its own."""
        attributes = view.swap or {}
        random, samples = context.random("swap", attributes), len(self.source) if isinstance(self.source, Sized) else 0
        if samples < 2 or random.random() >= float(str(attributes["share"])):
            return own, True
        for _ in range(_SWAPS):
            other = (index + 1 + int(random.integers(samples - 1))) % samples
            key = self.source.keys[other]
            columns = SampleColumns(self.source[other], key, partial(self._image, other), partial(self._choice, 0, key))
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

    def _extent(self, index: int, columns: Mapping[str, object]) -> tuple[int, int]:
        """The width and height of the image that boxes are in: the first image of the sample."""
        if self._pictured is None:
            raise BadSample("boxes without an image that they are in")
        value, folder = first_value(columns, self._pictured.columns), self.source.folder_of(index)
        return image_extent(value, folder, self._materials.limits)

    def _image(self, index: int, columns: Mapping[str, object], field: FieldColumns) -> np.ndarray:
        image = self._images.get((index, field.name))
        if image is None:
            value, folder = first_value(columns, field.columns), self.source.folder_of(index)
            fit = self._fits.get(field.name, np.asarray)
            image = decode_image(value, folder, self._materials.limits, self._sides.get(field.name), fit)
            self._images.put((index, field.name), image)
        return image


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
