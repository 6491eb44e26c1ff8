"""Lines over the steps of a run, as SVG inside a page: small, sharp at any size, and without a script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from vlmdsl.runtime.reporting.html import Html, element, joined

__all__ = ["Line", "chart"]

Points: TypeAlias = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 310, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 8, 20
_COLOURS = ("#1f6feb", "#cf222e", "#1a7f37", "#9a6700", "#8250df", "#bf3989", "#0a7ea4", "#57606a")
_MOST_POINTS = 400
_TICKS = 4


@dataclass(frozen=True)
class Line:
    """A line of a chart; a `dashed` one is a level to compare with, such as chance."""

    label: str
    points: Points
    dashed: bool = False


def chart(title: str, lines: Sequence[Line], *, bottom: float | None = None) -> Html:
    """A chart with its title and a legend with the last values; numbers that are not finite are gaps. Nothing without any
    finite number."""
    finite = {line.label: [point for point in line.points if all(map(math.isfinite, point))] for line in lines}
    every = [point for points in finite.values() for point in points]
    if not every:
        return Html("")
    steps, values = [x for x, _ in every], [y for _, y in every]
    low, high = min(values), max(values)
    low = low if bottom is None else min(bottom, low)
    if high - low < 1e-12 * max(1.0, abs(high)):
        low, high = low - 0.5 * max(abs(low), 1e-3), high + 0.5 * max(abs(high), 1e-3)
    frame = _Frame(min(steps), max(steps), low, high)
    drawn = [_drawn(frame, line, _COLOURS[number % len(_COLOURS)]) for number, line in enumerate(lines)]
    box = f"0 0 {_WIDTH} {_HEIGHT}"
    picture = element("svg", *frame.axes(), *drawn, viewBox=box, width=_WIDTH, height=_HEIGHT, role="img", aria_label=title)
    legend = [
        element("span", element("span", "━ " if not line.dashed else "┅ ", style=f"color:{colour}"), words, class_="legend")
        for number, line in enumerate(lines)
        if finite[line.label]
        for colour in (_COLOURS[number % len(_COLOURS)],)
        for words in (f"{line.label} {finite[line.label][-1][1]:.4g}",)
    ]
    return element("figure", element("figcaption", title), picture, element("div", *legend))


@dataclass(frozen=True)
class _Frame:
    """The place of a number in the picture."""

    first: float
    last: float
    low: float
    high: float

    def x(self, step: float) -> float:
        share = 0.5 if self.last == self.first else (step - self.first) / (self.last - self.first)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)

    def axes(self) -> list[Html]:
        parts = []
        for value in ticks(self.low, self.high):
            y = self.y(value)
            parts.append(element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, stroke="#eaeef2"))
            parts.append(element("text", f"{value:.6g}", x=_LEFT - 4, y=y + 3, text_anchor="end"))
        for step, anchor in ((self.first, "start"), (self.last, "end")):
            parts.append(element("text", f"{step:.0f}", x=self.x(step), y=_HEIGHT - 6, text_anchor=anchor))
        return parts


def ticks(low: float, high: float) -> list[float]:
    """A few round numbers from `low` to `high`.

    >>> ticks(0.0, 4.7)
    [0.0, 2.0, 4.0]
    """
    raw = (high - low) / _TICKS
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * size for factor in (1, 2, 5, 10) if factor * size >= raw)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [number * step for number in range(first, last + 1)]


def _drawn(frame: _Frame, line: Line, colour: str) -> Html:
    runs: list[list[tuple[float, float]]] = [[]]
    for point in _thinned(line.points):
        if all(map(math.isfinite, point)):
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    dashes = "4 3" if line.dashed else None
    parts = []
    for run in runs:
        if len(run) == 1:  # not a line yet, but it should be seen
            parts.append(element("circle", cx=frame.x(run[0][0]), cy=frame.y(run[0][1]), r=2.5, fill=colour))
        elif run:
            points = " ".join(f"{frame.x(step)},{frame.y(value)}" for step, value in run)
            stroke = {"stroke": colour, "stroke_width": "1.6", "stroke_dasharray": dashes}
            parts.append(element("polyline", points=points, fill="none", **stroke))
    return joined(parts)


def _thinned(points: Points) -> Points:
    """At most about so many points: of each part of a longer line its lowest and its highest, so that jumps stay."""
    if len(points) <= _MOST_POINTS:
        return points
    size = -(-2 * len(points) // _MOST_POINTS)
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        wrong = [point for point in part if not math.isfinite(point[1])][:1]
        sound = [point for point in part if math.isfinite(point[1])]
        extremes = [min(sound, key=lambda point: point[1]), max(sound, key=lambda point: point[1])] if sound else []
        kept += sorted({*extremes, *wrong}, key=lambda point: point[0])
    return kept
