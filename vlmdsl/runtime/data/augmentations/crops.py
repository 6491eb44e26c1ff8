"""Random parts of an image, resized."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from vlmdsl.primitives.pipelines import Crop, Range

__all__ = ["crop_box", "cropped"]

_TRIES = 10
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def crop_box(width: int, height: int, area: Range, ratio: Range, random: np.random.Generator) -> tuple[int, int, int, int]:
    """A random box (left, top, right, bottom) in whole pixels, drawn as `torchvision.transforms.RandomResizedCrop` does.

    A share of the area from `area` and the logarithm of width by height from `ratio`, both evenly; sides are rounded. The
    first of ten tries that fits into the image is placed anywhere in it. If none does, the box is the largest centred one
    whose ratio comes nearest.
    """
    logarithms = (math.log(ratio[0]), math.log(ratio[1]))
    for _ in range(_TRIES):
        pixels = width * height * random.uniform(*area)
        aspect = math.exp(random.uniform(*logarithms))
        across, along = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < across <= width and 0 < along <= height:
            left, top = int(random.integers(width - across + 1)), int(random.integers(height - along + 1))
            return left, top, left + across, top + along
    # An image of one pixel's height may be too narrow for any ratio: a side is never less than a pixel.
    across = max(min(width, round(height * ratio[1])), 1)
    along = max(min(height, round(width / ratio[0])), 1)
    left, top = (width - across) // 2, (height - along) // 2
    return left, top, left + across, top + along


def cropped(image: Image.Image, box: tuple[int, int, int, int], crop: Crop, side: int) -> Image.Image:
    """The part of an image in a box, resized with antialiasing to `side` by `side` pixels."""
    return image.crop(box).resize((side, side), _FILTERS[crop.resample])
