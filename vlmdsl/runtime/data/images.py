"""Decodes images in a column to RGB levels."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Hashable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from vlmdsl.runtime.data.files import read_inside
from vlmdsl.runtime.data.limits import DEFAULT_LIMITS, Limits
from vlmdsl.runtime.values import BadSample

__all__ = ["IMAGE_SUFFIXES", "ImageCache", "decode_image", "image_content", "image_extent", "thumbnail"]

IMAGE_SUFFIXES = ("png", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "dib", "gif", "tif", "tiff", "avif")

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "AVIF")
"""The formats that are decoded, regardless of file names. Pillow knows more, and starts other programs for some (EPS)."""

_DETAIL = 4
"""A JPEG is decoded no smaller than this times the side that the encoder takes: crops are enlarged from a part of it."""

_ADDRESS = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://")
_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)
_TILE_WIDTH, _TILE_LENGTH = 0x0142, 0x0143
_SCAN, _MOST_SCANS = int.from_bytes(b"\xff\xda", "little"), 100
"""A progressive JPEG has about ten; each takes as long to decode as the whole image."""
_SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I")


def decode_image(
    value: object,
    folder: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    side: int | None = None,
    fit: Callable[[np.ndarray | Image.Image], np.ndarray] = np.asarray,
) -> np.ndarray:
    """`uint8 [H, W, 3]`, RGB, upright, of encoded bytes, a path (relative to `folder`), a Pillow image or such an array.

    A path leads to a regular file inside `folder` or a folder that the limits allow; without a folder, text is not a path.
    Transparent pixels show a white ground: the colour they hide is arbitrary. With `side`, a JPEG much larger than it is
    decoded at a half, a quarter or an eighth of its size. `fit` is applied to the image before the levels are copied, which
    an image of Pillow is faster for. Raises `BadSample`.
    """
    content = image_content(value, folder, limits)
    return fit(content) if isinstance(content, np.ndarray) else _decoded(content, limits, side, fit)


def image_content(
    value: object, folder: str | None = None, limits: Limits = DEFAULT_LIMITS
) -> np.ndarray | bytes | Image.Image:
    """The levels, the encoded bytes or the Pillow image that a column holds or names; raises `BadSample`."""
    if isinstance(value, np.ndarray):
        if value.dtype == np.uint8 and value.ndim == 3 and value.shape[2] == 3 and value.size:
            return value
        raise BadSample("damaged image")
    if isinstance(value, str) and value.strip():
        if folder is None:
            raise BadSample("image column holds no image: a shard names no files")
        if _ADDRESS.match(value):
            raise BadSample("image is a URL, and nothing is downloaded")
        value = Path(folder) / value.strip()
    if isinstance(value, Path):
        # Without a folder the path comes from a program, not from data: it may be anywhere.
        folders = ("/",) if folder is None else (folder, *limits.allowed_folders)
        value = read_inside(value, folders, limits.file_bytes, "image file")
    if value is None or value == b"" or (isinstance(value, str) and not value.strip()):
        raise BadSample("missing image")
    if not isinstance(value, bytes | Image.Image):
        raise BadSample("image column holds no image")
    return value


def image_extent(value: object, folder: str | None = None, limits: Limits = DEFAULT_LIMITS) -> tuple[int, int]:
    """The width and height of an image, upright, whatever size it is decoded at; raises `BadSample` as `decode_image`.

    >>> image_extent(np.zeros((20, 30, 3), dtype=np.uint8))
    (30, 20)
    """
    content = image_content(value, folder, limits)
    if isinstance(content, np.ndarray):
        return content.shape[1], content.shape[0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(content), formats=_FORMATS) if isinstance(content, bytes) else content
            turned = image.getexif().get(_ORIENTATION, 1) in _ON_ITS_SIDE
    except Exception as fault:  # as in `_decoded`
        raise BadSample("damaged image") from fault
    return (image.height, image.width) if turned else (image.width, image.height)


def _decoded(
    value: bytes | Image.Image,
    limits: Limits,
    side: int | None,
    fit: Callable[[np.ndarray | Image.Image], np.ndarray],
) -> np.ndarray:
    try:
        # Pillow warns of damaged metadata, and of large images, which have a limit of their own here.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(value), formats=_FORMATS) if isinstance(value, bytes) else value
            if _pixels_of(image) > limits.image_pixels:
                raise BadSample("image too large")
            if isinstance(value, bytes) and image.format == "JPEG" and _scans(value) > _MOST_SCANS:
                raise BadSample("image of too many scans")
            if side is not None:
                image.draft(None, (side * _DETAIL, side * _DETAIL))
            upright = _rgb(_upright(image))
            upright.load()
            if not upright.width or not upright.height:
                raise BadSample("damaged image")
            pixels = fit(upright)
    except BadSample:
        raise
    except (Image.DecompressionBombError, MemoryError) as fault:
        raise BadSample("image too large") from fault
    except Exception as fault:
        # Pillow's decoders meet damaged files with OSError, SyntaxError, ValueError, struct.error and more: each means that
        # this sample cannot be used, and none may stop a run.
        raise BadSample("damaged image") from fault
    return pixels


def _scans(jpeg: bytes) -> int:
    """At most how many scans a JPEG has; `bytes.count` takes six times as long for a mark of two bytes."""
    pairs = (np.frombuffer(jpeg, "<u2", (len(jpeg) - first) // 2, first) for first in (0, 1))
    return sum(int(np.count_nonzero(own == _SCAN)) for own in pairs)


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
    return image if image.mode == "RGB" else image.convert("RGB")


def thumbnail(pixels: np.ndarray, most: int) -> np.ndarray:
    """An image `uint8 [H, W, 3]` at most so many pixels wide and high."""
    image = Image.fromarray(pixels)
    image.thumbnail((most, most))
    return np.asarray(image)


class ImageCache:
    """Decoded images of the samples seen first, and their segments, up to a budget in bytes: small data is decoded once."""

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
