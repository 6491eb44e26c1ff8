"""Small sound data: images of every kind, shards, folders and tables of twelve samples. What is damaged begins as this."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

COUNT = 12
Rng = np.random.Generator
Members = list[tuple[str, bytes]]


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def picture(index: int, size: tuple[int, int] = (9, 7)) -> Image.Image:
    """An image like no other."""
    return Image.new("RGB", size, (20 * index % 256, 7 * index % 256, 90))


def _wave(mode: str) -> Image.Image:
    return Image.fromarray(np.linspace(0, 60000, 63).reshape(7, 9).astype(np.uint16 if mode == "I;16" else np.int32))


def _frames(form: str) -> bytes:
    return encoded(picture(1), form, save_all=True, append_images=[picture(2), picture(3)])


def _turned(index: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 1 + index % 8
    return encoded(picture(index), "JPEG", exif=exif)


PIXELS: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "1": ("png", lambda index: encoded(picture(index).convert("1"))),
    "L": ("png", lambda index: encoded(picture(index).convert("L"))),
    "LA": ("png", lambda index: encoded(picture(index).convert("LA"))),
    "P": ("gif", lambda index: encoded(picture(index).convert("P"), "GIF")),
    "P with transparency": ("png", lambda index: encoded(picture(index).convert("P"), transparency=0)),
    "P with alpha": ("png", lambda index: encoded(picture(index).convert("P"), transparency=b"\x00\x80\xff")),
    "L with transparency": ("png", lambda index: encoded(picture(index).convert("L"), transparency=3)),
    "RGBA": ("png", lambda index: encoded(picture(index).convert("RGBA"))),
    "RGBA WebP": ("webp", lambda index: encoded(picture(index).convert("RGBA"), "WEBP")),
    "CMYK": ("jpg", lambda index: encoded(picture(index).convert("CMYK"), "JPEG")),
    "CMYK TIFF": ("tiff", lambda index: encoded(picture(index).convert("CMYK"), "TIFF")),
    "YCbCr TIFF": ("tif", lambda index: encoded(picture(index).convert("YCbCr"), "TIFF")),
    "I;16": ("png", lambda index: encoded(_wave("I;16"))),
    "I TIFF": ("tiff", lambda index: encoded(_wave("I"), "TIFF")),
    "grey JPEG": ("jpeg", lambda index: encoded(picture(index).convert("L"), "JPEG")),
    "progressive": ("jfif", lambda index: encoded(picture(index, (80, 60)), "JPEG", progressive=True)),
    "turned": ("jpg", _turned),
    "animated GIF": ("gif", lambda index: _frames("GIF")),
    "animated WebP": ("webp", lambda index: _frames("WEBP")),
    "animated PNG": ("png", lambda index: _frames("PNG")),
    "pages": ("tif", lambda index: _frames("TIFF")),
    "AVIF": ("avif", lambda index: encoded(picture(index), "AVIF")),
    "BMP": ("BMP", lambda index: encoded(picture(index), "BMP")),
    "one pixel": ("png", lambda index: encoded(picture(index, (1, 1)))),
    "one row": ("PNG", lambda index: encoded(picture(index, (3000, 1)))),
    "large JPEG": ("JPG", lambda index: encoded(picture(index, (900, 700)), "JPEG")),
}
"""Legal kinds of images by name: an ending, and the file of each sample."""


def tar_of(members: Iterable[tuple[str, bytes]], form: int = tarfile.GNU_FORMAT) -> bytes:
    """A shard of members in their order."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return file.getvalue()


def pairs(prefix: str = "", suffix: str = "png", image: Callable[[int], bytes] | None = None) -> Members:
    """The members of twelve samples: an image and a text each, of some a json and a class."""
    members: Members = []
    for index in range(COUNT):
        key = f"{prefix}{index:03d}"
        members.append((f"{key}.{suffix}", encoded(picture(index)) if image is None else image(index)))
        members.append((f"{key}.txt", f"picture number {index}".encode()))
        if index % 3 == 0:
            members += [(f"{key}.json", json.dumps({"tags": ["a", "b"], "n": index}).encode()), (f"{key}.cls", b"1")]
    return members


def write(path: Path, data: bytes) -> str:
    """The path of a new file, as a specification."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


def images(folder: Path, suffix: str = "png", image: Callable[[int], bytes] | None = None) -> list[str]:
    """The names of twelve image files in a folder."""
    names = [f"img/{index:03d}.{suffix}" for index in range(COUNT)]
    for index, name in enumerate(names):
        write(folder / name, encoded(picture(index)) if image is None else image(index))
    return names


def rows(folder: Path, separator: str = ",", end: str = "\n") -> str:
    """A table of twelve samples with their images beside it."""
    cells = [("image", "text"), *((name, f"picture {index}") for index, name in enumerate(images(folder)))]
    return "".join(separator.join(row) + end for row in cells)


def objects(folder: Path) -> list[dict[str, object]]:
    """The same as objects."""
    return [{"image": name, "text": f"picture {index}"} for index, name in enumerate(images(folder))]


def lines(values: Iterable[object]) -> bytes:
    """JSON lines."""
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def class_folder(folder: Path) -> Path:
    """Twelve images in three subfolders, some with a text beside them."""
    for index in range(COUNT):
        write(folder / f"class_{index % 3}" / f"{index:03d}.png", encoded(picture(index)))
        if index % 2:
            write(folder / f"class_{index % 3}" / f"{index:03d}.txt", f"picture {index}".encode())
    return folder
