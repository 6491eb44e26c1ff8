"""Renders texts as images: dark letters on grey, in rows, for CLIPPO's single tower (Tschannen et al., CVPR 2023)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.data import FontUnreadable
from vlmdsl.runtime.data.context import Attributes, ViewContext
from vlmdsl.source import Span
from vlmdsl.source.regular_files import BadFile, open_regular

__all__ = ["checked_font", "render"]

_BACKGROUND, _LETTERS = 127, 0
_LONGEST = 768
"""How many characters of a text are used."""


def checked_font(path: str) -> str:
    """The path of a font that can be used; raises `DiagnosticError` for a file that is not a font."""
    try:
        open_regular(path).close()  # opening a pipe would wait for a writer
        ImageFont.truetype(path, 16)
        FT2Font(path)
    except (BadFile, OSError, RuntimeError, ValueError) as fault:
        reason = "there is no such file" if not Path(path).is_file() else "it is not a TrueType or OpenType font"
        help = "leave out `data.font` to use the default font"
        place = Span("<command line>", 0, 0)
        raise DiagnosticError((FontUnreadable.at(place, path=path, reason=reason, help=(help,)),)) from fault
    return path


def render(text: str, attributes: Attributes, context: ViewContext) -> np.ndarray:
    """The text in small letters, `uint8 [S, S, 3]` for the images' side S.

    Rows are `row_height` pixels high, or as much less (down to `smallest`) as it takes for the text to fit; words go on in
    the next row, what does not fit is cut. Texts that are cut, and those with characters that the font lacks, are counted.
    """
    font, size = context.materials.font or _own_font(), context.images.size
    words = text.lower()[:_LONGEST].split()
    row_height, smallest = int(str(attributes["row_height"])), int(str(attributes["smallest"]))
    for height in range(row_height, min(smallest, row_height) - 1, -1):
        rows = _rows(words, font, height, size)
        if len(rows) * height <= size:
            break
    context.counts["render: draws"] += 1
    context.counts["render: text truncated"] += len(rows) * height > size
    characters = _characters(font)
    context.counts["render: characters that the font lacks"] += any(
        ord(letter) not in characters for letter in "".join(words)
    )
    image = Image.new("L", (size, size), _BACKGROUND)
    draw = ImageDraw.Draw(image)
    for number, row in enumerate(rows[: -(-size // height)]):
        draw.text((0, number * height), row, fill=_LETTERS, font=_face(font, height))
    return np.repeat(np.asarray(image)[:, :, None], 3, axis=2)


def _rows(words: list[str], font: str, height: int, width: int) -> list[str]:
    """The words in rows of at most `width` pixels; one that is longer than a row is broken."""
    rows: list[str] = []
    row = ""
    for word in words:
        longer = f"{row} {word}" if row else word
        if _length(font, height, longer) <= width:
            row = longer
            continue
        if row:
            rows.append(row)
        *full, row = _broken(word, font, height, width)
        rows += full
    return [*rows, row] if row else rows


def _broken(word: str, font: str, height: int, width: int) -> list[str]:
    """A word in pieces that fit, each of at least one character."""
    pieces = [""]
    for letter in word:
        if pieces[-1] and _length(font, height, pieces[-1] + letter) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def _own_font() -> str:
    """DejaVu Sans, which matplotlib includes; the authors use Unifont, which no dependency includes (`data.font`)."""
    return str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


@lru_cache(maxsize=64)
def _face(font: str, height: int) -> ImageFont.FreeTypeFont:
    """The font in the size at which a row, from the top of its letters to their lowest point, is `height` pixels high."""
    ascent, descent = ImageFont.truetype(font, 1000).getmetrics()
    return ImageFont.truetype(font, max(1, int(height * 1000 / (ascent + descent))))


@lru_cache(maxsize=100_000)
def _length(font: str, height: int, text: str) -> float:
    return _face(font, height).getlength(text)


@lru_cache(maxsize=4)
def _characters(font: str) -> frozenset[int]:
    return frozenset(FT2Font(font).get_charmap())
