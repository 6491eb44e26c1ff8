"""`plan`: what a recipe will run and what that costs, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vlmdsl.api.driver import build
from vlmdsl.backends.plan import Plan, make_plan
from vlmdsl.diagnostics import DiagnosticError, plain, render_text
from vlmdsl.diagnostics.catalog.lowering import UnknownStage
from vlmdsl.ir import Program
from vlmdsl.ir.text import program_text
from vlmdsl.source import SourceMap, Span

__all__ = ["dump", "plan"]


def plan(
    recipe: str | Path,
    *,
    expression: bool = False,
    batch: int = 1024,
    world: int = 1,
    dim: int = 512,
    dtype: str = "float32",
    vocabulary: int = 49_408,
    references: int = 65_536,
    knobs: Mapping[str, object] | None = None,
) -> Plan:
    """Encoder calls, shared values, FLOPs, bytes, peak memory, collectives and the lowering of each region.

    `batch` samples over `world` processes, features of `dim`; `vocabulary` words where tokens are asked for, `references`
    samples in a reference set. From formulas alone, so it says nothing of any one machine.

    >>> "dense" in plan("clip", batch=4096).to_text()
    True
    """
    built = build(recipe, expression=expression, knobs=knobs)
    sizes = {"batch": batch, "world": world, "dim": dim, "vocabulary": vocabulary, "references": references}
    return make_plan(built.planned, dtype=dtype, sources=built.front_end.sources, **sizes)


def dump(recipe: str | Path, stage: str, *, expression: bool = False, knobs: Mapping[str, object] | None = None) -> str:
    """The printed graph as written (`ir`) or after one pass (NAME or `ir:NAME`); DiagnosticError for a pass that is not."""
    printed: dict[str, str] = {}

    def keep(name: str, program: Program) -> None:
        printed[name] = plain(program_text(program))

    build(recipe, expression=expression, knobs=knobs, dump=keep)
    name = stage.removeprefix("ir:")
    if name not in printed:
        help = (f"possible: {', '.join(printed)}",)
        diagnostic = UnknownStage.at(Span("<command line>", 0, 0), help=help, name=stage)
        raise DiagnosticError((diagnostic,), render_text([diagnostic], SourceMap()))
    return printed[name]
