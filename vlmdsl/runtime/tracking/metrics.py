"""The metrics of a run, one JSON object per line: `step`, `loss`, `terms/NAME`, and whatever else was measured at that step.

Of a run with stages or flows each says its `stage` and `flow`, and the terms of flows are `terms/FLOW.NAME`.
`NAME.accuracy`, `NAME.chance` and, in some records, `NAME.gradient_norm` belong to the term NAME; `learning_rate`,
`gradient_norm` and the `SPEED` to the loop; other names are the recipe's own, such as `temperature`.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from vlmdsl.runtime.files import damaged, read_text, write_atomically, writing

__all__ = ["SPEED", "WORDS", "MetricsFile", "Tracker", "cut_metrics", "loss_at_chance", "read_metrics", "term_names"]

WORDS = ("stage", "flow")
"""What a record holds that is not a number: the stage and the flow of its step, where the run has several."""
SPEED = ("samples_per_second", "seconds_per_step", "seconds_waiting")
"""What a record says of the speed since the one before: the last is how long a step waited for its batch."""
_NAME = re.compile(r"[\w./@+\-]{1,200}")
_MOST_STEPS = 2**63


class Tracker(Protocol):
    """A tracker of a run: a file, a display, a service."""

    def log(self, record: Mapping[str, float]) -> None:
        """Record the numbers of one step; `record["step"]` steps are done."""

    def close(self) -> None:
        """The run has ended, or failed."""


class MetricsFile:
    """Appends records to the file at `path`, each handed to the system before the next step is taken.

    Raises `DiagnosticError` (V0903) where it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with writing(path):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
            self._file = os.fdopen(os.open(path, flags, 0o666), "ab", buffering=0)

    def log(self, record: Mapping[str, float]) -> None:
        """Append one line; a number that is not finite becomes null, which JSON has and `NaN` it has not."""
        finite = {
            name: value if name in WORDS else _short(value) if math.isfinite(value) else None
            for name, value in record.items()
        }
        line = (json.dumps(finite, allow_nan=False) + "\n").encode()
        with writing(self._path):
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The numbers of the records in a file of metrics, null as NaN; a last line that was cut off is left out.

    Raises `DiagnosticError` (V0850) that names a line which is not a record.
    """
    records: list[dict[str, float]] = []
    for number, line in enumerate(_lines(path), start=1):
        record = _record(line, number, path)
        if records and record["step"] <= records[-1]["step"]:
            raise damaged(path, f"line {number} has a step that is not greater than the one before")
        records.append(record)
    return records


def cut_metrics(path: Path, step: int, records: int) -> int:
    """Drop the records of steps after `step`, and a last line that was cut off; returns how many are left.

    Raises `DiagnosticError` (V0850) if a line is not a record, or fewer than `records` are left.
    """
    read = read_metrics(path) if path.exists() else []
    kept = sum(record["step"] <= step for record in read)
    if kept < records:
        reason = f"it has only {kept} of the {records} records up to step {step}"
        raise damaged(path, reason if path.exists() else "it is missing")
    if path.exists():
        write_atomically(path, "".join(f"{line}\n" for line in _lines(path)[:kept]))
    return kept


def _lines(path: Path) -> list[str]:
    """The whole lines; what follows the last line break was cut off."""
    return read_text(path).split("\n")[:-1]


def _record(line: str, number: int, path: Path) -> dict[str, float]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise damaged(path, f"line {number} is not JSON") from None
    if not isinstance(record, dict) or not all(_NAME.fullmatch(name) for name in record):
        raise damaged(path, f"line {number} is not a record of metrics")
    if any(not isinstance(record.get(name, ""), str) or not _NAME.fullmatch(record.get(name, "-")) for name in WORDS):
        raise damaged(path, f"line {number} names its stage or flow by what is not a name")
    numbers = {name: math.nan if value is None else value for name, value in record.items() if name not in WORDS}
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in numbers.values()):
        raise damaged(path, f"line {number} has a value that is not a number")
    step = record.get("step")
    if not isinstance(step, int) or not 0 <= step < _MOST_STEPS:
        raise damaged(path, f"line {number} has no `step`")
    return numbers


def _short(value: float) -> float:
    """The number without the noise of arithmetic: nine digits hold every float32."""
    return float(f"{value:.9g}") if isinstance(value, float) else value


def term_names(record: Mapping[str, float]) -> list[str]:
    """The terms of the objective in a record."""
    return [name.removeprefix("terms/") for name in record if name.startswith("terms/")]


def loss_at_chance(record: Mapping[str, float]) -> float | None:
    """The loss of a model that guesses: the sum over all terms, or None if it is unknown for one of them."""
    levels = [record.get(f"{name}.chance") for name in term_names(record)]
    computed = [level for level in levels if level is not None]
    return sum(computed) if computed and len(computed) == len(levels) else None
