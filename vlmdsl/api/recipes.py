"""`recipes`: what is bundled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from vlmdsl.api.driver import build
from vlmdsl.frontend import bundled_names

__all__ = ["RecipeCard", "recipes"]


@dataclass(frozen=True)
class RecipeCard:
    """What a list of recipes shows of one."""

    name: str
    summary: str
    citations: tuple[str, ...]
    status: str
    fields: tuple[tuple[str, str], ...]
    knobs: tuple[tuple[str, object], ...]


@cache
def recipes() -> list[RecipeCard]:
    """The bundled recipes, by name.

    >>> "clip" in [card.name for card in recipes()]
    True
    """
    cards = []
    for name in bundled_names():
        program = build(name).written
        summary = program.documentation.splitlines()[0] if program.documentation else ""
        fields = tuple((field, str(type)) for field, type in program.fields)
        cards.append(RecipeCard(name, summary, program.citations, program.status, fields, program.knobs))
    return cards
