"""Diagnostics for people: the message, the line, carets under the place, and what to do (LANGUAGE section 6)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from vlmdsl.diagnostics.cells import cells, displayed, plain
from vlmdsl.diagnostics.diagnostic import Diagnostic, Label
from vlmdsl.diagnostics.fixes import is_fixable
from vlmdsl.source import SourceMap, SourceText

__all__ = ["render_text"]

_WIDEST = 160
"""Columns of a source line that are shown; of a longer one, the part around the place."""
_BEFORE = 60
"""How many of them are shown before the place."""

_STYLES = {"error": "1;31", "warning": "1;33", "frame": "1;34", "help": "1;36", "message": "1"}


def render_text(diagnostics: Iterable[Diagnostic], sources: SourceMap, *, colour: bool = False, count: bool = True) -> str:
    """All diagnostics, a blank line between two, and with `count` a last line that counts them; "" for none.

    A diagnostic whose file is not in `sources` is shown without its line.
    """
    listed = list(diagnostics)
    pages = ["\n".join(_Page(diagnostic, sources, colour).lines()) for diagnostic in listed]
    if listed and count:
        pages.append(_count_line(listed))
    return "\n\n".join(pages)


def _count_line(diagnostics: Sequence[Diagnostic]) -> str:
    """How many errors and warnings there are, and how many of them `--fix` can fix: `2 errors, 1 warning`."""
    errors = sum(diagnostic.severity == "error" for diagnostic in diagnostics)
    warnings = len(diagnostics) - errors
    parts = [
        f"{number} {noun}{'' if number == 1 else 's'}"
        for number, noun in ((errors, "error"), (warnings, "warning"))
        if number
    ]
    fixable = sum(map(is_fixable, diagnostics))
    advice = f"; `vlmdsl check --fix` can fix {fixable}" if fixable else ""
    return (", ".join(parts) or "no errors") + advice


class _Page:
    """One diagnostic on its way to text."""

    def __init__(self, diagnostic: Diagnostic, sources: SourceMap, colour: bool) -> None:
        self.diagnostic = diagnostic
        self.sources = sources
        self.colour = colour
        numbers = [self._line_of(label) for label in self._labels()]
        self.width = len(str(max(numbers, default=1)))

    def _labels(self) -> list[Label]:
        """The labels that can be shown, the primary one first."""
        return [
            label for label in (self.diagnostic.primary, *self.diagnostic.secondary) if label.span.file in self.sources.texts
        ]

    def _line_of(self, label: Label) -> int:
        return self.sources.get(label.span.file).position(label.span.start)[0]

    def _paint(self, style: str, text: str) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self.colour and text else text

    def _frame(self, text: str) -> str:
        return self._paint("frame", text)

    def lines(self) -> Iterator[str]:
        diagnostic = self.diagnostic
        head = self._paint(diagnostic.severity, f"{diagnostic.severity}[{diagnostic.code}]")
        yield head + self._paint("message", f": {displayed(diagnostic.message)}")
        yield from self._places()
        for note in diagnostic.notes:
            yield from self._remark("note", note)
        yield from self._helps()

    def _places(self) -> Iterator[str]:
        """The files with their lines: that of the primary label first."""
        labels = self._labels()
        primary = self.diagnostic.primary
        if primary not in labels:
            if primary.span.file:
                yield self._frame(" " * (self.width + 1) + "--> ") + displayed(primary.span.file)
            if primary.text:
                yield from self._remark("note", primary.text)
        files = list(dict.fromkeys(label.span.file for label in labels))
        for index, file in enumerate(files):
            here = [label for label in labels if label.span.file == file]
            source = self.sources.get(file)
            line, column = source.position(here[0].span.start)
            arrow = "-->" if index == 0 and primary in labels else ":::"
            yield self._frame(" " * (self.width + 1) + arrow) + f" {displayed(file)}:{line}:{column}"
            yield self._frame(" " * (self.width + 2) + "|")
            yield from self._excerpt(source, here)

    def _excerpt(self, source: SourceText, labels: list[Label]) -> Iterator[str]:
        """The lines of one file that carry labels, each followed by the carets of its labels."""
        previous = None
        order = sorted(labels, key=self._line_of)
        for number, group in groupby(order, key=self._line_of):
            if previous is not None and number > previous + 1:
                yield self._frame("...")
            previous = number
            marked = list(group)
            start, end = _window(source, number, marked)
            line = source.line(number)
            shown = ("…" if start else "") + displayed(line[start:end]) + ("…" if end < len(line) else "")
            yield self._frame(f" {number:>{self.width}} |") + (f" {shown}" if shown else "")
            for label in marked:
                yield self._frame(" " * (self.width + 2) + "|") + " " + self._carets(source, number, label, (start, end))

    def _carets(self, source: SourceText, number: int, label: Label, window: tuple[int, int]) -> str:
        start, end = window
        line = source.line(number)
        first = source.position(label.span.start)[1] - 1
        last = min(first + label.span.end - label.span.start, len(line))
        offset = cells(line[start:first]) + (1 if start else 0)
        length = max(cells(line[first : min(last, end)]), 1)
        primary = label is self.diagnostic.primary
        marks = ("^" if primary else "-") * length
        text = f"{marks} {displayed(label.text)}" if label.text else marks
        return " " * offset + self._paint(self.diagnostic.severity if primary else "frame", text)

    def _helps(self) -> Iterator[str]:
        fix = self.diagnostic.fix
        helps = list(self.diagnostic.help)
        if fix is not None and not helps:
            helps = [fix.title]
        for index, text in enumerate(helps):
            mark = "        [--fix]" if index == 0 and is_fixable(self.diagnostic) else ""
            yield from self._remark("help", text + mark)

    def _remark(self, kind: str, text: str) -> Iterator[str]:
        """`= note: ...`; further lines of the text are indented under the first."""
        margin = " " * (self.width + 2)
        first, *rest = plain(text).split("\n")
        yield f"{margin}{self._frame('=')} {self._paint('help' if kind == 'help' else 'message', kind)}: {first}"
        for line in rest:
            yield f"{margin}{' ' * (len(kind) + 4)}{line}".rstrip()


def _window(source: SourceText, number: int, labels: list[Label]) -> tuple[int, int]:
    """Which characters of a line to show: all of them, or of an overlong one those around its first label."""
    length = len(source.line(number))
    if length <= _WIDEST:
        return 0, length
    first = min(source.position(label.span.start)[1] - 1 for label in labels)
    start = max(0, first - _BEFORE)
    return start, min(length, start + _WIDEST)
