"""The base of the catalogue: a class per code, whose call makes a diagnostic."""

from __future__ import annotations

from typing import ClassVar, Literal

from vlmdsl.diagnostics.diagnostic import Diagnostic, Fix, Label
from vlmdsl.source import Span

__all__ = ["CATALOGUE", "Problem"]

CATALOGUE: dict[str, type[Problem]] = {}
"""Codes and their classes, filled as the modules of `vlmdsl.diagnostics.catalog` are imported; `catalogue` has all."""


class Problem:
    """A kind of fault. A subclass states its code, its page, and a program that yields exactly it.

    `template` is the one-line message; `at` fills its braces. `bad` is a complete program that provokes this code and no
    other (a leading `# file: NAME` line and `# param: NAME=VALUE` lines may set the scene); `good` is the same, fixed.
    Codes that depend on more than the program (data, environment) leave both empty and describe an example in `provoked_by`.
    """

    code: ClassVar[str]
    template: ClassVar[str]
    summary: ClassVar[str]
    explanation: ClassVar[str]
    bad: ClassVar[str] = ""
    good: ClassVar[str] = ""
    provoked_by: ClassVar[str] = ""
    severity: ClassVar[Literal["error", "warning"]] = "error"
    since: ClassVar[str] = "0.1"

    def __init_subclass__(cls) -> None:
        if cls.code in CATALOGUE:
            raise TypeError(f"diagnostic code {cls.code} is defined twice")
        CATALOGUE[cls.code] = cls

    @classmethod
    def at(
        cls,
        span: Span,
        label: str = "",
        *,
        secondary: tuple[Label, ...] = (),
        notes: tuple[str, ...] = (),
        help: tuple[str, ...] = (),
        fix: Fix | None = None,
        **payload: object,
    ) -> Diagnostic:
        """The diagnostic of this kind at `span`; `payload` fills the template."""
        return Diagnostic(
            code=cls.code,
            message=cls.template.format(**payload),
            primary=Label(span, label),
            secondary=secondary,
            notes=notes,
            help=help,
            fix=fix,
            severity=cls.severity,
        )
