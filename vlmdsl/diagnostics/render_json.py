"""Diagnostics for machines: a stable JSON form."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vlmdsl.diagnostics.cells import json_text
from vlmdsl.diagnostics.diagnostic import Diagnostic, Label
from vlmdsl.source import SourceMap, Span

__all__ = ["as_json", "render_json"]


def render_json(diagnostics: Iterable[Diagnostic], sources: SourceMap) -> str:
    """`{"schema": 1, "diagnostics": [...], "errors": n, "warnings": n}`; each entry is made by `as_json`."""
    listed = list(diagnostics)
    errors = sum(diagnostic.severity == "error" for diagnostic in listed)
    report = {
        "schema": 1,
        "diagnostics": [as_json(diagnostic, sources) for diagnostic in listed],
        "errors": errors,
        "warnings": len(listed) - errors,
    }
    return json_text(report)


def as_json(diagnostic: Diagnostic, sources: SourceMap) -> dict[str, Any]:
    """One diagnostic as plain data.

    Lines and columns count from 1 in code points, and the end is exclusive; both are null if the file is not in `sources`.
    """
    fix = diagnostic.fix
    return {
        "code": diagnostic.code,
        "severity": diagnostic.severity,
        "message": diagnostic.message,
        **_place(diagnostic.primary.span, sources),
        "label": diagnostic.primary.text,
        "labels": [_label(label, sources) for label in diagnostic.secondary],
        "notes": list(diagnostic.notes),
        "help": list(diagnostic.help),
        "fix": None
        if fix is None
        else {
            "title": fix.title,
            "safe": fix.safe,
            "edits": [{**_place(edit.span, sources), "replacement": edit.replacement} for edit in fix.edits],
        },
    }


def _label(label: Label, sources: SourceMap) -> dict[str, Any]:
    return {**_place(label.span, sources), "text": label.text}


def _place(span: Span, sources: SourceMap) -> dict[str, Any]:
    line = column = end_line = end_column = None
    source = sources.texts.get(span.file)
    if source is not None:
        line, column = source.position(span.start)
        end_line, end_column = source.position(span.end)
    return {"file": span.file, "line": line, "column": column, "end_line": end_line, "end_column": end_column}
