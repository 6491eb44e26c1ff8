"""The metrics of a run, one JSON object a line: `step`, `loss`, `terms/NAME`, and whatever else was measured at that step.

`NAME.accuracy` and `NAME.chance` belong to the term NAME; `learning_rate`, `gradient_norm` and `samples_per_second` to the
loop; other names are the recipe's own, such as `temperature`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

__all__ = ["MetricsFile", "Tracker", "loss_at_chance", "read_metrics", "term_names"]


class Tracker(Protocol):
    """Whatever follows a run: a file, a display, a service."""

    def log(self, record: Mapping[str, float]) -> None:
        """Take note of the numbers of one step; `record["step"]` steps are done."""

    def close(self) -> None:
        """The run has ended, or failed."""


class MetricsFile:
    """Appends records to the file at `path`, each on the disk before the next step is taken."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def log(self, record: Mapping[str, float]) -> None:
        """Append one line; a number that is not finite becomes null, which JSON has and `NaN` it has not."""
        finite = {name: value if math.isfinite(value) else None for name, value in record.items()}
        self._file.write(json.dumps(finite, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The records in a file of metrics, null as NaN; a last line that was cut off is left out."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return [{name: math.nan if value is None else value for name, value in record.items()} for record in records]


def term_names(record: Mapping[str, float]) -> list[str]:
    """The terms of the objective that a record speaks of."""
    return [name.removeprefix("terms/") for name in record if name.startswith("terms/")]


def loss_at_chance(record: Mapping[str, float]) -> float | None:
    """The loss of a model that guesses: the sum over all terms, or None where one's is not known."""
    levels = [record.get(f"{name}.chance") for name in term_names(record)]
    known = [level for level in levels if level is not None]
    return sum(known) if known and len(known) == len(levels) else None
