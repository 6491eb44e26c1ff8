"""`emit`: the torch source that a recipe compiles to, as text; torch is not imported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vlmdsl.api.driver import build
from vlmdsl.backends.torch import emit as back_end

__all__ = ["emit"]


def emit(recipe: str | Path, *, expression: bool = False, knobs: Mapping[str, object] | None = None) -> str:
    """The torch source that runs: one function, every line naming the recipe line it came from.

    >>> "def objective" in emit("clip")
    True
    """
    built = build(recipe, expression=expression, knobs=knobs)
    return back_end.emit(built.planned, sources=built.front_end.sources)
