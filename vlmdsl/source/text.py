"""Source texts, the spans that point into them, and the map that finds a text by name.

Offsets count code points from 0; lines and columns are computed only when something is shown.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property

__all__ = ["SourceMap", "SourceText", "Span", "with_newlines"]


def with_newlines(text: str) -> str:
    """The text with every kind of line end as a newline."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A half-open range `[start, end)` of code points in the text called `file`.

    >>> Span("clip.vlo", 3, 7).merge(Span("clip.vlo", 5, 12))
    Span(file='clip.vlo', start=3, end=12)
    """

    file: str
    start: int
    end: int

    def merge(self, other: Span) -> Span:
        """The smallest span that covers both; spans of another file are ignored."""
        if other.file != self.file:
            return self
        return Span(self.file, min(self.start, other.start), max(self.end, other.end))


@dataclass(frozen=True)
class SourceText:
    """One text under the name that messages show.

    >>> SourceText("a.vlo", "vlo 1\\nminimize x").position(6)
    (2, 1)
    """

    name: str
    text: str

    @cached_property
    def _line_starts(self) -> list[int]:
        starts = [0]
        starts.extend(index + 1 for index, character in enumerate(self.text) if character == "\n")
        return starts

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column, both from 1, of a code-point offset (the end of the text included)."""
        offset = max(0, min(offset, len(self.text)))
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1

    def line(self, number: int) -> str:
        """The text of line `number` (from 1) without its newline; empty past the end."""
        if not 1 <= number <= len(self._line_starts):
            return ""
        start = self._line_starts[number - 1]
        end = self.text.find("\n", start)
        return (self.text[start:] if end < 0 else self.text[start:end]).rstrip("\r")

    def slice(self, span: Span) -> str:
        """The characters that a span of this text covers."""
        return self.text[span.start : span.end]


@dataclass
class SourceMap:
    """All texts of one run of the compiler, by name."""

    texts: dict[str, SourceText] = field(default_factory=dict)

    def add(self, text: SourceText) -> SourceText:
        self.texts[text.name] = text
        return text

    def get(self, name: str) -> SourceText:
        """The text called `name`; an empty one if it was never read (a span without a file)."""
        return self.texts.get(name) or SourceText(name, "")
