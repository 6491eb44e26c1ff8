"""The objectives of the bundled recipes, each as a recipe of its own: one for every flow of every stage, equal ones once."""

from __future__ import annotations

import re

import vlmdsl
from vlmdsl.api.driver import build
from vlmdsl.ir.digest import digest
from vlmdsl.ir.schedule import Apply, Compute
from vlmdsl.source import SourceText
from vlmdsl.source.bundled import bundled_text
from vlmdsl.syntax import parse
from vlmdsl.syntax.tree import Flow, Item, Stage

__all__ = ["OBJECTIVES"]


_WRITTEN = re.compile(r"written\(\w+\((\w+),[^()]*\)[^()]*\)")
"""`written(captioner(text, image), share=50%)`: by itself an objective has no decoder that has written, and the text itself
takes the place of what it wrote."""


def _alone(text: str, items: tuple[Item, ...], title: str) -> dict[str, str]:
    """Title -> the text of each objective among `items`: what stands in no block, and what its blocks hold."""
    blocks = [item for item in items if isinstance(item, Stage | Flow)]
    objectives: dict[str, str] = {}
    for own in blocks:
        alone = text
        for block in reversed(blocks):
            first, last = block.span.start, block.span.end
            body = text[text.index("{", first) + 1 : text.rindex("}", first, last)] if block is own else ""
            alone = alone[:first] + body + alone[last:]
        objectives |= _objectives(_WRITTEN.sub(r"\1", alone), f"{title}.{own.name.name}")
    return objectives


def _objectives(text: str, title: str) -> dict[str, str]:
    module, _ = parse(SourceText(title, text))
    return _alone(text, module.items, title) or {title: text}


def _of_recipe(name: str) -> dict[str, str]:
    text = bundled_text(name)
    assert text is not None
    objectives = _objectives(text.text, name)
    if len(objectives) == 1:
        return {name: name}
    first = {digest(build(own).planned): title for title, own in reversed(objectives.items())}
    return {title: own for title, own in objectives.items() if title in first.values()}


OBJECTIVES = {title: recipe for card in vlmdsl.recipes() for title, recipe in _of_recipe(card.name).items()}
"""`clip`, or `chinese_clip.both` for one of several -> the recipe: a bundled name, or the text of that objective alone."""


def functions_on_features(objective: vlmdsl.Objective) -> int:
    """The number of functions that run on features: those that follow a module. What precedes towers, such as the mixing of
    pixels, belongs to the step of a model."""
    steps = list(objective.schedule.steps)
    first = next(place for place, step in enumerate(steps) if isinstance(step, Apply))
    return sum(isinstance(step, Compute) for step in steps[first:])
