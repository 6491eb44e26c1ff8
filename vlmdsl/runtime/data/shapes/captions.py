"""Descriptions of a scene in English: by several writers with synonyms, and as a short synthetic caption."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vlmdsl.runtime.data.shapes.scenes import COLOURS, SHAPES, Scene, Thing

__all__ = ["PICKS", "WRITERS", "Caption", "coarse", "describe", "explained", "filled", "phrase", "with_article"]

_FRAMES = ("{}", "a picture of {}", "an image with {}", "a drawing that shows {}", "there is {}", "here we see {}")
WRITERS = 2 * len(_FRAMES)
"""The number of writers; writer 0 is the plainest, and that of `single_template`."""

_SIZE_WORDS = {True: ("large", "big", "huge"), False: ("small", "little", "tiny")}
_SHAPE_WORDS = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "cross": ("cross", "plus sign"),
}
_COLOUR_WORDS = {"purple": ("purple", "violet")}
_PLACE_WORDS = {
    "top left": ("in the top left corner", "in the upper left"),
    "top": ("at the top", "near the upper edge"),
    "top right": ("in the top right corner", "in the upper right"),
    "left": ("on the left", "near the left edge"),
    "middle": ("in the middle", "in the centre"),
    "right": ("on the right", "near the right edge"),
    "bottom left": ("in the bottom left corner", "in the lower left"),
    "bottom": ("at the bottom", "near the lower edge"),
    "bottom right": ("in the bottom right corner", "in the lower right"),
}
_SIDE_WORDS = {
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}

PICKS = 12
"""Most words of a caption that have synonyms."""

Choose = Callable[[Sequence[str]], str]
"""Picks one of several synonyms."""

_OBJECT = re.compile(r"\{(\d)\}")


@dataclass(frozen=True, slots=True)
class Caption:
    """A text, and for each object of the scene, in its order, where the text names it: the first character and the one after
    the last, without the article."""

    text: str
    spans: tuple[tuple[int, int], ...]


def filled(template: str, names: Sequence[str], *, articles: bool = True) -> Caption:
    """The template with the name of the k-th object for `{k}`, each after `a` or `an`.

    >>> filled("{1} above {0}", ("red disc", "orange box"))
    Caption(text='an orange box above a red disc', spans=((22, 30), (3, 13)))
    """
    text, spans = "", [(0, 0)] * len(names)
    for place, piece in enumerate(_OBJECT.split(template)):
        if place % 2 == 0:
            text += piece
            continue
        name = names[int(piece)]
        text += with_article(name) if articles else name
        spans[int(piece)] = (len(text) - len(name), len(text))
    return Caption(text, tuple(spans))


def describe(scene: Scene, writer: int, picks: Sequence[int] = ()) -> Caption:
    """A caption that identifies the scene, by writer 0 to `WRITERS - 1`.

    `picks` are up to `PICKS` numbers from 0 to 5, which choose among synonyms; without them the plainest words are taken.
    """
    left = iter(picks)
    frame, turned = _FRAMES[writer // 2], bool(writer % 2)
    template, names = _core(scene, turned, lambda words: words[next(left, 0) % len(words)])
    return filled(frame.format(template), names)


def _core(scene: Scene, turned: bool, choose: Choose) -> tuple[str, list[str]]:
    # With several objects the sizes are redundant, so half of the captions omit them.
    sized = len(scene.things) == 1 or choose(("", "sized")) == "sized"
    names = [_name(thing, sized, choose) for thing in scene.things]
    if len(names) == 1:
        place = choose(_PLACE_WORDS[scene.arrangement])
        return (f"{{0}} that sits {place}" if turned else f"{{0}} {place}"), names
    if len(names) == 2:
        if turned:
            return f"{{1}} {choose(_SIDE_WORDS[_OPPOSITE[scene.arrangement]])} {{0}}", names
        return f"{{0}} {choose(_SIDE_WORDS[scene.arrangement])} {{1}}", names
    across = scene.arrangement == "horizontal"
    if turned:
        return f"{{1}}, {{0}} and {{2}} {'from left to right' if across else 'from top to bottom'}", names
    ends = ("on the left", "on the right") if across else ("above", "below")
    return f"{{0}} between {{1}} {ends[0]} and {{2}} {ends[1]}", names


def phrase(thing: Thing) -> str:
    """The plain name of one object, as in `large red circle`; without a size if all objects have the same."""
    return " ".join(thing.words.values())


_DEFINITIONS = {
    "circle": "a round figure without corners",
    "square": "a figure with four equal sides",
    "triangle": "a figure with three corners",
    "cross": "two bars that meet in their middle",
}


def explained(scene: Scene, text: str) -> str:
    """The text of a scene with a definition of its main object behind it, as K-LITE writes external knowledge."""
    shape = SHAPES[scene.things[0].shape]
    return f"{text} ; {shape} , {_DEFINITIONS[shape]}"


def coarse(scene: Scene) -> Caption:
    """A short caption as a captioning model would give it: the objects without sizes and places."""
    names = [f"{COLOURS[thing.colour]} {SHAPES[thing.shape]}" for thing in scene.things]
    return filled(("{0}", "{0} and {1}", "{0}, {1} and {2}")[len(names) - 1], names)


def _name(thing: Thing, sized: bool, choose: Choose) -> str:
    size = choose(_SIZE_WORDS[thing.large]) + " " if sized and thing.large is not None else ""
    colour, shape = COLOURS[thing.colour], SHAPES[thing.shape]
    return size + choose(_COLOUR_WORDS.get(colour, (colour,))) + " " + choose(_SHAPE_WORDS[shape])


def with_article(words: str) -> str:
    """`words` after `a` or `an`."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
