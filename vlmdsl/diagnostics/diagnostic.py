"""What a diagnostic is made of. Texts are made by the catalogue, pictures by the renderers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vlmdsl.source import Span

__all__ = ["Diagnostic", "DiagnosticError", "Edit", "Fix", "Label"]


@dataclass(frozen=True, slots=True)
class Label:
    """A place and what is to be said about it (often the type found there)."""

    span: Span
    text: str = ""


@dataclass(frozen=True, slots=True)
class Edit:
    """One replacement in a source text."""

    span: Span
    replacement: str


@dataclass(frozen=True, slots=True)
class Fix:
    """A change that fixes the fault; `safe` means that it cannot change the meaning of anything else."""

    title: str
    edits: tuple[Edit, ...]
    safe: bool = True


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One fault of the user's: a stable code, a place, the reason and what to do.

    `message` stands alone on one line; `primary` is the tight place; `secondary` are the places of the other facts;
    `notes` say why; `help` says what to do.

    >>> import vlmdsl
    >>> (found,) = vlmdsl.check("contrst(image, text)")
    >>> found.code, found.message, found.primary.span.start, found.help
    ('V0201', '`contrst` is not defined', 0, ('did you mean `contrast`?',))
    """

    code: str
    message: str
    primary: Label
    secondary: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    help: tuple[str, ...] = ()
    fix: Fix | None = None
    severity: Literal["error", "warning"] = "error"


class DiagnosticError(Exception):
    """Carries diagnostics out of a Python call (`vlmdsl.compile`); the command line renders them, never a traceback.

    >>> import vlmdsl
    >>> try:
    ...     vlmdsl.plan("contrst(image, text)")
    ... except DiagnosticError as error:
    ...     print([found.code for found in error.diagnostics])
    ['V0201']
    """

    def __init__(self, diagnostics: tuple[Diagnostic, ...], rendered: str = "") -> None:
        self.diagnostics = diagnostics
        first = diagnostics[0]
        super().__init__(rendered or f"{first.code}: {first.message}")
