"""Tracking: the metrics of a run as a file, on the screen, and as curves."""

from vlmdsl.runtime.tracking.curves import draw_curves
from vlmdsl.runtime.tracking.grid import draw_grid
from vlmdsl.runtime.tracking.matches import draw_matches
from vlmdsl.runtime.tracking.metrics import MetricsFile, Tracker, cut_metrics, read_metrics
from vlmdsl.runtime.tracking.reporter import Reporter

__all__ = ["MetricsFile", "Reporter", "Tracker", "cut_metrics", "draw_curves", "draw_grid", "draw_matches", "read_metrics"]
