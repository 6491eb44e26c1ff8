"""The captions of COCO: one JSON object with lists of `images` and of `annotations`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from vlmdsl.runtime.data.formats.captioned import CaptionedImages, captioned_images
from vlmdsl.runtime.data.formats.json_objects import MOST_VALUES
from vlmdsl.runtime.data.formats.records import BYTE_ORDER, content_of, unreadable_table
from vlmdsl.runtime.data.formats.rows import DataPath
from vlmdsl.runtime.data.left_out import LeftOut
from vlmdsl.source.regular_files import BadFile, open_regular

__all__ = ["is_coco", "open_coco"]

_BEGINNING = 4096
_MARKS = (b'"annotations"', b'"images"', b'"image_id"')


def is_coco(path: Path) -> bool:
    """Whether a `.json` file is one object with images and annotations, by its first and last bytes."""
    try:
        with open_regular(path) as file:
            beginning = file.read(_BEGINNING) or b""
            file.seek(max(os.fstat(file.fileno()).st_size - _BEGINNING, 0))
            text = beginning + (file.read(_BEGINNING) or b"")
    except (BadFile, OSError):
        return False
    one_object = beginning.removeprefix(BYTE_ORDER).lstrip().startswith(b"{") and not _is_lines(beginning)
    return one_object and any(mark in text for mark in _MARKS)


def _is_lines(beginning: bytes) -> bool:
    """Whether the first line is an object of its own, so that these are lines of objects."""
    line, newline, _ = beginning.removeprefix(BYTE_ORDER).lstrip().partition(b"\n")
    try:
        value = json.loads(line) if newline else None
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "annotations" not in value


def open_coco(data: DataPath) -> CaptionedImages:
    """The images of a file such as `annotations/captions_val2017.json`, each with all of its captions.

    Their folder is that of the split beside the file's folder (`val2017`), or one of the usual ones. An image without a
    caption is left out, and so is a caption without an image, which `remarks` say. Raises `DiagnosticError` (V0824) for
    anything else in the file.
    """
    path = data.path
    text, _ = content_of(path, data.limits)
    if sum(map(text.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise unreadable_table(path, "it is too large for one JSON object", "write one object per line, to a `.jsonl` file")
    try:
        content = json.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as fault:
        raise unreadable_table(path, f"it is damaged JSON ({fault})") from fault
    listed, annotations = (content.get(part) if isinstance(content, dict) else None for part in ("images", "annotations"))
    if not isinstance(listed, list) or not isinstance(annotations, list):
        raise unreadable_table(path, "it has no lists of `images` and `annotations`, as the captions of COCO have")
    left_out = LeftOut()
    samples = _samples(listed, annotations, left_out)
    split = path.stem.rpartition("_")[2]
    usual = ("images", split, f"images/{split}", f"../{split}", f"../images/{split}", "../images")
    keyed = ((f"{path.stem}:{key}", one) for key, one in samples.items())
    return captioned_images(data, keyed, [str(one["image"]) for one in samples.values()], usual, left_out)


def _samples(images: list[object], annotations: list[object], left_out: LeftOut) -> dict[object, dict[str, object]]:
    """The columns of the images that have captions, by their number, in the order of the images."""
    samples: dict[object, dict[str, object]] = {}
    for image in images:
        number, file = (image.get("id"), image.get("file_name")) if isinstance(image, Mapping) else (None, None)
        if not isinstance(number, int | str) or not isinstance(file, str):
            left_out.add("images without `id` and `file_name`", str(number))
        elif number in samples:
            left_out.add("images whose `id` another one has", file)
        else:
            samples[number] = {"image": file, "image_id": number, "caption": []}
    for number, caption in _captions(annotations):
        own = samples.get(number)
        if own is None or not isinstance(caption, str) or not caption.strip():
            left_out.add("annotations without a caption, or without their image", str(number))
        else:
            own["caption"].append(caption)  # type: ignore[attr-defined]  # a list, as made above
    for one in samples.values():
        if not one["caption"]:
            left_out.add("images without a caption", str(one["image"]))
    return {number: one for number, one in samples.items() if one["caption"]}


def _captions(annotations: list[object]) -> Iterator[tuple[object, object]]:
    for annotation in annotations:
        own = annotation if isinstance(annotation, Mapping) else {}
        number = own.get("image_id")
        yield (number if isinstance(number, int | str) else None), own.get("caption")
