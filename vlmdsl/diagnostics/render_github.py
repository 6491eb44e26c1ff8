"""Diagnostics as workflow commands, which GitHub shows beside the lines of a pull request."""

from __future__ import annotations

from collections.abc import Iterable

from vlmdsl.diagnostics.cells import plain
from vlmdsl.diagnostics.diagnostic import Diagnostic
from vlmdsl.source import SourceMap

__all__ = ["render_github"]


def render_github(diagnostics: Iterable[Diagnostic], sources: SourceMap) -> str:
    """One `::error file=...,line=...::message` line a diagnostic; "" for none."""
    return "\n".join(_annotation(diagnostic, sources) for diagnostic in diagnostics)


def _annotation(diagnostic: Diagnostic, sources: SourceMap) -> str:
    span = diagnostic.primary.span
    properties = {"file": span.file}
    source = sources.texts.get(span.file)
    if source is not None:
        line, column = source.position(span.start)
        end_line, end_column = source.position(span.end)
        properties |= {"line": str(line), "col": str(column), "endLine": str(end_line), "endColumn": str(end_column)}
    properties["title"] = f"{diagnostic.code} {diagnostic.message}"
    listed = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in properties.items() if value)
    text = [diagnostic.message, diagnostic.primary.text, *diagnostic.notes, *(f"help: {help}" for help in diagnostic.help)]
    return f"::{diagnostic.severity} {listed}::{_escaped(chr(10).join(filter(None, text)), '')}"


def _escaped(text: str, separators: str) -> str:
    """Percent-encodes what would end a command or a property of it; nothing is left that could control a terminal."""
    text = plain(text)
    for character in "%\r\n" + separators:
        text = text.replace(character, f"%{ord(character):02X}")
    return text
