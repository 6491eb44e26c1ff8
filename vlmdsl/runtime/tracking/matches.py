"""Queries of retrieval with their best matches, as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from textwrap import shorten, wrap
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from vlmdsl.diagnostics import plain
from vlmdsl.runtime.files import write_atomically

__all__ = ["MatchRow", "draw_matches"]

_RIGHT, _WRONG, _INK = "#1a7f37", "#b8b8b8", "#222222"
_SIDE, _GAP, _LINE = 110, 14, 18
"""Pixels: of a picture, between pictures, of a line of text."""
_COLUMNS = 5
_QUERY_CHARACTERS, _LINE_CHARACTERS = 22, 84


class MatchRow(NamedTuple):
    """A query with the rank of what belongs to it, and its first matches: each an image with its text, the similarity, and
    whether it belongs to the query."""

    query: tuple[np.ndarray, str]
    rank: int
    matches: Sequence[tuple[tuple[np.ndarray, str], float, bool]]


def draw_matches(of_images: Sequence[MatchRow], of_texts: Sequence[MatchRow], place: Path) -> None:
    """Draw images with the texts that are found for them, and texts with the images, into the PNG file `place`; what belongs
    to the query is green. Nothing is drawn without queries."""
    rows = len(of_images) + len(of_texts)
    if not rows:
        return
    cell = _SIDE + _GAP
    page = Image.new("RGB", (_GAP + (_COLUMNS + 1) * cell + _SIDE // 2, _GAP + rows * (cell + _LINE)), "white")
    draw = ImageDraw.Draw(page)
    for number, row in enumerate((*of_images, *of_texts)):
        top = _GAP + number * (cell + _LINE)
        draw.text((_GAP, top), f"rank {row.rank}", _INK, _font())
        if number < len(of_images):
            page.paste(_picture(row.query[0]), (_GAP, top + _LINE))
            _texts(draw, row, top)
        else:
            for line, text in enumerate(wrap(plain(row.query[1]), _QUERY_CHARACTERS)[: _SIDE // _LINE]):
                draw.text((_GAP, top + (line + 1) * _LINE), text, _INK, _font())
            for column, ((pixels, _), similarity, right) in enumerate(row.matches[:_COLUMNS]):
                left = _GAP + (column + 1) * cell + _SIDE // 2
                draw.text((left, top), f"{similarity:.3f}", _INK, _font())
                page.paste(_picture(pixels, _RIGHT if right else _WRONG), (left, top + _LINE))
    drawn = io.BytesIO()
    page.save(drawn, format="PNG")
    write_atomically(place, drawn.getvalue())


def _texts(draw: ImageDraw.ImageDraw, row: MatchRow, top: int) -> None:
    """The texts found for an image, one below the other."""
    for number, ((_, text), similarity, right) in enumerate(row.matches[:_COLUMNS]):
        line = f"{similarity:.3f}  {shorten(plain(text), _LINE_CHARACTERS)}"
        place = (_GAP + _SIDE + _GAP, top + _LINE + number * (_SIDE // _COLUMNS))
        draw.text(place, line, _RIGHT if right else _INK, _font())


def _picture(pixels: np.ndarray, frame: str = "white") -> Image.Image:
    """An image as a square of the page, in a frame."""
    image = ImageOps.pad(Image.fromarray(pixels), (_SIDE - 6, _SIDE - 6), Image.Resampling.BICUBIC, color="white")
    return ImageOps.expand(image, 3, frame)


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of the curves: matplotlib includes it."""
    from matplotlib import get_data_path

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), 11)
