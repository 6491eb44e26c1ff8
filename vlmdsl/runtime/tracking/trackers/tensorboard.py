"""TensorBoard: event files in the folder `tensorboard` of the run."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from vlmdsl.runtime.tracking.trackers.contract import TrackedRun, numbers_of, words_of

__all__ = ["TensorBoard"]


class TensorBoard:
    """`tensorboard --logdir RUN` shows it. Steps that a resumed run takes again replace those of before."""

    def __init__(self, run: TrackedRun) -> None:
        writer = import_module("torch.utils.tensorboard").SummaryWriter
        self._writer = writer(str(run.folder / "tensorboard"), purge_step=run.done + 1 if run.done else None)
        rows = [f"| {name} | {value} |" for name, value in words_of(run.settings).items()]
        self._writer.add_text("settings", "\n".join(["| setting | value |", "|---|---|", *rows]))

    def log(self, record: Mapping[str, float]) -> None:
        """Write the numbers of a step."""
        self._write(int(record["step"]), numbers_of(record))

    def results(self, step: int, results: Mapping[str, float]) -> None:
        """Write measures under `evaluation/`."""
        self._write(step, {f"evaluation/{name}": value for name, value in results.items()})

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()

    def _write(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()
