"""MLflow: a run of an experiment, on the server or in the files that `MLFLOW_TRACKING_URI` names."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from vlmdsl.runtime.tracking.trackers.contract import TrackedRun, numbers_of, words_of

__all__ = ["MLflow"]

_TAG = "vlmdsl.run"
_NOT_IN_NAMES = re.compile(r"[^\w\-./ ]")
_LONGEST_PARAMETER = 500
_MOST_AT_ONCE = 100
"""Parameters in one request."""


class MLflow:
    """The run is found again by the tag `vlmdsl.run`. In names of metrics `@` becomes `_at_`, since MLflow refuses it."""

    def __init__(self, run: TrackedRun) -> None:
        self._library = import_module("mlflow")
        self._client = self._library.MlflowClient()
        experiment = self._client.get_experiment_by_name(run.project)
        number = self._client.create_experiment(run.project) if experiment is None else experiment.experiment_id
        tracked = self._client.search_runs([number], filter_string=f"tags.`{_TAG}` = '{run.identity}'", max_results=1)
        if tracked:
            self._run = tracked[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        tags = {_TAG: run.identity, "vlmdsl.folder": str(run.folder)}
        self._run = self._client.create_run(number, run_name=run.name, tags=tags).info.run_id
        parameters = [
            self._library.entities.Param(_named(name), value[:_LONGEST_PARAMETER])
            for name, value in words_of(run.settings).items()
        ]
        for start in range(0, len(parameters), _MOST_AT_ONCE):
            self._client.log_batch(self._run, params=parameters[start : start + _MOST_AT_ONCE])

    def log(self, record: Mapping[str, float]) -> None:
        """Log the numbers of a step."""
        self._write(int(record["step"]), numbers_of(record))

    def results(self, step: int, results: Mapping[str, float]) -> None:
        """Log measures under `evaluation/`."""
        self._write(step, {f"evaluation/{name}": value for name, value in results.items()})

    def close(self) -> None:
        """Finish the run."""
        self._client.set_terminated(self._run)

    def _write(self, step: int, numbers: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        metrics: list[Any] = [
            self._library.entities.Metric(_named(name), value, now, step) for name, value in numbers.items()
        ]
        self._client.log_batch(self._run, metrics=metrics)


def _named(name: str) -> str:
    return _NOT_IN_NAMES.sub("_", name.replace("@", "_at_"))
