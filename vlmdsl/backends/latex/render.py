"""Pictures of a formula, by matplotlib's mathtext: no TeX installation is needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from vlmdsl.backends.latex.document import formula_lines
from vlmdsl.ir import Program

__all__ = ["formula_svg", "render_png"]

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


def formula_svg(lines: Sequence[str], *, size: float = 15.0) -> str:
    """The lines of a formula (`formula_lines`) as an SVG, one below the other: outlines of letters, without a font.

    `size` is the height of the letters in points. matplotlib is imported when this is called.
    """
    drawn = [_outlined(line, size) for line in lines]
    letters = {
        outline: f"g{number}"
        for number, outline in enumerate(dict.fromkeys(path for line in drawn for path, *_ in line.letters))
    }
    gap, margin = 0.6 * size, 0.3 * size
    width = max(line.width for line in drawn) + 2 * margin
    parts = ["<defs>", *(f'<path id="{name}" d="{outline}"/>' for outline, name in letters.items()), "</defs>"]
    baseline = margin
    for line in drawn:
        baseline += line.ascent
        parts.append(f'<g transform="translate({margin:.2f} {baseline:.2f}) scale(1 -1)">')
        for outline, x, y, scale in line.letters:
            parts.append(f'<use href="#{letters[outline]}" transform="translate({x:.2f} {y:.2f}) scale({scale:.4f})"/>')
        parts.append(f'<path d="{line.rules}"/></g>')
        baseline += line.descent + gap
    height = baseline - gap + margin
    measures = f'width="{width:.1f}pt" height="{height:.1f}pt" viewBox="0 0 {width:.1f} {height:.1f}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {measures}>{"".join(parts)}</svg>'


class _Outlined(NamedTuple):
    """A line of a formula: the outline, place and scale of each letter, y upwards from the baseline, the outlines of its
    rules (such as those of fractions), and its extent in points."""

    letters: tuple[tuple[str, float, float, float], ...]
    rules: str
    width: float
    ascent: float
    descent: float


@lru_cache(maxsize=256)
def _outlined(line: str, size: float) -> _Outlined:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    # matplotlib lays a formula out in a size of its own. The outlines are of what is parsed here: it keeps that in a cache.
    fonts, text = TextToPath(), f"${_known_symbols(line)}$"
    font, scale = FontProperties(size=fonts.FONT_SCALE, math_fontfamily="cm"), size / fonts.FONT_SCALE
    width, height, depth = (scale * extent for extent in fonts.mathtext_parser.parse(text, fonts.DPI, font)[:3])
    placed, outlines, rules = fonts.get_glyphs_mathtext(font, text)
    paths = {letter: _path(*outline) for letter, outline in outlines.items()}
    letters = tuple((paths[letter], x * scale, y * scale, own * scale) for letter, x, y, own in placed)
    return _Outlined(letters, "".join(_path(*rule, scale) for rule in rules), width, height - depth, depth)


def _known_symbols(line: str) -> str:
    """A line with the symbols that mathtext has: the bars of a norm have no sides there."""
    return line.replace(r"\lVert", r"\Vert").replace(r"\rVert", r"\Vert")


_COMMANDS = {1: ("M", 1), 2: ("L", 1), 3: ("Q", 2), 4: ("C", 3), 79: ("Z", 1)}
"""matplotlib's code of a part of a path -> that of SVG, and how many points it takes."""


def _path(points: Iterable[Sequence[float]], codes: Iterable[int], scale: float = 1.0) -> str:
    parts: list[str] = []
    left = 0
    for (x, y), code in zip(points, codes, strict=True):
        command, count = _COMMANDS[int(code)]
        if left == 0:
            parts.append(command)
            left = count
        if command != "Z":
            parts.append(f"{x * scale:.1f} {y * scale:.1f} ")
        left -= 1
    return "".join(parts).replace(" Z", "Z")
