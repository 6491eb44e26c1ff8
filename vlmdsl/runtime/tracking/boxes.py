"""A picture with boxes drawn into it, each with its phrase. matplotlib, which includes the font, is imported when one is
drawn."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vlmdsl.diagnostics import plain
from vlmdsl.runtime.files import write_atomically

__all__ = ["draw_boxes"]

_COLOURS = ("#d1242f", "#1a7f37", "#0969da", "#bf3989", "#9a6700", "#8250df", "#1b7c83", "#bc4c00")
_SMALLEST, _LARGEST, _LINE, _FRAME = 480, 1600, 13, 3
"""Pixels: of the picture's longer side, of the height of letters, of the width of a frame."""
_LONGEST = 60
"""Characters of a phrase."""


def draw_boxes(
    pixels: np.ndarray, boxes: Sequence[tuple[tuple[float, float, float, float], str, float]], place: Path
) -> None:
    """Draw boxes, left, top, right, bottom in pixels, with phrase and score each, over an image `uint8 [H, W, 3]` into the
    PNG file `place`: a colour for each phrase, the first box on top."""
    from matplotlib import get_data_path

    longer = max(pixels.shape[:2])
    scale = min(max(longer, _SMALLEST), _LARGEST) / longer
    size = (max(round(scale * pixels.shape[1]), 1), max(round(scale * pixels.shape[0]), 1))
    picture = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), _LINE)
    phrases = [*dict.fromkeys(phrase for _, phrase, _ in boxes)]
    for box, phrase, score in reversed(boxes):
        colour = _COLOURS[phrases.index(phrase) % len(_COLOURS)]
        left, top, right, bottom = (scale * number for number in box)
        draw.rectangle((left, top, max(right, left + 1), max(bottom, top + 1)), outline=colour, width=_FRAME)
        label = f"{plain(phrase)[:_LONGEST]} {score:.2f}"
        line = max(min(top - _LINE - _FRAME, size[1] - _LINE - _FRAME), 0)
        draw.rectangle((left, line, left + draw.textlength(label, font) + 2 * _FRAME, line + _LINE + _FRAME), fill=colour)
        draw.text((left + _FRAME, line), label, "white", font)
    drawn = io.BytesIO()
    picture.save(drawn, format="PNG")
    write_atomically(place, drawn.getvalue())
