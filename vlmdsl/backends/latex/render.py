"""A picture of a formula, by matplotlib's mathtext: no TeX installation is needed."""

from __future__ import annotations

from pathlib import Path

from vlmdsl.backends.latex.document import formula_lines
from vlmdsl.ir import Program

__all__ = ["render_png"]


def render_png(program: Program, path: Path | str, *, size: float = 16.0, dots_per_inch: int = 200) -> None:
    """Write the formula of `program` (as the front end made it) as a PNG file, one equation under the other."""
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

    figure = Figure(figsize=(0.1, 0.1), dpi=dots_per_inch)
    font = FontProperties(size=size)
    lines = formula_lines(program)
    for position, line in enumerate(lines):
        height = -position * size * 3.6 / 72 / 0.1
        figure.text(0.0, height, f"${line}$", fontproperties=font, parse_math=True)
    figure.savefig(path, bbox_inches="tight", pad_inches=0.2)
