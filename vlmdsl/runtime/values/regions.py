"""Regions of an image as a detector describes them: a list of equally long lists of numbers for each sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vlmdsl.runtime.values.bad_sample import BadSample
from vlmdsl.runtime.values.family import FieldColumns, SampleColumns, first_value
from vlmdsl.runtime.values.numeric import number_array

__all__ = ["RegionBatch", "RegionFamily", "regions_value"]


_MOST_REGIONS, _MOST_NUMBERS = 1000, 2**16
"""Of a sample, and of a region. All samples of a batch are padded to the one with the most regions."""


class RegionBatch(NamedTuple):
    """Regions `features [b, R, F]`, float32, zeros after a sample's own; `mask [b, R]`, true = a region."""

    features: Tensor
    mask: Tensor

    @property
    def padded(self) -> tuple[str, ...]:
        """The members with the axis R."""
        return ("features", "mask")


class RegionFamily:
    """Fields of kind Regions: a sample is `float32 [R, F]`, a batch `RegionBatch`."""

    kind = "Regions"

    def probe(self, samples: Iterable[Mapping[str, object]], field: FieldColumns) -> int | None:
        """F, as most of the samples have it; None if none of them has regions."""
        lengths: list[int] = []
        for columns in samples:
            try:
                lengths.append(regions_value(field.name, first_value(columns, field.columns)).shape[1])
            except BadSample:
                continue
        return max(sorted(set(lengths)), key=lengths.count) if lengths else None

    def read(self, sample: SampleColumns, field: FieldColumns) -> np.ndarray:
        """A list of regions or an array, of the F of the others; raises `BadSample`."""
        return regions_value(field.name, first_value(sample.columns, field.columns), field.facts)

    def collate(self, samples: Sequence[np.ndarray], form: object) -> RegionBatch:
        """Padded to the sample with the most regions."""
        most = max(len(regions) for regions in samples)
        features = np.zeros((len(samples), most, samples[0].shape[1]), dtype=np.float32)
        mask = np.zeros((len(samples), most), dtype=bool)
        for row, regions in enumerate(samples):
            features[row, : len(regions)] = regions
            mask[row, : len(regions)] = True
        return RegionBatch(torch.from_numpy(features), torch.from_numpy(mask))


def regions_value(field: str, value: object, length: int | None = None) -> np.ndarray:
    """`float32 [R, F]` of a list of regions or an array; `BadSample` for anything else, an empty one, or another F than
    `length`."""
    if value is None:
        raise BadSample(f"missing {field}")
    numbers = number_array(value)
    if numbers is None:
        raise BadSample(f"{field} are not equally long lists of numbers")
    with np.errstate(over="ignore"):  # what is too large is infinite, and left out below
        regions = numbers.astype(np.float32)
    if regions.ndim != 2 or not regions.size or not np.isfinite(regions).all():
        raise BadSample(f"{field} are not equally long lists of numbers")
    if regions.shape[0] > _MOST_REGIONS or regions.shape[1] > _MOST_NUMBERS:
        raise BadSample(f"{field} are too many numbers")
    if length is not None and regions.shape[1] != length:
        raise BadSample(f"{field} of {regions.shape[1]} numbers, not {length}")
    return regions
