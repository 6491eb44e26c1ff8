"""The metrics of a run as a picture. matplotlib is imported when one is drawn."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmdsl.runtime.files import write_atomically
from vlmdsl.runtime.tracking.metrics import loss_at_chance, read_metrics, term_names
from vlmdsl.runtime.tracking.titles import set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Panel", "draw_curves", "panels_of"]

Records = Sequence[dict[str, float]]

_COLUMNS = 3


@dataclass(frozen=True)
class Panel:
    """One plot: its lines as name in the records -> legend, its lowest value (None: as it comes), whether it has chance."""

    title: str
    lines: dict[str, str]
    bottom: float | None = None
    percent: bool = False
    chance: bool = False


_OF_THE_LOOP = (
    Panel("learning rate", {"learning_rate": "learning rate"}, bottom=0.0),
    Panel("gradient norm before clipping", {"gradient_norm": "gradient norm"}, bottom=0.0),
    Panel("samples per second", {"samples_per_second": "samples per second"}, bottom=0.0),
    Panel("seconds per step", {"seconds_per_step": "all of it", "seconds_waiting": "waiting for data"}, bottom=0.0),
)


def draw_curves(metrics: Path, picture: Path, title: str = "") -> None:
    """Draw the records of the file `metrics` into the PNG file `picture`: nothing, where there are no records.

    The loss stands beside its chance level and its terms; in-batch accuracy, temperature and other numbers of the recipe,
    learning rate, gradient norm and throughput each have a plot if they were logged.
    """
    records = read_metrics(metrics) if metrics.is_file() else []
    if not records:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = panels_of(records)
    rows = -(-len(panels) // _COLUMNS)
    figure = Figure(figsize=(4.4 * min(len(panels), _COLUMNS), 3.1 * rows), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for position, panel in enumerate(panels):
        _draw(figure.add_subplot(rows, min(len(panels), _COLUMNS), position + 1), panel, records)
    if title:
        figure.suptitle(title, parse_math=False)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    write_atomically(picture, drawn.getvalue())


def panels_of(records: Records) -> list[Panel]:
    """What there is to draw, by the names in the records: those of different flows and stages have different ones."""
    record = {name: value for each in reversed(records) for name, value in each.items()}
    terms = term_names(record)
    of_flows = any("." in name for name in terms)  # FLOW.NAME: a step has the terms of one flow, so sums do not compare
    several = len(terms) > 1 or of_flows
    losses = {"loss": "all terms" if several else "loss"} | ({f"terms/{name}": name for name in terms} if several else {})
    if of_flows:
        del losses["loss"]
    panels = [Panel("loss", losses, chance=any(loss_at_chance(each) is not None for each in records))]
    accuracies = {f"{name}.accuracy": name for name in terms if f"{name}.accuracy" in record}
    if accuracies:
        panels.append(Panel("in-batch accuracy, percent", accuracies, bottom=0.0, percent=True))
    norms = {f"{name}.gradient_norm": name for name in terms if f"{name}.gradient_norm" in record}
    if norms:
        panels.append(Panel("gradient norm of each term", norms, bottom=0.0))
    plotted = {
        "step",
        "loss",
        *losses,
        *accuracies,
        *norms,
        *(name for panel in _OF_THE_LOOP for name in panel.lines),
        *(f"{name}.chance" for name in terms),
    }
    plotted |= {f"terms/{name}" for name in terms}
    panels += [Panel(name.replace("_", " "), {name: name}) for name in record if name not in plotted]
    return panels + [panel for panel in _OF_THE_LOOP if record.keys() >= panel.lines.keys()]


def _draw(axes: Axes, panel: Panel, records: Records) -> None:
    factor = 100.0 if panel.percent else 1.0
    for name, label in panel.lines.items():
        points = [(record["step"], factor * record[name]) for record in records if name in record]
        steps, values = zip(*points, strict=True)
        # A single record is not a line yet, but should be seen.
        axes.plot(steps, values, label=label, linewidth=1.4, marker="o" if len(points) == 1 else None)
    if panel.chance:
        _draw_chance(axes, records)
    set_title(axes, panel.title, legend=len(panel.lines) > 1 or panel.chance)
    axes.set_xlabel("step", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if panel.bottom is not None:
        axes.set_ylim(bottom=panel.bottom)


def _draw_chance(axes: Axes, records: Records) -> None:
    """A level line, or where it moves (a queue fills) a line through the records."""
    levels = [(record["step"], level) for record in records if (level := loss_at_chance(record)) is not None]
    last = levels[-1][1]
    style: dict[str, Any] = {"color": "0.4", "linestyle": "--", "linewidth": 1.0, "label": f"chance {last:.2f}"}
    if all(level == last for _, level in levels):
        axes.axhline(last, **style)
    else:
        axes.plot(*zip(*levels, strict=True), **style)
