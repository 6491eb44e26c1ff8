"""Regions of an image as a detector describes them: a list of equally long lists of numbers a sample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from vlmdsl.runtime.data.fields import first_value
from vlmdsl.runtime.data.source import BadSample, Source, probed_positions

__all__ = ["padded_regions", "region_length", "regions_value"]


_MOST_REGIONS, _MOST_NUMBERS = 1000, 2**16
"""Of a sample, and of a region. All samples of a batch are padded to the one with the most regions."""


def regions_value(field: str, value: object, length: int | None = None) -> np.ndarray:
    """`float32 [R, F]` of a list of regions or an array; `BadSample` if it is none, is empty, or F is not `length`."""
    if value is None:
        raise BadSample(f"missing {field}")
    try:
        regions = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError) as fault:
        raise BadSample(f"{field} are no lists of numbers") from fault
    if regions.ndim != 2 or not regions.size or not np.isfinite(regions).all():
        raise BadSample(f"{field} are no lists of numbers")
    if regions.shape[0] > _MOST_REGIONS or regions.shape[1] > _MOST_NUMBERS:
        raise BadSample(f"{field} are too many numbers")
    if length is not None and regions.shape[1] != length:
        raise BadSample(f"{field} of {regions.shape[1]} numbers, not {length}")
    return regions


def region_length(source: Source, field: str, columns: Iterable[str]) -> int | None:
    """F, as most of the samples that are looked at have it; None if none of them has regions."""
    columns = tuple(columns)
    lengths: list[int] = []
    for index in probed_positions(len(source)):
        try:
            lengths.append(regions_value(field, first_value(source[index], columns)).shape[1])
        except BadSample:
            continue
    return max(sorted(set(lengths)), key=lengths.count) if lengths else None


def padded_regions(values: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """`[b, R, F]`, zeros after a sample's own regions, and the mask `[b, R]`, true = a region."""
    most = max(len(regions) for regions in values)
    padded = np.zeros((len(values), most, values[0].shape[1]), dtype=np.float32)
    mask = np.zeros((len(values), most), dtype=bool)
    for row, regions in enumerate(values):
        padded[row, : len(regions)] = regions
        mask[row, : len(regions)] = True
    return padded, mask
