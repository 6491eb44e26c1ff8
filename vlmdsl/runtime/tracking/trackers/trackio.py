"""trackio: a local database, or a Space of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from vlmdsl.runtime.tracking.trackers.contract import TrackedRun, numbers_of, words_of

__all__ = ["Trackio"]


class Trackio:
    """`trackio show` shows it; where it keeps its database, its own variable `TRACKIO_DIR` says."""

    def __init__(self, run: TrackedRun) -> None:
        name = f"{run.name}-{run.identity}"  # which is all that trackio knows a run by
        self._run = import_module("trackio").init(
            project=run.project, name=name, resume="allow", config=words_of(run.settings), embed=False
        )

    def log(self, record: Mapping[str, float]) -> None:
        """Log the numbers of a step."""
        self._run.log(numbers_of(record), step=int(record["step"]))

    def results(self, step: int, results: Mapping[str, float]) -> None:
        """Log measures under `evaluation/`."""
        self._run.log({f"evaluation/{name}": value for name, value in results.items()}, step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()
