"""Boxes in an image: a list of four numbers each, in pixels of the image as it is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vlmdsl.runtime.values.bad_sample import BadSample
from vlmdsl.runtime.values.family import FieldColumns, SampleColumns
from vlmdsl.runtime.values.image import ImageFormat
from vlmdsl.runtime.values.numeric import number_array

__all__ = ["BoxBatch", "BoxFamily", "BoxesValue"]

_MOST_BOXES = 1000
"""Of a sample. All samples of a batch are padded to the one with the most boxes."""


class BoxBatch(NamedTuple):
    """Boxes `boxes [b, R, 4]`, float32: left, top, right, bottom as shares of the image that the tower sees; rows of zeros
    after a sample's own, and in place of boxes that it does not see."""

    boxes: Tensor


@dataclass(frozen=True, slots=True)
class BoxesValue:
    """The boxes `float64 [R, 4]` of an image of `extent` (width, height), in its pixels."""

    boxes: np.ndarray
    extent: tuple[int, int]

    @property
    def regions(self) -> int:
        """R."""
        return len(self.boxes)

    def shares(self, form: ImageFormat | None) -> np.ndarray:
        """The boxes as shares of the part of the image that a tower with this format sees, cut at its edges."""
        width, height = self.extent
        left, top, right, bottom = (0.0, 0.0, width, height) if form is None else form.shown(width, height)
        origin, size = np.array([left, top, left, top]), np.array([right - left, bottom - top] * 2)
        shares = ((self.boxes - origin) / size).clip(0.0, 1.0)
        empty = (shares[:, 2] <= shares[:, 0]) | (shares[:, 3] <= shares[:, 1])
        return np.where(empty[:, None], 0.0, shares)


class BoxFamily:
    """Fields of kind Boxes: a sample is a `BoxesValue`, a batch a `BoxBatch`."""

    kind = "Boxes"

    def probe(self, samples: object, field: FieldColumns) -> None:
        """Nothing."""

    def read(self, sample: SampleColumns, field: FieldColumns) -> BoxesValue:
        """A list of boxes or an array [R, 4], cut at the edges of the image; an empty list is an image without any. Raises
        `BadSample` for anything else, for boxes without a part in the image, and for shares of it in place of pixels."""
        value = next((sample.columns.get(name) for name in field.columns if sample.columns.get(name) is not None), None)
        if value is None:
            raise BadSample(f"missing {field.name}")
        numbers = number_array(value)
        if numbers is None:
            raise BadSample(f"{field.name} are not four numbers each")
        boxes = numbers.astype(np.float64)
        boxes = boxes.reshape(0, 4) if not boxes.size and boxes.ndim <= 2 else boxes
        if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
            raise BadSample(f"{field.name} are not four numbers each")
        if len(boxes) > _MOST_BOXES:
            raise BadSample(f"{field.name} are too many")
        width, height = sample.extent(field.name)
        if boxes.size and boxes.max() <= 1.0 < min(width, height):
            raise BadSample(f"{field.name} within one pixel: they are in pixels, not shares of the image")
        boxes = boxes.clip(0.0, (width, height, width, height))
        if ((boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])).any():
            raise BadSample(f"{field.name} outside the image, or without an area: left, top, right, bottom in pixels")
        return BoxesValue(boxes, (width, height))

    def collate(self, samples: Sequence[BoxesValue], form: object) -> BoxBatch:
        """Shares of the image in the format of its tower, padded to the sample with the most boxes, at least one."""
        boxes = np.zeros((len(samples), max(1, *(value.regions for value in samples)), 4), dtype=np.float32)
        for row, value in enumerate(samples):
            boxes[row, : value.regions] = value.shares(form if isinstance(form, ImageFormat) else None)
        return BoxBatch(torch.from_numpy(boxes))
