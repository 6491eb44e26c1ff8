"""How many regions the samples of a batch are padded to, which several processes must agree on."""

from __future__ import annotations

from dataclasses import replace

from torch.nn import functional

from vlmdsl.runtime.values.batch import Batch
from vlmdsl.runtime.values.boxes import BoxBatch
from vlmdsl.runtime.values.phrases import WordMaps
from vlmdsl.runtime.values.tuples import Value

__all__ = ["padded_to", "region_count"]


def region_count(batch: Batch) -> int:
    """The number of regions that boxes and maps of words are padded to, R; 0 where a batch has none."""
    return max((value[0].shape[1] for value in batch.values.values() if isinstance(value, BoxBatch | WordMaps)), default=0)


def padded_to(batch: Batch, count: int) -> Batch:
    """The batch with `count` regions per sample: boxes of zeros, and regions that no word names, behind a sample's own."""
    return replace(batch, values={name: _padded(value, count) for name, value in batch.values.items()})


def _padded(value: Value, count: int) -> Value:
    if not isinstance(value, BoxBatch | WordMaps):
        return value
    (tensor,) = value
    return type(value)(functional.pad(tensor, (0, 0, 0, count - tensor.shape[1])))
