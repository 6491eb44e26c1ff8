"""A pipeline applied to pixels. To add a kind of step, put its function here."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageOps

from vlmdsl.primitives.pipelines import Blur, Crop, Grayscale, Jitter, Mirror, Solarize, Step
from vlmdsl.runtime.data.augmentations import colors
from vlmdsl.runtime.data.augmentations.crops import cropped

__all__ = ["augmented"]


def augmented(pixels: np.ndarray, steps: Iterable[Step], side: int, random: np.random.Generator) -> np.ndarray:
    """`uint8 [side, side, 3]` (without a crop: of the image's own size) of `uint8 [H, W, 3]`, by the steps in turn.

    Every step with a chance draws first whether it is taken, then its numbers; so the same generator gives the same view.
    """
    image = Image.fromarray(pixels)
    for step in steps:
        if isinstance(step, Crop):
            image = cropped(image, step, side, random)
        elif random.random() < step.chance:
            image = _changed(image, step, random)
    return np.asarray(image)


def _changed(image: Image.Image, step: Step, random: np.random.Generator) -> Image.Image:
    match step:
        case Mirror():
            return ImageOps.mirror(image)
        case Jitter():
            return colors.jittered(image, step, random)
        case Grayscale():
            return colors.grayscale(image)
        case Blur():
            return colors.blurred(image, step, random)
        case Solarize():
            return colors.solarized(image, step)
        case _:
            raise AssertionError(f"no such step: {step}")
