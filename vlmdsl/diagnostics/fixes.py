"""Applies the fixes that diagnostics offer."""

from __future__ import annotations

from collections.abc import Iterable

from vlmdsl.diagnostics.diagnostic import Diagnostic, Edit

__all__ = ["apply_safe_fixes", "is_fixable"]


def is_fixable(diagnostic: Diagnostic) -> bool:
    """Whether `vlmdsl check --fix` can apply its fix: it is safe, and its text is a file (not `<expression>`)."""
    return diagnostic.fix is not None and diagnostic.fix.safe and not diagnostic.primary.span.file.startswith("<")


def apply_safe_fixes(text: str, file: str, diagnostics: Iterable[Diagnostic]) -> str:
    """The text of `file` with the safe fixes of its diagnostics applied, each whole or not at all.

    Of fixes that touch the same place the first one wins; the others may be offered again when the text is checked again.
    """
    accepted: list[Edit] = []
    for diagnostic in diagnostics:
        fix = diagnostic.fix
        if fix is None or not fix.safe or any(edit.span.file != file for edit in fix.edits):
            continue
        if not any(_collide(new, old) for new in fix.edits for old in accepted):
            accepted.extend(fix.edits)
    for edit in sorted(accepted, key=lambda edit: edit.span.start, reverse=True):
        text = text[: edit.span.start] + edit.replacement + text[edit.span.end :]
    return text


def _collide(first: Edit, second: Edit) -> bool:
    """Whether two edits share a place; two insertions at one place do, since their order would be a guess."""
    first_end = max(first.span.end, first.span.start + 1)
    second_end = max(second.span.end, second.span.start + 1)
    return first.span.start < second_end and second.span.start < first_end
