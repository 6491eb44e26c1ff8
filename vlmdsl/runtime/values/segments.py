"""Segments of images: the number of the segment of every pixel, such as superpixels, and of every patch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vlmdsl.runtime.values.bad_sample import BadSample
from vlmdsl.runtime.values.family import FieldColumns, SampleColumns, first_value

__all__ = ["PatchSegments", "SegmentFamily", "SegmentMap", "patch_segments"]

_MOST_PIXELS = 2**26


class SegmentMap(NamedTuple):
    """`numbers [b, H, W]`, int64: the segment of every pixel."""

    numbers: Tensor


class PatchSegments(NamedTuple):
    """`numbers [b, P]`, int64: the segment of every patch of images in the form of their tower, row by row."""

    numbers: Tensor


class SegmentFamily:
    """Fields of kind Segments: a sample is `int64 [H, W]` over its image, of any resolution.

    A tower's image has the segments of its patches beside it (`PatchSegments`), which go through the crops and mirrors of
    the image's view; as a value of its own, a batch holds maps of one size.
    """

    kind = "Segments"

    def probe(self, samples: Iterable[Mapping[str, object]], field: FieldColumns) -> None:
        """Nothing."""

    def read(self, sample: SampleColumns, field: FieldColumns) -> np.ndarray:
        """Two-dimensional whole numbers, an array or lists; raises `BadSample` for anything else."""
        value = first_value(sample.columns, field.columns)
        if value is None:
            raise BadSample(f"missing {field.name}")
        try:
            numbers = np.asarray(value)
        except (TypeError, ValueError, OverflowError) as fault:
            raise BadSample(f"{field.name} are not equally long rows of numbers") from fault
        if numbers.ndim != 2 or not numbers.size or numbers.dtype.kind not in "iu":
            raise BadSample(f"{field.name} are not equally long rows of whole numbers")
        if numbers.size > _MOST_PIXELS:
            raise BadSample(f"{field.name} are of too many pixels")
        if numbers.min() < 0 or numbers.max() > 2**31 - 1:
            raise BadSample(f"{field.name} have numbers outside 0 to 2147483647")
        return numbers.astype(np.int64)

    def collate(self, samples: Sequence[np.ndarray], form: object) -> SegmentMap:
        """Maps of one size."""
        return SegmentMap(torch.from_numpy(np.stack(list(samples))))


def patch_segments(numbers: np.ndarray, patch: int) -> np.ndarray:
    """For each patch of `patch` x `patch` pixels, row by row, the truncated mean of its pixels' `numbers [S, S]`: int64 [P].

    A patch with pixels of several segments gets a number that may be that of another one, or of none; so does the released
    code of SegCLIP (ICML 2023), whose rule this is.

    >>> patch_segments(np.array([[1, 1, 0, 5], [1, 1, 5, 5]]), 2).tolist()
    [1, 3]
    """
    height, width = numbers.shape
    grid = numbers.reshape(height // patch, patch, width // patch, patch)
    return grid.mean(axis=(1, 3)).astype(np.int64).reshape(-1)
