"""Tracking: the metrics of a run as a file, on the screen, and as curves."""

from vlmdsl.runtime.tracking.curves import draw_curves
from vlmdsl.runtime.tracking.metrics import MetricsFile, Tracker, read_metrics
from vlmdsl.runtime.tracking.reporter import Reporter

__all__ = ["MetricsFile", "Reporter", "Tracker", "draw_curves", "read_metrics"]
