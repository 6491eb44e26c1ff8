"""Images: the format of a tower, and the pixels in a batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vlmdsl.runtime.values.family import FieldColumns, SampleColumns

__all__ = ["ImageBatch", "ImageFamily", "ImageFormat", "Resampling", "resized"]

Resampling = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
"""Pillow's filters by name."""


class ImageBatch(NamedTuple):
    """Images in the form of one tower: `pixels [b, 3, H, W]`, float32."""

    pixels: Tensor


@dataclass(frozen=True)
class ImageFormat:
    """The image format of an encoder: square RGB images of side `size`, level `x` in [0, 1] as `(x - mean) / deviation`.

    An image becomes a square by a `crop` of its middle or as a whole (`squash`), resized with the filter `resampling`. With
    a `shorter` its shorter side is brought to so many pixels first, and the crop is of whole pixels, as the image processors
    of `transformers` do it. An encoder with a `patch` takes images with patches dropped, and if it is `resizable` images of
    any side that is a multiple of the patch.
    """

    size: int
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    deviation: tuple[float, float, float] = (0.5, 0.5, 0.5)
    patch: int | None = None
    fitting: Literal["crop", "squash"] = "crop"
    shorter: int | None = None
    resampling: Resampling = "bicubic"
    resizable: bool = True

    @property
    def within_one(self) -> bool:
        """Whether all standardised levels are in [-1, 1]."""
        return all(
            abs(level - mean) <= spread for mean, spread in zip(self.mean, self.deviation, strict=True) for level in (0, 1)
        )

    def side(self, share: float) -> int:
        """The side nearest to that share of `size` that the encoders take, in pixels."""
        if self.patch is None or not self.resizable:
            return self.size
        return max(round(share * self.size / self.patch), 1) * self.patch

    def patches(self, share: float) -> int:
        """The number of patches of an image of the side `side(share)` has; 0 where patches cannot be told apart."""
        return 0 if self.patch is None else (self.side(share) // self.patch) ** 2

    def patches_of(self, pixels: Tensor) -> int:
        """The number of patches of each of the images [b, 3, H, W] in this form; 0 where patches cannot be told apart."""
        height, width = pixels.shape[2:]
        return 0 if self.patch is None else height // self.patch * (width // self.patch)

    def fit(self, pixels: np.ndarray, share: float = 1.0) -> np.ndarray:
        """An image as it comes, `uint8 [H, W, 3]`, as the square `uint8 [S, S, 3]` of the side S = `side(share)`."""
        pixels = pixels if self.shorter is None else _stubby(pixels)
        side, (height, width) = self.side(share), pixels.shape[:2]
        whole = (0.0, 0.0, float(width), float(height))
        if self.shorter is None:
            if height == width == side:
                return pixels
            return resized(pixels, whole if self.fitting == "squash" else _middle(width, height), side, self.resampling)
        shorter, longer = self.shorter, int(self.shorter * max(height, width) / min(height, width))
        image = Image.fromarray(pixels).resize(
            (shorter, longer) if width <= height else (longer, shorter), Image.Resampling[self.resampling.upper()]
        )
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return np.asarray(image.crop((left, top, left + side, top + side)))

    def shown(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of an image of this size that `fit` shows: left, top, right, bottom in its pixels.

        >>> ImageFormat(32).shown(100, 60)
        (20.0, 0.0, 80.0, 60.0)
        """
        if self.shorter is None:
            return (0.0, 0.0, float(width), float(height)) if self.fitting == "squash" else _middle(width, height)
        side = min(width, height) * self.size / self.shorter
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side

    def tensor(self, images: Iterable[np.ndarray]) -> Tensor:
        """`float32 [b, 3, S, S]` of `uint8 [S, S, 3]` images."""
        levels = torch.from_numpy(np.stack(list(images))).permute(0, 3, 1, 2).contiguous().float().div_(255.0)
        mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.deviation))
        return levels.sub_(mean).div_(deviation)


class ImageFamily:
    """Fields of kind Image: a sample is `uint8 [H, W, 3]`, a batch `ImageBatch`."""

    kind = "Image"

    def probe(self, samples: object, field: FieldColumns) -> None:
        """Nothing."""

    def read(self, sample: SampleColumns, field: FieldColumns) -> np.ndarray:
        """The image in the first column that has one, upright and RGB; raises `BadSample`."""
        return sample.image(field)

    def collate(self, samples: Sequence[np.ndarray], form: object) -> ImageBatch:
        """Images of the side that the form takes as its levels."""
        assert isinstance(form, ImageFormat), f"images are brought to a tower in an ImageFormat, not {form!r}"
        return ImageBatch(form.tensor(np.asarray(image) for image in samples))


def _stubby(pixels: np.ndarray) -> np.ndarray:
    """The middle of an image more than 32 times as long as it is wide: all of it, enlarged, might not fit into memory."""
    height, width = pixels.shape[:2]
    most = 32 * min(height, width)
    top, left = max(height - most, 0) // 2, max(width - most, 0) // 2
    return pixels[top : top + most, left : left + most]


def _middle(width: int, height: int) -> tuple[float, float, float, float]:
    """The largest centred square of an image, as a box."""
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def resized(
    pixels: np.ndarray, box: tuple[float, float, float, float], size: int, resampling: Resampling = "bicubic"
) -> np.ndarray:
    """The part `box` (left, top, right, bottom) of an image, resized with antialiasing to `uint8 [size, size, 3]`."""
    image = Image.fromarray(pixels).resize((size, size), Image.Resampling[resampling.upper()], box=box)
    return np.asarray(image)
