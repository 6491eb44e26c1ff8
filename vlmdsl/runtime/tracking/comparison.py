"""The comparison of several recipes as a picture. matplotlib is imported when one is drawn."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from vlmdsl.runtime.files import write_atomically
from vlmdsl.runtime.tracking.titles import set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Panel", "draw_comparison"]

_COLUMNS = 3


@dataclass(frozen=True)
class Panel:
    """One measure: recipe -> its value for each seed, as fractions; `levels` are lines to compare with, such as chance."""

    title: str
    values: Mapping[str, Sequence[float]]
    levels: Mapping[str, float]


def draw_comparison(panels: Sequence[Panel], recipes: Sequence[str], picture: Path, title: str = "") -> None:
    """Draw one panel per measure into the PNG file `picture`: a bar at the mean, a dot for every seed; seeds are joined.

    Joined dots of one seed show a paired difference as a slope. A recipe without the measure has an empty place. Nothing is
    drawn without panels.
    """
    if not panels:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(len(panels), _COLUMNS)
    rows = -(-len(panels) // columns)
    width = max(3.2, 1.2 + 0.8 * len(recipes))
    figure = Figure(figsize=(width * columns, 3.4 * rows), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for position, panel in enumerate(panels):
        _draw(figure.add_subplot(rows, columns, position + 1), panel, recipes)
    if title:
        figure.suptitle(title, fontsize=11, parse_math=False)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    write_atomically(picture, drawn.getvalue())


def _draw(axes: Axes, panel: Panel, recipes: Sequence[str]) -> None:
    places = [place for place, recipe in enumerate(recipes) if recipe in panel.values]
    values = [[100 * value for value in panel.values[recipes[place]]] for place in places]
    axes.bar(places, [fmean(seeds) for seeds in values], width=0.6, color="#9db8d2", zorder=1)
    for seeds in zip(*values, strict=True):
        axes.plot(places, seeds, color="0.25", linewidth=0.8, marker="o", markersize=3, zorder=2)
    for style, (name, level) in zip(("--", ":", "-."), panel.levels.items(), strict=False):
        axes.axhline(100 * level, color="0.4", linestyle=style, linewidth=1.0, label=f"{name} {100 * level:.1f}")
    set_title(axes, panel.title, legend=bool(panel.levels))
    axes.set_ylabel("percent", fontsize=9)
    axes.set_xticks(range(len(recipes)), recipes, rotation=30, ha="right", fontsize=8, parse_math=False)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xlim(-0.5, len(recipes) - 0.5)  # an empty place is as wide as the others
    axes.set_ylim(bottom=0.0)
    axes.set_axisbelow(True)
    axes.grid(visible=True, axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
