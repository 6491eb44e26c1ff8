"""What a tracker is, and what it learns of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

__all__ = ["RunTracker", "TrackedRun", "numbers_of", "words_of"]


@dataclass(frozen=True)
class TrackedRun:
    """A run for a tracker: `identity` is the same when the run is resumed and that of no other run; `done` are the steps
    before; `settings` are all settings by name, with those of the recipe."""

    folder: Path
    identity: str
    name: str
    project: str
    settings: Mapping[str, Any]
    done: int = 0


class RunTracker(Protocol):
    """A tracker of a run: a class whose constructor takes a `TrackedRun`, and continues one that was tracked before."""

    def log(self, record: Mapping[str, float]) -> None:
        """The numbers of one step; `record["step"]` steps are done. It may also say `stage` and `flow`, as words."""

    def results(self, step: int, results: Mapping[str, float]) -> None:
        """The measures of an evaluation after `step` steps, as fractions by name (`retrieval.image_to_text.R@1`)."""

    def close(self) -> None:
        """The run has ended, or failed."""


def numbers_of(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record without its step.

    >>> numbers_of({"step": 3, "flow": "pairs", "loss": 1.5})
    {'loss': 1.5}
    """
    return {name: value for name, value in record.items() if name != "step" and not isinstance(value, str)}


def words_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings as text, those that are null left out."""
    return {name: str(value) for name, value in settings.items() if value is not None}
