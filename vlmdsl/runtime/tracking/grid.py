"""Pictures in a grid, each with a line below. matplotlib is imported when one is drawn."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import numpy as np

from vlmdsl.diagnostics import plain
from vlmdsl.runtime.files import write_atomically

__all__ = ["draw_grid"]

_COLUMNS = 6
_LINE = 28
"""Characters of a line above a picture."""
_WIDTH, _TALLEST = 1.7, 3.4
"""Inches that a picture is wide, and those that it is high at most."""
_TITLE_SIZE, _TITLE_LINE = 7, 0.14
"""Points of the letters above a picture, and inches of a line of them."""


def draw_grid(pictures: Sequence[tuple[np.ndarray, str]], place: Path, title: str = "") -> None:
    """Draw pictures, `uint8 [H, W, 3]` each with a text, into the PNG file `place`, row by row. Nothing is drawn without
    pictures."""
    if not pictures:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    titles = ["\n".join(fill(plain(line), _LINE) for line in text.splitlines()) for _, text in pictures]
    lines = max(1 + title.count("\n") for title in titles)
    tallest = max(pixels.shape[0] / pixels.shape[1] for pixels, _ in pictures)
    row = min(_WIDTH * tallest, _TALLEST) + _TITLE_LINE * lines
    figure = Figure(figsize=(_WIDTH * columns, row * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, parse_math=False)
    for number in range(rows * columns):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.set_axis_off()
        if number < len(pictures):
            axes.imshow(pictures[number][0])
            axes.set_title(titles[number], fontsize=_TITLE_SIZE, parse_math=False)
    drawn = io.BytesIO()
    with warnings.catch_warnings():  # of letters that the font lacks
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(drawn, format="png", dpi=110)
    write_atomically(place, drawn.getvalue())
