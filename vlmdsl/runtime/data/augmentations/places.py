"""Where the pixels of a view come from, so that what is said of an image's pixels can be said of its view's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Place"]


@dataclass(frozen=True, slots=True)
class Place:
    """The part of an image that a view shows: a `box` (left, top, right, bottom) as shares of its sides, which may be
    `mirrored`."""

    box: tuple[float, float, float, float]
    mirrored: bool = False

    def of(self, numbers: np.ndarray, side: int) -> np.ndarray:
        """`[side, side]`: for each pixel of the view the number of the nearest pixel of an array `[H, W]` over the image.

        >>> Place((0.5, 0.0, 1.0, 1.0), mirrored=True).of(np.array([[1, 2, 3, 4]]), 2).tolist()
        [[4, 3], [4, 3]]
        """
        left, top, right, bottom = self.box
        centres = (np.arange(side) + 0.5) / side
        height, width = numbers.shape
        rows = np.clip((top + centres * (bottom - top)) * height, 0, height - 1).astype(np.int64)
        columns = np.clip((left + centres * (right - left)) * width, 0, width - 1).astype(np.int64)
        return numbers[np.ix_(rows, columns[::-1] if self.mirrored else columns)]
