"""`recipes`: the bundled recipes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

from vlmdsl.source.bundled import bundled_names, bundled_text
from vlmdsl.syntax import parse
from vlmdsl.syntax.tree import Cite, Recipe, Status

if TYPE_CHECKING:
    from vlmdsl.types import FieldType

__all__ = ["RecipeCard", "card_of", "recipes"]


@dataclass(frozen=True)
class RecipeCard:
    """An entry in the list of recipes; its fields and hyper-parameters are elaborated on first use."""

    name: str
    summary: str
    citations: tuple[str, ...]
    status: str

    @cached_property
    def fields(self) -> tuple[tuple[str, str], ...]:
        """Every field and its type; of a recipe with several objectives, those of all of them."""
        return tuple((field, str(type)) for field, type in self._signature[0].items())

    @cached_property
    def knobs(self) -> tuple[tuple[str, object], ...]:
        """Every hyper-parameter and its default."""
        return self._signature[1]

    @cached_property
    def _signature(self) -> tuple[dict[str, FieldType], tuple[tuple[str, object], ...]]:
        from vlmdsl.frontend import load  # not imported to print a list

        text = bundled_text(self.name)
        assert text is not None
        programs = [flow.program for stage in load(text).stages for flow in stage.flows]
        assert programs, f"{self.name} has faults"
        return dict(field for program in programs for field in program.fields), programs[0].knobs


@cache
def recipes() -> list[RecipeCard]:
    """The bundled recipes, by name.

    >>> next(card.citations for card in recipes() if card.name == "clip")
    ('arXiv:2103.00020',)
    """
    return [card_of(name) for name in bundled_names()]


def card_of(name: str) -> RecipeCard:
    """The card of a bundled recipe, from the statements at its head."""
    text = bundled_text(name)
    assert text is not None
    module, _ = parse(text)
    documentation = next((item.documentation for item in module.items if isinstance(item, Recipe)), "")
    citations = tuple(item.text.value for item in module.items if isinstance(item, Cite))
    status = next((item.text.value for item in module.items if isinstance(item, Status)), "")
    return RecipeCard(name, documentation.partition("\n")[0], citations, status)
