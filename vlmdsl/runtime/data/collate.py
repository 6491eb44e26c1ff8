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
    KeptPatches,
    MaskedText,
    NamingText,
    Noise,
    OwnTexts,
    PatchSegments,
    ReplacedPatches,
    TextFormat,
    TextValue,
    Value,
    family_of,
    masked_batch,
    port,
    word_maps,
)

__all__ = ["batch_of", "text_inputs"]


def batch_of(samples: Sequence[Sample], values: Mapping[str, Loaded]) -> Batch:
    """The batch of these samples; `values` describes their values."""
    collated: dict[str, Value] = {}
    for name, loaded in values.items():
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
