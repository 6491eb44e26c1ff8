"""`recipes`: what is bundled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from vlmdsl.frontend import load
from vlmdsl.source.bundled import bundled_names, bundled_text

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
        text = bundled_text(name)
        assert text is not None
        program = load(text).program
        assert program is not None, f"{name} has faults"
        summary = program.documentation.splitlines()[0] if program.documentation else ""
        fields = tuple((field, str(type)) for field, type in program.fields)
        cards.append(RecipeCard(name, summary, program.citations, program.status, fields, program.knobs))
    return cards
