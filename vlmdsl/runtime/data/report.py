"""What was skipped while loading, counted by reason and named, for the end of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["SkipReport", "Skipped"]

_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Skipped:
    """A sample that could not be used."""

    key: str
    reason: str


@dataclass
class SkipReport:
    """Skipped samples (each counted once, whenever it was met) and what the views had to do without.

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
    """What else is to be known of how the samples were made, a line each."""

    def add(self, skipped: Iterable[Skipped], views: Mapping[str, int] | None = None) -> None:
        """Notes what one batch met."""
        for sample in skipped:
            self.samples.setdefault(sample.key, sample.reason)
        self.views.update(views or {})

    def merge(self, other: SkipReport) -> None:
        """Adds what another process met."""
        self.add((Skipped(key, reason) for key, reason in other.samples.items()), other.views)

    @property
    def counts(self) -> dict[str, int]:
        """Reason -> number of samples, the most frequent first."""
        return dict(Counter(self.samples.values()).most_common())

    @property
    def examples(self) -> dict[str, list[str]]:
        """Reason -> keys of the first three samples."""
        found: dict[str, list[str]] = {}
        for key, reason in self.samples.items():
            keys = found.setdefault(reason, [])
            if len(keys) < _EXAMPLES:
                keys.append(key)
        return found

    def as_dict(self) -> dict[str, object]:
        """The report as JSON may hold it."""
        return {"skipped": self.counts, "examples": self.examples, "views": dict(self.views), "notes": self.notes}

    def table(self) -> str:
        """The report as text, for people; empty if there is nothing to tell."""
        lines = []
        if self.samples:
            lines.append(f"skipped {len(self.samples):,} sample{'s' if len(self.samples) > 1 else ''}")
            reasons, numbers = list(self.counts), [f"{count:,}" for count in self.counts.values()]
            width, digits = max(map(len, reasons)), max(map(len, numbers))
            for reason, number in zip(reasons, numbers, strict=True):
                keys = ", ".join(self.examples[reason]) + (", ..." if self.counts[reason] > _EXAMPLES else "")
                lines.append(f"  {reason:<{width}}  {number:>{digits}}  {keys}")
        for what, count in sorted(self.views.items()):
            draws = f"{what.partition(':')[0]}: draws"
            if count and what != draws:
                lines.append(f"{what} in {count:,} of {self.views[draws]:,} draws")
        lines += self.notes
        return "\n".join(lines)
