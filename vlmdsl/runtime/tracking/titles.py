"""The title of a plot with its legend below it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["set_title"]

_COLUMNS = 3
_ROW = 13
"""Points that a row of a legend takes."""


def set_title(axes: Axes, title: str, *, legend: bool) -> None:
    """Title the plot; with `legend`, describe its lines between title and plot, where it does not cover data."""
    if not legend:
        axes.set_title(title, fontsize=10)
        return
    labelled = len(axes.get_legend_handles_labels()[1])
    axes.set_title(title, fontsize=10, pad=8 + _ROW * -(-labelled // _COLUMNS))
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(labelled, _COLUMNS), fontsize=8, frameon=False,
        borderaxespad=0.2, handlelength=1.6, columnspacing=1.2, labelspacing=0.3,
    )  # fmt: skip
