"""All trackers of a run as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from vlmdsl.runtime.tracking.metrics import MetricsFile, Tracker
from vlmdsl.runtime.tracking.progress import Display, progress

__all__ = ["Reporter"]


class Reporter:
    """A context in which records go to the file `metrics`, to the display, and to further trackers.

    Not `active` (on all processes but the first) it does nothing.
    """

    def __init__(self, metrics: Path, steps: int, *, active: bool = True, trackers: tuple[Tracker, ...] = ()) -> None:
        self._metrics, self._steps, self._active = metrics, steps, active
        self._further = trackers
        self._trackers: list[Tracker] = []
        self._display: Display | None = None

    def __enter__(self) -> Reporter:
        if self._active:
            self._trackers = [MetricsFile(self._metrics), *self._further]
            self._display = progress(self._steps)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._show(lambda display: display.close())
        for tracker in self._trackers:
            tracker.close()
        self._trackers, self._display = [], None

    def log(self, record: Mapping[str, float]) -> None:
        """Pass the numbers of one step to every tracker."""
        for tracker in self._trackers:
            tracker.log(record)
        self._show(lambda display: display.log(record))

    def note(self, line: str) -> None:
        """Show a line that is safe for a terminal, between those of the steps."""
        self._show(lambda display: display.note(line))

    def warn(self, page: str) -> None:
        """Show a rendered diagnostic, between the lines of the steps."""
        self._show(lambda display: display.warn(page))

    def _show(self, action: Callable[[Display], None]) -> None:
        """A terminal that was closed, or a full disk under a redirected stderr, ends the display and not the run."""
        if self._display is not None:
            try:
                action(self._display)
            except OSError:
                self._display = None
