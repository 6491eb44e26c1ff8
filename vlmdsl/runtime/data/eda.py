"""Easy data augmentation of a text: a synonym, an insertion, a swap or a deletion of words (Wei and Zou, EMNLP 2019)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vlmdsl.runtime.data.context import Attributes, ViewContext
from vlmdsl.runtime.data.synonyms import Synonyms, in_place_of, synonyms_of
from vlmdsl.runtime.values import TextValue

__all__ = ["eda"]

_NEED_SYNONYMS = frozenset({"synonym", "insertion"})

Words = list[str]
Random = np.random.Generator


def eda(text: str, attributes: Attributes, context: ViewContext) -> TextValue:
    """The text after one operation, drawn among those of the attribute `operations` that can be done.

    Synonym replacement and insertion need synonyms; draws without them, and unchanged texts, are counted.
    """
    operations = attributes["operations"]
    assert isinstance(operations, tuple)
    random, synonyms = context.random("eda", attributes), context.materials.synonyms
    possible = [name for name in operations if synonyms is not None or name not in _NEED_SYNONYMS]
    context.counts["eda: draws"] += 1
    context.counts["eda: operation that needs `data.synonyms` left out"] += len(possible) < len(operations)
    words = text.split()
    if possible:
        operation = _OPERATIONS[possible[int(random.integers(len(possible)))]]
        words = operation(words, attributes, synonyms or {}, random)
    changed = " ".join(words)
    context.counts["eda: text unchanged"] += changed == " ".join(text.split())
    return TextValue(changed)


def _replaced(words: Words, attributes: Attributes, synonyms: Synonyms, random: Random) -> Words:
    """Some distinct words that have synonyms, each replaced by one of them wherever it occurs."""
    replaceable = sorted({word for word in words if synonyms_of(word, synonyms)})
    chosen = random.permutation(len(replaceable))[: int(str(attributes["words"]))]
    instead = {replaceable[place]: _drawn(synonyms_of(replaceable[place], synonyms), random) for place in chosen.tolist()}
    return [in_place_of(word, instead[word]) if word in instead else word for word in words]


def _inserted(words: Words, attributes: Attributes, synonyms: Synonyms, random: Random) -> Words:
    """Synonyms of words of the text, each inserted at a random position."""
    replaceable = sorted({word for word in words if synonyms_of(word, synonyms)})
    changed = list(words)
    for _ in range(int(str(attributes["words"])) if replaceable else 0):
        synonym = _drawn(synonyms_of(_drawn(replaceable, random), synonyms), random)
        changed.insert(int(random.integers(len(changed) + 1)), synonym)
    return changed


def _swapped(words: Words, attributes: Attributes, synonyms: Synonyms, random: Random) -> Words:
    """Words at two different positions swapped, `words` times."""
    changed = list(words)
    for _ in range(int(str(attributes["words"])) if len(words) > 1 else 0):
        first, second = random.choice(len(words), size=2, replace=False).tolist()
        changed[first], changed[second] = changed[second], changed[first]
    return changed


def _deleted(words: Words, attributes: Attributes, synonyms: Synonyms, random: Random) -> Words:
    """Each word deleted with some probability; one is kept if none would be left."""
    chance = float(str(attributes["deletion"]))
    kept = [word for word, number in zip(words, random.random(len(words)), strict=True) if number >= chance]
    return kept or [_drawn(words, random)]


def _drawn(choices: Words | tuple[str, ...], random: Random) -> str:
    return choices[int(random.integers(len(choices)))]


_OPERATIONS: dict[str, Callable[[Words, Attributes, Synonyms, Random], Words]] = {
    "synonym": _replaced,
    "insertion": _inserted,
    "swap": _swapped,
    "deletion": _deleted,
}
