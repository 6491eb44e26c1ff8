"""Hard negatives of a caption: one attribute or one relation is wrong, and which is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from vlmdsl.runtime.data.shapes.scenes import ARRANGEMENTS, SHAPES, USUAL_COLOURS, Scene, Thing

__all__ = ["WRONG_KINDS", "hard_negative"]

WRONG_KINDS = ("colour", "shape", "size", "relation", "binding")
"""What is wrong in a hard negative: the colour, shape or size of one object, the place of the main one, or whose colour is
whose (two objects have exchanged their colours)."""


def hard_negative(
    scene: Scene,
    text_of: Callable[[Scene], str],
    random: np.random.Generator,
    *,
    held_out: bool,
    colours: int = USUAL_COLOURS,
) -> tuple[str, str]:
    """A text of a scene that differs from `scene` in one thing, and the kind of difference, a word of `WRONG_KINDS`.

    `text_of` is a description that may leave out sizes and places; its text of the other scene is never the same. Kinds are
    equally probable where they are possible; other colours are among the first `colours`. Unless `held_out` it is not a text
    of a scene of the held-out split.
    """
    right = text_of(scene)
    by_kind: dict[str, list[str]] = {}
    for kind, other in _changed(scene, colours):
        if (held_out or not other.held_out) and (text := text_of(other)) != right:
            by_kind.setdefault(kind, []).append(text)
    kind = list(by_kind)[int(random.integers(len(by_kind)))]
    return by_kind[kind][int(random.integers(len(by_kind[kind])))], kind


def _changed(scene: Scene, colours: int) -> Iterator[tuple[str, Scene]]:
    """All scenes in which one thing is different, with what it is."""

    def scene_with(changes: dict[int, Thing]) -> Scene:
        return replace(scene, things=tuple(changes.get(number, thing) for number, thing in enumerate(scene.things)))

    for number, thing in enumerate(scene.things):
        for colour in (colour for colour in range(colours) if colour != thing.colour):
            yield "colour", scene_with({number: replace(thing, colour=colour)})
        for shape in (shape for shape in range(len(SHAPES)) if shape != thing.shape):
            yield "shape", scene_with({number: replace(thing, shape=shape)})
        if thing.large is not None:
            yield "size", scene_with({number: replace(thing, large=not thing.large)})
    # Of two red circles, each is left or right of the other in a text that leaves out their sizes.
    alike = len(scene.things) == 2 and len({(thing.colour, thing.shape) for thing in scene.things}) == 1
    for arrangement in () if alike else ARRANGEMENTS[len(scene.things)]:
        if arrangement != scene.arrangement:
            yield "relation", replace(scene, arrangement=arrangement)
    for first, one in enumerate(scene.things):
        for second, other in enumerate(scene.things[:first]):
            if one.colour != other.colour and one.shape != other.shape:
                changes = {first: replace(one, colour=other.colour), second: replace(other, colour=one.colour)}
                yield "binding", scene_with(changes)
