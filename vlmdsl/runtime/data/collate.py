"""From the values of samples to those of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlmdsl.runtime.data.context import Materials, ViewContext
from vlmdsl.runtime.data.sample import Loaded, Sample
from vlmdsl.runtime.values import (
    Batch,
    ConceptsValue,
    ImageBatch,
    ImageFormat,
    KeptPatches,
    MaskedText,
    NamingText,
    Noise,
    OwnTexts,
    PatchSegments,
    ReplacedPatches,
    StandardisedImages,
    TextFormat,
    TextValue,
    Value,
    family_of,
    masked_batch,
    port,
    word_maps,
)

__all__ = ["Collation", "text_inputs"]


class Collation:
    """A batch in the making, of at most `count` samples; `values` describes their values.

    Images are brought into it as samples are added, which take a quarter of the memory before; all else when it is whole.
    """

    def __init__(self, values: Mapping[str, Loaded], count: int) -> None:
        self._values, self._samples = values, list[Sample]()
        self._images = {
            name: StandardisedImages(loaded.form, count)
            for name, loaded in values.items()
            if loaded.view.kind == "Image" and isinstance(loaded.form, ImageFormat)
        }

    def __len__(self) -> int:
        return len(self._samples)

    def add(self, sample: Sample) -> None:
        """The next sample, which is left without its images."""
        for name, images in self._images.items():
            images.add(sample.values.pop(name))
        self._samples.append(sample)

    def batch(self) -> Batch:
        """The batch of the samples that have been added, one or more."""
        samples, collated = self._samples, dict[str, Value]()
        for name, loaded in self._values.items():
            if name in self._images:
                collated[name] = ImageBatch(self._images[name].tensor())
            else:
                collated |= _collated(name, loaded, [sample.values[name] for sample in samples])
            if loaded.view.drops:
                collated[port(name, "keep")] = KeptPatches(_stacked([sample.kept[name] for sample in samples]))
            if loaded.view.swap is not None:
                collated[port(name, "own")] = OwnTexts(torch.tensor([sample.own[name] for sample in samples]))
            if loaded.view.replaces:
                collated[port(name, "replace")] = ReplacedPatches(_stacked([sample.replaced[name] for sample in samples]))
            if loaded.noise is not None:
                collated[port(name, "noise")] = Noise(_stacked([sample.noise[name] for sample in samples]))
            if loaded.segments is not None:
                collated[port(name, "segments")] = PatchSegments(_stacked([sample.segments[name] for sample in samples]))
        return Batch(collated, torch.tensor([sample.index for sample in samples]), [sample.key for sample in samples])


def text_inputs(loaded: Loaded, materials: Materials) -> Callable[[list[str]], Value]:
    """The function from texts to the inputs of a view of a text field: tokens, or images for a rendered text."""

    def inputs(texts: list[str]) -> Value:
        contexts = (ViewContext(0, 0, text, loaded.form, materials=materials) for text in texts)
        values = [loaded.view.apply(TextValue(context.key), context) for context in contexts]
        return _collated("texts", loaded, values)["texts"]

    return inputs


def _collated(name: str, loaded: Loaded, values: list[Any]) -> dict[str, Value]:
    """The values of one name as a batch; a masked text comes with its mask, one that names regions with its word map."""
    if isinstance(values[0], MaskedText):
        assert isinstance(loaded.form, TextFormat)
        text, masked = masked_batch(values, loaded.form)
        return {name: text, port(name, "masked"): masked}
    collated = {name: family_of(loaded.view.kind).collate(values, loaded.form)}
    if isinstance(values[0], NamingText | ConceptsValue):
        assert isinstance(loaded.form, TextFormat)
        collated[port(name, "word_map")] = word_maps(values, loaded.form)
    return collated


def _stacked(parts: Sequence[np.ndarray]) -> Tensor:
    return torch.stack([torch.from_numpy(part) for part in parts])
