"""`emit`: the torch source that a recipe compiles to, as text; torch is not imported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vlmdsl.api.driver import build_flows
from vlmdsl.backends.torch import emit as back_end
from vlmdsl.planning import schedule_of
from vlmdsl.planning.lowering import LoweringRequest
from vlmdsl.planning.workload import Workload

__all__ = ["emit"]


def emit(
    recipe: str | Path,
    *,
    expression: bool = False,
    lowering: str | Mapping[str, str] = "auto",
    passes: str = "all",
    batch: int = 1024,
    knobs: Mapping[str, object] | None = None,
) -> str:
    """Return the torch source that runs for a `batch` on one process: one function, in which every value names the line of
    the recipe that it comes from; `lowering` and `passes` as for `compile`. A recipe with stages or flows has one for each,
    under its title.

    >>> "def objective" in emit("clip")
    True
    """
    flows = build_flows(recipe, expression=expression, knobs=knobs, passes=passes)
    workload, request = Workload(batch, 1, 512, "float32", 49, 32), LoweringRequest.of(lowering)
    sources = {
        built.title: back_end.emit(built.planned, built.front_end.sources, schedule_of(built.planned, workload, request))
        for built in flows
    }
    return "\n\n".join(f"# {title}\n{source}" if title else source for title, source in sources.items())
