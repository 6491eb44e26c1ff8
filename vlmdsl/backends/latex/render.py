"""A picture of a formula, by matplotlib's mathtext: no TeX installation is needed."""

from __future__ import annotations

from pathlib import Path

from vlmdsl.backends.latex.document import formula_lines
from vlmdsl.ir import Program

__all__ = ["render_png"]

_POINTS = 72.0
"""Points in an inch."""


def render_png(program: Program, path: Path | str, *, size: float = 14.0, dots_per_inch: int = 200) -> None:
    """Write the formula of `program` (before passes) as a PNG file, one equation under the other.

    `size` is the height of the letters in points. matplotlib is imported when this is called.
    """
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.mathtext import MathTextParser

    font = FontProperties(size=size, math_fontfamily="cm")
    lines = [f"${line}$" for line in formula_lines(program)]
    boxes = [MathTextParser("path").parse(line, dpi=_POINTS, prop=font)[:3] for line in lines]
    gap, margin = 0.6 * size, size
    width = max(box[0] for box in boxes) + 2 * margin
    height = sum(box[1] for box in boxes) + gap * (len(boxes) - 1) + 2 * margin
    figure = Figure(figsize=(width / _POINTS, height / _POINTS), dpi=dots_per_inch)
    top = height - margin
    for line, (_, tall, depth) in zip(lines, boxes, strict=True):
        figure.text(margin / width, (top - tall + depth) / height, line, fontproperties=font, verticalalignment="baseline")
        top -= tall + gap
    figure.savefig(path, dpi=dots_per_inch)
