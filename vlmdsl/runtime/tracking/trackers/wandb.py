"""Weights & Biases; its files lie in the folder `wandb` of the run, also those of a run without a network."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from vlmdsl.runtime.tracking.trackers.contract import TrackedRun, numbers_of

__all__ = ["WeightsAndBiases"]


class WeightsAndBiases:
    """Where it logs to and whether, its own variables say: `WANDB_MODE=offline`, `WANDB_BASE_URL`, `WANDB_ENTITY`."""

    def __init__(self, run: TrackedRun) -> None:
        self._run = import_module("wandb").init(
            project=run.project,
            name=run.name,
            id=run.identity,
            resume="allow",
            dir=str(run.folder),
            config=dict(run.settings),
        )

    def log(self, record: Mapping[str, float]) -> None:
        """Log the numbers of a step."""
        self._run.log(numbers_of(record), step=int(record["step"]))

    def results(self, step: int, results: Mapping[str, float]) -> None:
        """Log measures under `evaluation/`; those of the last evaluation are in the summary of the run."""
        self._run.log({f"evaluation/{name}": value for name, value in results.items()}, step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()
