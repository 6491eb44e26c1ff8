"""The captions of Flickr8k and Flickr30k: lines `IMAGE.jpg#NUMBER`, a tab, and a caption."""

from __future__ import annotations

import re
from pathlib import Path

from vlmdsl.runtime.data.formats.captioned import CaptionedImages, captioned_images
from vlmdsl.runtime.data.formats.records import BYTE_ORDER, content_of, unreadable_table
from vlmdsl.runtime.data.formats.rows import DataPath
from vlmdsl.runtime.data.left_out import LeftOut
from vlmdsl.runtime.data.limits import LONGEST_DESCRIPTION

__all__ = ["is_flickr", "open_flickr"]

_LINE = re.compile(r"(?P<image>[^\t]+?)#\d+[\t ]+(?P<caption>.*\S)\s*")
_ENDINGS = (".token", ".token.txt", ".lemma.token.txt")
_FOLDERS = ("images", "Images", "flickr30k-images", "flickr30k_images", "Flickr8k_Dataset", "Flicker8k_Dataset")


def is_flickr(path: Path) -> bool:
    """Whether a file is called as these are: `results_20130124.token`, `Flickr8k.token.txt`."""
    return path.name.lower().endswith(_ENDINGS)


def open_flickr(data: DataPath) -> CaptionedImages:
    """The images of such a file, each with all of its captions, in the order in which they come first.

    Their folder is the file's own, or one of the usual ones in it or beside it. Lines of another form are left out, which
    `remarks` say. Raises `DiagnosticError` (V0824) where no line has that form.
    """
    path = data.path
    content, _ = content_of(path, data.limits)
    try:
        text = content.removeprefix(BYTE_ORDER).decode("utf-8")
    except UnicodeDecodeError as fault:
        raise unreadable_table(path, "it is not UTF-8") from fault
    left_out, captions = LeftOut(), dict[str, list[str]]()
    for number, line in enumerate(text.split("\n"), start=1):
        match = _LINE.fullmatch(line) if len(line) <= LONGEST_DESCRIPTION else None
        if match is not None:
            captions.setdefault(match["image"], []).append(match["caption"])
        elif line.strip():
            left_out.add("lines that are not `IMAGE#NUMBER`, a tab and a caption", f"line {number}")
    if not captions:
        raise unreadable_table(path, "no line of it is `IMAGE.jpg#NUMBER`, a tab and a caption")
    usual = (*_FOLDERS, *(f"../{folder}" for folder in _FOLDERS))
    samples = ((f"{path.stem}:{image}", {"image": image, "caption": own}) for image, own in captions.items())
    return captioned_images(data, samples, captions, usual, left_out)
