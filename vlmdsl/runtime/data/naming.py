"""Texts that name the boxes of an image: a caption, a prompt of names, or several concepts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlmdsl.runtime.data.concepts import ConceptNames
from vlmdsl.runtime.data.context import Attributes, ViewContext
from vlmdsl.runtime.values import ConceptsValue, NamingText, PhrasesValue, TextFormat, joined_phrases

__all__ = ["text_of", "concepts", "prompt"]


def text_of(value: object, attributes: Attributes, context: ViewContext) -> NamingText:
    """The text that the spans are in."""
    assert isinstance(value, PhrasesValue)
    return NamingText(value.text, spans=value.spans)


def prompt(value: object, attributes: Attributes, context: ViewContext) -> NamingText:
    """The names of the boxes and names of others, in random order.

    With the probability `full` there are as many others as `negatives` says, else a number from 1 to it is drawn; there are
    fewer where the text would be longer than its tower takes, so that names of boxes are cut off last. Without any negatives
    the text stays as it is.
    """
    assert isinstance(value, PhrasesValue)
    context.counts["prompt: draws"] += 1
    if not (most := int(str(attributes["negatives"]))):
        return text_of(value, attributes, context)
    random = context.random("prompt", attributes)
    full = random.random() < float(str(attributes["full"]))
    drawn = most if full else int(random.integers(1, most + 1))
    own = [name for name in dict.fromkeys(value.names) if name]
    others = _others(value, own, drawn, random, context)
    places, shortened = random.random(len(own) + len(others)), False
    while True:
        names = [*own, *others]
        ordered = [names[place] for place in np.argsort(places[: len(names)], kind="stable")]
        text = joined_phrases(value.names, ordered)
        if not others or not isinstance(context.form, TextFormat):
            return text
        if context.form.tokenizer.lengths([text.text])[0] <= context.form.length:
            return text
        context.counts["prompt: fewer negatives, so that the text is not too long"] += not shortened
        others, shortened = others[: len(others) * 3 // 4], True


def concepts(value: object, attributes: Attributes, context: ViewContext) -> ConceptsValue:
    """The names of the boxes, then names of others up to `count`, in random order, each with its definition if it has one.

    Names that do not fit in are left out, which is counted: their boxes are not named.
    """
    assert isinstance(value, PhrasesValue)
    random, count = context.random("concepts", attributes), int(str(attributes["count"]))
    own = [name for name in dict.fromkeys(value.names) if name]
    context.counts["concepts: draws"] += 1
    context.counts[f"concepts: more than {count} names, the rest left out"] += len(own) > count
    own = own[:count]
    names = [*own, *_others(value, own, count - len(own), random, context)]
    names = [names[place] for place in random.permutation(len(names))]
    places = {name: place for place, name in enumerate(names)}
    named_by = tuple((places[name],) if name in places else () for name in value.names)
    defined = context.materials.concepts if attributes["defined"] else None
    texts = names if defined is None else [defined.text(name) for name in names]
    return ConceptsValue(tuple(texts), count, named_by)


def _others(
    value: PhrasesValue, own: Sequence[str], count: int, random: np.random.Generator, context: ViewContext
) -> list[str]:
    """So many names that are not among `own`, or all others, in random order."""
    concepts: ConceptNames | None = context.materials.concepts
    pool = value.others if concepts is None else concepts.names
    possible = [name for name in pool if name not in own]
    return [possible[place] for place in random.permutation(len(possible))[:count]]
