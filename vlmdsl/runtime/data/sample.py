"""One sample of the source as the values that a batch is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vlmdsl.runtime.data.context import NO_MATERIALS, Materials, ViewContext
from vlmdsl.runtime.data.draws import generator
from vlmdsl.runtime.data.fields import MaskedText, TextValue, key_number
from vlmdsl.runtime.data.forms import InputForms
from vlmdsl.runtime.data.images import ImageCache, decode_image
from vlmdsl.runtime.data.mapping import FieldMapping
from vlmdsl.runtime.data.source import BadSample, Source
from vlmdsl.runtime.data.views import View

__all__ = ["Sample", "SampleReader"]


@dataclass(frozen=True, slots=True)
class Sample:
    """The value of each stream (pixels of the wanted side, a text, masked or not, or regions) and of each plain field.

    `kept` are the patches to encode of those streams of images that have some dropped, `noise` what is drawn for those
    whose towers draw in training.
    """

    key: str
    streams: dict[str, np.ndarray | str | MaskedText]
    fields: dict[str, int | bool | float]
    kept: dict[str, np.ndarray]
    noise: dict[str, np.ndarray]


class SampleReader:
    """Reads samples by index, through the mapping and the views. The same arguments always give the same sample.

    `views` are the streams by name, `fields` the plain fields by name with their kinds, `noise` how many numbers of Gumbel
    noise a stream takes, by its name. Remembers which samples are bad, and decoded images up to `cache_bytes`.
    """

    def __init__(
        self,
        source: Source,
        mapping: FieldMapping,
        views: Mapping[str, View],
        fields: Mapping[str, str],
        *,
        forms: InputForms,
        seed: int = 0,
        cache_bytes: int = 0,
        materials: Materials = NO_MATERIALS,
        noise: Mapping[str, int] | None = None,
    ) -> None:
        self.source = source
        self.views = dict(views)
        self.fields = dict(fields)
        self._mapping = mapping
        self._forms = forms
        self._sides: dict[str, int] = {}
        for name, view in self.views.items():
            if view.field_kind == "Image":
                self._sides[view.field] = max(forms.image(name).size, self._sides.get(view.field, 1))
        self._seed = seed
        self._materials = materials
        self._noise = dict(noise or {})
        self._images = ImageCache(cache_bytes)
        self._bad: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.source)

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
        columns = self.source[index]
        key = self.source.keys[index]
        counts_of_views: Counter[str] = Counter()
        contexts = {
            name: ViewContext(self._seed, epoch, key, self._forms.image(name), counts_of_views, self._materials)
            for name in self.views
        }
        plain = {
            name: key_number(key) if kind == "Key" else self._mapping.plain(name, kind, columns)
            for name, kind in self.fields.items()
        }
        roots: dict[str, np.ndarray | TextValue] = {}
        streams: dict[str, np.ndarray | str | MaskedText] = {}
        for name, view in self.views.items():
            if view.field not in roots:
                roots[view.field] = self._field(index, view, columns, epoch)
            value = view.apply(roots[view.field], contexts[name])
            streams[name] = (value.masked or value.text) if isinstance(value, TextValue) else value
        kept = {name: view.kept(contexts[name]) for name, view in self.views.items() if view.drops}
        counts.update(counts_of_views)
        noise = {name: self._drawn(epoch, key, name, length) for name, length in self._noise.items()}
        return Sample(key, streams, plain, kept, noise)

    def _drawn(self, epoch: int, key: str, stream: str, length: int) -> np.ndarray:
        return generator(self._seed, "noise", epoch, key, stream).gumbel(size=length).astype(np.float32)

    def _field(self, index: int, view: View, columns: Mapping[str, object], epoch: int) -> np.ndarray | TextValue:
        if view.field_kind == "Text":
            purpose = (self._seed, "caption", epoch, self.source.keys[index], view.field)
            choose = (lambda count: int(generator(*purpose).integers(count))) if self._materials.draw_captions else None
            return self._mapping.text(view.field, columns, choose)
        if view.kind == "Regions":
            return self._mapping.regions(view.field, columns)
        image = self._images.get((index, view.field))
        if image is None:
            value, folder = self._mapping.image(view.field, columns), self.source.folder_of(index)
            image = decode_image(value, folder, self._materials.limits, self._sides.get(view.field))
            self._images.put((index, view.field), image)
        return image
