"""A pipeline applied to pixels. To add a kind of step, put its function here."""

from __future__ import annotations

import numpy as np
from PIL import Image

from vlmdsl.primitives.pipelines import Blur, Change, Grayscale, Jitter, Mirror, Solarize, Steps
from vlmdsl.runtime.data.augmentations import colors
from vlmdsl.runtime.data.augmentations.crops import crop_box, cropped
from vlmdsl.runtime.data.augmentations.places import Place

__all__ = ["augmented", "augmented_at"]


def augmented(pixels: np.ndarray, steps: Steps, side: int, random: np.random.Generator) -> np.ndarray:
    """`uint8 [side, side, 3]` of `uint8 [H, W, 3]`: a random part of the image, changed by the other steps in turn.

    Every step first draws whether it is applied, then its numbers, so equal generators give equal views.
    """
    return augmented_at(pixels, steps, side, random)[0]


def augmented_at(pixels: np.ndarray, steps: Steps, side: int, random: np.random.Generator) -> tuple[np.ndarray, Place]:
    """The same, and which part of the image it is."""
    crop, *changes = steps
    (height, width), mirrored = pixels.shape[:2], False
    box = crop_box(width, height, crop.area, crop.ratio, random)
    part = np.asarray(cropped(Image.fromarray(pixels), box, crop, side))
    planes = colors.planes_of(part)
    for change in changes:
        if random.random() < change.chance:
            planes = _changed(planes, change, random)
            mirrored ^= isinstance(change, Mirror)
    left, top, right, bottom = box
    place = Place((left / width, top / height, right / width, bottom / height), mirrored)
    return colors.pixels_of(planes) if changes else part, place


def _changed(planes: np.ndarray, change: Change, random: np.random.Generator) -> np.ndarray:
    match change:
        case Mirror():
            return planes[:, :, ::-1]
        case Jitter():
            return colors.jittered(planes, change, random)
        case Grayscale():
            return colors.grayscale(planes)
        case Blur():
            return colors.blurred(planes, change, random)
        case Solarize():
            return colors.solarized(planes, change.threshold)
