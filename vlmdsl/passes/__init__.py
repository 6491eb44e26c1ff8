"""Passes: pure functions from program to program. Each keeps the value and the gradient of every term.

`PASSES` is the order of an optimising compilation. A new rewrite is a row in the table of `fold` or `share`.
"""

from __future__ import annotations

from collections.abc import Callable

from vlmdsl.ir import Program
from vlmdsl.ir.verify import verify as verify_program
from vlmdsl.passes.contrast import contrast
from vlmdsl.passes.dead import dead
from vlmdsl.passes.fold import fold
from vlmdsl.passes.fuse import fuse
from vlmdsl.passes.retain import retain
from vlmdsl.passes.share import share

__all__ = ["PASSES", "optimise"]

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


def optimise(program: Program, *, verify: bool = True, dump: Callable[[str, Program], None] | None = None) -> Program:
    """The program after all passes.

    With `verify`, the graph is checked before the first and after every pass (InternalError names the pass that broke it).
    `dump(name, program)` is called with what each pass made.
    """
    if verify:
        verify_program(program)
    for name, run in PASSES:
        program = run(program)
        if verify:
            verify_program(program, name)
        if dump is not None:
            dump(name, program)
    return program
