"""Trackers beside `metrics.jsonl`: a file each here, and a row in the table of them.

A tracker gets what is logged, and may fail without consequences: the file has all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.diagnostics.catalog.environment import PackageMissing
from vlmdsl.diagnostics.catalog.runs import TrackerFailed
from vlmdsl.runtime.tracking.trackers.contract import RunTracker, TrackedRun
from vlmdsl.source import Span

__all__ = ["TRACKERS", "RunTracker", "TrackedRun", "Trackers", "check_trackers"]

_PLACE = Span("tracking.trackers", 0, 0)


class _Entry(NamedTuple):
    """The package that a tracker needs, and the class here that is one, in the module of the tracker's name."""

    package: str
    kind: str


TRACKERS = {
    "tensorboard": _Entry("tensorboard", "TensorBoard"),
    "trackio": _Entry("trackio", "Trackio"),
    "wandb": _Entry("wandb", "WeightsAndBiases"),
    "mlflow": _Entry("mlflow", "MLflow"),
}
"""The trackers of the setting `tracking.trackers`; each is an extra of the same name."""


def check_trackers(names: Sequence[str]) -> None:
    """V0901 for trackers whose packages are not installed."""
    missing = [name for name in names if find_spec(TRACKERS[name].package) is None]
    if missing:
        raise DiagnosticError(
            tuple(
                PackageMissing.at(
                    _PLACE, what=f"the tracker `{name}`", package=name, help=(f"`pip install 'vlmdsl[{name}]'`",)
                )
                for name in missing
            )
        )


class Trackers:
    """The trackers of a run as one: a context from their start to their end.

    One that fails is given up with a warning (V0856), which `warn` is called with, and the others go on.
    """

    def __init__(self, names: Sequence[str], run: TrackedRun, warn: Callable[[Diagnostic], None]) -> None:
        self._names, self._run, self._warn = names, run, warn
        self._trackers: dict[str, RunTracker] = {}

    def __enter__(self) -> Trackers:
        for name in self._names:
            self._guarded(name, partial(self._start, name))
        return self

    def __exit__(self, *error: object) -> None:
        self._all(lambda tracker: tracker.close())
        self._trackers = {}

    def log(self, record: Mapping[str, float]) -> None:
        """Pass on the record of a step."""
        self._all(lambda tracker: tracker.log(record))

    def results(self, step: int, results: Mapping[str, float]) -> None:
        """Pass on the measures of an evaluation after `step` steps."""
        self._all(lambda tracker: tracker.results(step, results))

    def close(self) -> None:
        """Nothing: they end with the context."""

    def _start(self, name: str) -> None:
        module = import_module(f"vlmdsl.runtime.tracking.trackers.{name}")
        self._trackers[name] = getattr(module, TRACKERS[name].kind)(self._run)

    def _all(self, action: Callable[[RunTracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            self._guarded(name, partial(action, tracker))

    def _guarded(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            # Whatever a library or its server does, the run is worth more, and the file has everything.
            self._trackers.pop(name, None)
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            self._warn(TrackerFailed.at(_PLACE, tracker=name, reason=reason))
