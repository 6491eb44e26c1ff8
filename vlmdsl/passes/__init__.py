"""Passes: pure functions from program to program. Each keeps the value and the gradient of every term.

`PASSES` is the order of an optimising compilation. A new rewrite is a row in the table of `fold` or `share`.
"""

from __future__ import annotations

from collections.abc import Callable

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.lowering import PassNeeds, UnknownStage
from vlmdsl.ir import Program
from vlmdsl.ir.verify import verify as verify_program
from vlmdsl.passes.contrast import contrast
from vlmdsl.passes.dead import dead
from vlmdsl.passes.fold import fold
from vlmdsl.passes.fuse import fuse
from vlmdsl.passes.retain import retain
from vlmdsl.passes.share import share
from vlmdsl.source import Span

__all__ = ["PASSES", "chosen_passes", "optimise"]

Pass = Callable[[Program], Program]

PASSES: tuple[tuple[str, Pass], ...] = (
    ("fold", fold),
    ("share", share),
    ("contrast", contrast),
    ("dead", dead),
    ("fuse", fuse),
    ("retain", retain),
)
"""Every pass with its name, in order."""

_ALWAYS = "retain"
"""Keeps excluded samples out of every computation, as the meaning of a recipe requires, so it always runs."""
_NEEDS = {"contrast": ("fold", "share"), "fuse": ("contrast",)}
"""Passes that need the results of others."""
_NOWHERE = Span("<command line>", 0, 0)


def chosen_passes(choice: str) -> tuple[str, ...]:
    """The passes that run: `all`, `off` (only those that the meaning of a recipe requires), or a comma-separated list.

    DiagnosticError for an unknown pass (V0601), and for one without another that it needs (V0606).

    >>> chosen_passes("off"), chosen_passes("share,fold")
    (('retain',), ('fold', 'share', 'retain'))
    """
    names = tuple(name for name, _ in PASSES)
    if choice == "all":
        return names
    listed = set() if choice == "off" else {name.strip() for name in choice.split(",")}
    for name in sorted(listed):
        if name not in names:
            help = (f"possible: all, off, {', '.join(names)}",)
            raise DiagnosticError((UnknownStage.at(_NOWHERE, help=help, name=name),))
        missing = [needed for needed in _NEEDS.get(name, ()) if needed not in listed]
        if missing:
            raise DiagnosticError((PassNeeds.at(_NOWHERE, name=name, needed=missing[0], help=(f"add `{missing[0]}`",)),))
    return tuple(name for name in names if name in listed or name == _ALWAYS)


def optimise(
    program: Program,
    *,
    passes: str = "all",
    verify: bool = True,
    dump: Callable[[str, Program], None] | None = None,
) -> Program:
    """Run all passes, or the `chosen_passes`.

    With `verify`, the graph is checked before the first and after every pass (InternalError names the pass that broke it).
    `dump(name, program)` is called with the result of each pass.
    """
    if verify:
        verify_program(program)
    chosen = chosen_passes(passes)
    for name, run in PASSES:
        if name not in chosen:
            continue
        program = run(program)
        if verify:
            verify_program(program, name)
        if dump is not None:
            dump(name, program)
    return program
