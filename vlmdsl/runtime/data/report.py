"""Samples that were skipped while loading, counted by reason and named, for the end of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.diagnostics.catalog.data import NoUsableSample, TooManyUnusable
from vlmdsl.diagnostics.cells import displayed
from vlmdsl.runtime.data.files import OUTSIDE
from vlmdsl.runtime.data.left_out import shortened
from vlmdsl.source import Span

__all__ = ["SkipReport", "SkipWatch", "Skipped", "allow_folders", "too_few_usable", "too_many_bad"]

_EXAMPLES = 3
_ENOUGH = 256
"""The number of samples over which the share of skipped ones is measured."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A sample that could not be used."""

    key: str
    reason: str


@dataclass
class SkipReport:
    """Skipped samples (each counted once) and inputs that views lacked.

    >>> report = SkipReport()
    >>> report.add([Skipped("shard/7", "damaged image")])
    >>> print(report.table())
    skipped 1 sample
      damaged image  1  shard/7
    """

    samples: dict[str, str] = field(default_factory=dict)
    """Key of each skipped sample -> its reason, in the order in which they were met."""
    views: Counter[str] = field(default_factory=Counter)
    """How often a view drew, and how often it lacked something, in the words of the table."""
    notes: list[str] = field(default_factory=list)
    """Further remarks on how samples were made, one line each."""

    def add(self, skipped: Iterable[Skipped], views: Mapping[str, int] | None = None) -> None:
        """Add the report of one batch."""
        for sample in skipped:
            self.samples.setdefault(sample.key, sample.reason)
        self.views.update(views or {})

    def merge(self, other: SkipReport) -> None:
        """Add the report of another process."""
        self.add((Skipped(key, reason) for key, reason in other.samples.items()), other.views)

    @property
    def counts(self) -> dict[str, int]:
        """Reason -> number of samples, the most frequent first."""
        return dict(Counter(self.samples.values()).most_common())

    @property
    def examples(self) -> dict[str, list[str]]:
        """Reason -> keys of the first three samples."""
        by_reason: dict[str, list[str]] = {}
        for key, reason in self.samples.items():
            keys = by_reason.setdefault(reason, [])
            if len(keys) < _EXAMPLES:
                keys.append(key)
        return by_reason

    def as_dict(self) -> dict[str, object]:
        """The report as JSON may hold it."""
        return {"skipped": self.counts, "examples": self.examples, "views": dict(self.views), "notes": self.notes}

    def table(self) -> str:
        """The report as text, for people; empty if there is nothing to report."""
        lines = []
        if self.samples:
            lines.append(f"skipped {len(self.samples):,} sample{'s' if len(self.samples) > 1 else ''}")
            reasons, numbers = list(self.counts), [f"{count:,}" for count in self.counts.values()]
            width, digits = max(map(len, reasons)), max(map(len, numbers))
            for reason, number in zip(reasons, numbers, strict=True):
                keys = displayed(", ".join(map(shortened, self.examples[reason]))) + (
                    ", ..." if self.counts[reason] > _EXAMPLES else ""
                )
                lines.append(f"  {reason:<{width}}  {number:>{digits}}  {keys}")
        for what, count in sorted(self.views.items()):
            draws = f"{what.partition(':')[0]}: draws"
            if count and what != draws:
                lines.append(f"{what} in {count:,} of {self.views[draws]:,} draws")
        lines += map(displayed, self.notes)
        return "\n".join(lines)


class SkipWatch:
    """Watches the share of skipped `samples` while batches are loaded: more than `most` stops the run."""

    def __init__(self, data: str, samples: int, most: float) -> None:
        self._data, self._samples, self._most = data, samples, most
        self._loaded = 0
        self._bad: dict[str, str] = {}
        self._told = 0

    def after(self, loaded: int, skipped: Sequence[Skipped]) -> str:
        """A line about what was skipped so far, once its number has doubled; raises `DiagnosticError` (V0828)."""
        self._loaded += loaded
        self._bad.update((sample.key, sample.reason) for sample in skipped)
        bad, tried = len(self._bad), min(self._loaded + len(self._bad), self._samples)
        if tried >= min(_ENOUGH, self._samples) and bad > self._most * tried:
            skips = [Skipped(key, reason) for key, reason in self._bad.items()]
            raise DiagnosticError((too_many_bad(self._data, tried, min(bad, tried), self._most, skips),))
        if bad < max(2 * self._told, 1):
            return ""
        self._told = bad
        report = SkipReport(dict(self._bad))
        return "; ".join(line.strip() for line in report.table().splitlines())


def too_many_bad(data: str, tried: int, bad: int, most: float, skipped: Iterable[Skipped]) -> Diagnostic:
    """V0828: a larger share of the samples that were looked at is bad than may be."""
    problem = f"more than the allowed share of {most:g} (`data.max_bad_share`)"
    return _unusable(data, bad, tried, problem, skipped)


def too_few_usable(data: str, samples: int, good: int, batch: int, skipped: Iterable[Skipped]) -> Diagnostic:
    """V0820 if no sample is good, V0828 if fewer are than a batch has."""
    if good:
        return _unusable(data, samples - good, samples, f"so no batch of {batch} can be filled", skipped)
    notes = (*_reasons(skipped), f"the data is {data}")
    return NoUsableSample.at(_PLACE, samples=samples, notes=notes, help=_helps(notes))


def _unusable(data: str, bad: int, samples: int, problem: str, skipped: Iterable[Skipped]) -> Diagnostic:
    notes = (*_reasons(skipped), f"the data is {data}")
    return TooManyUnusable.at(_PLACE, bad=bad, samples=samples, problem=problem, notes=notes, help=_helps(notes))


_PLACE = Span("<command line>", 0, 0)


def _helps(notes: Iterable[str]) -> tuple[str, ...]:
    look = "check `--map`, and the folder that image paths are relative to"
    return (look, allow_folders()) if any(OUTSIDE in note for note in notes) else (look,)


def allow_folders() -> str:
    """The help for reading files outside the folder of the data."""
    return "allow the folder, as in `--set 'data.allowed_folders=[/pictures]'`"


def _reasons(skipped: Iterable[Skipped]) -> tuple[str, ...]:
    report = SkipReport()
    report.add(skipped)
    return tuple(line.strip() for line in report.table().splitlines()[1:])
