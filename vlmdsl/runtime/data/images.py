"""Images from whatever a column holds to the pixels an encoder takes."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from vlmdsl.runtime.data.files import read_inside
from vlmdsl.runtime.data.limits import DEFAULT_LIMITS, Limits
from vlmdsl.runtime.data.source import BadSample

__all__ = ["IMAGE_SUFFIXES", "ImageCache", "ImageFormat", "Resampling", "decode_image", "resized"]

IMAGE_SUFFIXES = ("png", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "dib", "gif", "tif", "tiff", "avif")

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "AVIF")
"""What is decoded, whatever a file is called. Pillow knows more, and for some (EPS) starts other programs."""

_DETAIL = 4
"""A JPEG is decoded no smaller than this times the side that the encoder takes: crops are enlarged from a part of it."""

_ADDRESS = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://")
_ORIENTATION = 0x0112
_TILE_WIDTH, _TILE_LENGTH = 0x0142, 0x0143
_SCAN, _MOST_SCANS = b"\xff\xda", 100
"""A progressive JPEG has about ten; each takes as long to decode as the whole image."""
_SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I")


Resampling = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
"""Pillow's filters by name."""


@dataclass(frozen=True)
class ImageFormat:
    """What the encoders take: square RGB images of side `size`, level `x` in [0, 1] as `(x - mean) / deviation`.

    An image becomes a square by a `crop` of its middle or as a whole (`squash`), resized with the filter `resampling`. With
    a `shorter` its shorter side is brought to so many pixels first, and the crop is of whole pixels, as the image processors
    of `transformers` do it. An encoder with a `patch` takes images of any side that is a multiple of it, and those with
    patches dropped.
    """

    size: int
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    deviation: tuple[float, float, float] = (0.5, 0.5, 0.5)
    patch: int | None = None
    fitting: Literal["crop", "squash"] = "crop"
    shorter: int | None = None
    resampling: Resampling = "bicubic"

    def side(self, share: float) -> int:
        """The side nearest to that share of `size` that the encoders take, in pixels."""
        if self.patch is None:
            return self.size
        return max(round(share * self.size / self.patch), 1) * self.patch

    def patches(self, share: float) -> int:
        """How many patches an image of the side `side(share)` has; 0 where patches cannot be told apart."""
        return 0 if self.patch is None else (self.side(share) // self.patch) ** 2

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

    def tensor(self, images: Iterable[np.ndarray]) -> Tensor:
        """`float32 [b, 3, S, S]` of `uint8 [S, S, 3]` images."""
        levels = torch.from_numpy(np.stack(list(images))).permute(0, 3, 1, 2).contiguous().float().div_(255.0)
        mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.deviation))
        return levels.sub_(mean).div_(deviation)


def decode_image(
    value: object, folder: str | None = None, limits: Limits = DEFAULT_LIMITS, side: int | None = None
) -> np.ndarray:
    """`uint8 [H, W, 3]`, RGB, upright, of encoded bytes, a path (relative to `folder`), a Pillow image or such an array.

    A path leads to a regular file inside `folder` or a folder that the limits allow; without a folder a text is no path.
    Transparent pixels show a white ground: the colour they hide is arbitrary. With `side`, a JPEG much larger than it is
    decoded at a half, a quarter or an eighth of its size. Raises `BadSample`.
    """
    if isinstance(value, np.ndarray):
        if value.dtype == np.uint8 and value.ndim == 3 and value.shape[2] == 3 and value.size:
            return value
        raise BadSample("damaged image")
    if isinstance(value, str) and value.strip():
        if folder is None:
            raise BadSample("image column holds no image: a shard names no files")
        if _ADDRESS.match(value):
            raise BadSample("image is an address, and nothing is downloaded")
        value = Path(folder) / value.strip()
    if isinstance(value, Path):
        # Without a folder it was named by a program, not by data: it may be anywhere.
        folders = ("/",) if folder is None else (folder, *limits.allowed_folders)
        value = read_inside(value, folders, limits.file_bytes, "image file")
    if value is None or value == b"" or (isinstance(value, str) and not value.strip()):
        raise BadSample("missing image")
    if not isinstance(value, bytes | Image.Image):
        raise BadSample("image column holds no image")
    return _decoded(value, limits, side)


def _decoded(value: bytes | Image.Image, limits: Limits, side: int | None) -> np.ndarray:
    try:
        # Pillow warns of damaged metadata, and of large images, which have a limit of their own here.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(value), formats=_FORMATS) if isinstance(value, bytes) else value
            if _pixels_of(image) > limits.image_pixels:
                raise BadSample("image too large")
            if isinstance(value, bytes) and image.format == "JPEG" and value.count(_SCAN) > _MOST_SCANS:
                raise BadSample("image of too many scans")
            if side is not None:
                image.draft(None, (side * _DETAIL, side * _DETAIL))
            pixels = np.asarray(_rgb(_upright(image)))
    except BadSample:
        raise
    except (Image.DecompressionBombError, MemoryError) as fault:
        raise BadSample("image too large") from fault
    except Exception as fault:
        # Pillow's decoders meet damaged files with OSError, SyntaxError, ValueError, struct.error and more: any of them
        # says that this one sample cannot be used, and none may stop a run.
        raise BadSample("damaged image") from fault
    if not pixels.size:
        raise BadSample("damaged image")
    return pixels


def _pixels_of(image: Image.Image) -> int:
    """The pixels of an image, or of the tiles that it is stored in, whichever are more."""
    tags = getattr(image, "tag_v2", {})
    sides = (tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0))
    tile = sides[0] * sides[1] if all(isinstance(side, int) for side in sides) else 0
    return max(image.width * image.height, tile)


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its metadata says; as it is where they are damaged."""
    try:
        turned = image.getexif().get(_ORIENTATION, 1) != 1
    except Exception:
        # The parser of the metadata raises as much as the decoders do; the pixels are sound.
        return image
    return ImageOps.exif_transpose(image) if turned else image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise BadSample("image of floating-point levels")
    if image.mode in _SIXTEEN_BIT_MODES:
        # Pillow would cut off 16-bit levels at 255 instead of scaling them.
        levels = np.asarray(image).astype(np.float32) / 257.0
        if levels.max() > 255:
            raise BadSample("image of 32-bit levels")
        image = Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8), "L")
    elif image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


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


class ImageCache:
    """Decoded images of the samples seen first, up to a budget in bytes: a small data set is decoded once."""

    def __init__(self, budget: int) -> None:
        self._left = budget
        self._images: dict[Hashable, np.ndarray] = {}

    def get(self, key: Hashable) -> np.ndarray | None:
        """The image kept under `key`, if it is."""
        return self._images.get(key)

    def put(self, key: Hashable, image: np.ndarray) -> None:
        """Keeps the image if the budget allows."""
        if image.nbytes <= self._left:
            self._left -= image.nbytes
            self._images[key] = image
