"""Images: the format of a tower, and the pixels in a batch."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vlmdsl.runtime.values.family import FieldColumns, SampleColumns

__all__ = ["ImageBatch", "ImageFamily", "ImageFormat", "Resampling", "StandardisedImages", "resized"]

Resampling = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
"""Pillow's filters by name."""

_WHITE = np.float32(255.0)


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

    def of_size(self, size: int) -> ImageFormat:
        """The same form with images of another size, and the margin that is cut off in proportion.

        >>> ImageFormat(224, shorter=256).of_size(448).shorter
        512
        """
        shorter = None if self.shorter is None else round(self.shorter * size / self.size)
        return replace(self, size=size, shorter=shorter)

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

    def fit(self, image: np.ndarray | Image.Image, share: float = 1.0) -> np.ndarray:
        """An image as it comes, `uint8 [H, W, 3]` or of Pillow in RGB, as the square `uint8 [S, S, 3]` of the side
        S = `side(share)`."""
        side = self.side(share)
        if self.shorter is None:
            width, height = image.size if isinstance(image, Image.Image) else image.shape[1::-1]
            if height == width == side:
                return np.asarray(image)
            whole = (0.0, 0.0, float(width), float(height))
            return resized(image, whole if self.fitting == "squash" else _middle(width, height), side, self.resampling)
        pixels = _stubby(np.asarray(image))
        height, width = pixels.shape[:2]
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
        listed = list(images)
        standardised = StandardisedImages(self, len(listed))
        for image in listed:
            standardised.add(image)
        return standardised.tensor()


class StandardisedImages:
    """At most `count` images in a form, `float32 [b, 3, S, S]`, added one by one: an image that is standardised as soon as
    it is decoded is still in the cache of the processor, and its levels need not be kept."""

    def __init__(self, form: ImageFormat, count: int) -> None:
        self._count, self._added = count, 0
        self._mean, self._deviation = (np.asarray(own, np.float32).reshape(3, 1, 1) for own in (form.mean, form.deviation))
        self._levels: np.ndarray | None = None

    def add(self, image: np.ndarray) -> None:
        """The next image, `uint8 [S, S, 3]`."""
        if self._levels is None:
            self._levels = _unused((self._count, 3, *image.shape[:2]))
        own = self._levels[self._added]
        np.divide(np.asarray(image).transpose(2, 0, 1), _WHITE, out=own)
        own -= self._mean
        own /= self._deviation
        self._added += 1

    def tensor(self) -> Tensor:
        """The images that have been added, one or more."""
        assert self._levels is not None, "no image has been added"
        return torch.from_numpy(self._levels[: self._added])


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


_POOL: deque[np.ndarray] = deque(maxlen=3)
"""Arrays of batches. The system gives the memory of a large array page by page, which takes longer than filling it."""


def _unused(shape: tuple[int, ...]) -> np.ndarray:
    """An array `float32` of this shape: one of an earlier batch that nothing refers to any more, or a new one."""
    for _ in range(len(_POOL)):
        array = _POOL.popleft()
        _POOL.append(array)
        # Referred to by the pool, the name above, and the argument; a tensor of it holds one reference more.
        if array.shape == shape and sys.getrefcount(array) == 3:
            return array
    _POOL.append(np.empty(shape, dtype=np.float32))
    return _POOL[-1]


def resized(
    pixels: np.ndarray | Image.Image, box: tuple[float, float, float, float], size: int, resampling: Resampling = "bicubic"
) -> np.ndarray:
    """The part `box` (left, top, right, bottom) of an image, resized with antialiasing to `uint8 [size, size, 3]`."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    return np.asarray(image.resize((size, size), Image.Resampling[resampling.upper()], box=box))
