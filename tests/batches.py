"""Batches and what they are made from, as tests of several parts write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from vlmdsl.ir import Reading, Stream
from vlmdsl.runtime.data import Loaded, View
from vlmdsl.runtime.tokenizer import Tokenizer
from vlmdsl.runtime.values import Batch, ImageFormat, ScalarBatch, TextFormat, Value

__all__ = ["batch_of", "loaded_values", "scalars", "streams_in_forms"]


def batch_of(values: Mapping[str, Value], keys: Iterable[str], draws: Mapping[str, Tensor] | None = None) -> Batch:
    """A batch of the first samples of some source."""
    keys = list(keys)
    return Batch(dict(values), torch.arange(len(keys)), keys, dict(draws or {}))


def scalars(**fields: Tensor) -> dict[str, Value]:
    """Plain fields as values of a batch."""
    return {name: ScalarBatch(numbers) for name, numbers in fields.items()}


def forms(images: ImageFormat, tokenizer: Tokenizer, length: int) -> dict[str, object]:
    """The one form of each kind of field."""
    return {"Image": images, "Text": TextFormat(tokenizer, length)}


def streams_in_forms(
    streams: Iterable[Stream | Reading], images: ImageFormat, tokenizer: Tokenizer, length: int
) -> list[Reading]:
    """What a batch holds for these streams, by their names, if all towers take one form of images and one of texts."""
    taken = forms(images, tokenizer, length)
    return [Reading(one.name, one.source, taken.get(getattr(one.source.type, "kind", ""))) for one in streams]


def loaded_values(fields: Mapping[str, str], images: ImageFormat, tokenizer: Tokenizer, length: int) -> dict[str, Loaded]:
    """Fields (name -> kind) as they are, in one form of each kind."""
    taken = forms(images, tokenizer, length)
    return {name: Loaded(View(name, kind), taken.get(kind)) for name, kind in fields.items()}
