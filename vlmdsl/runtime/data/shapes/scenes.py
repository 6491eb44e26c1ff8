"""What is in a scene, apart from how it is drawn or described; and which scenes a split has."""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from vlmdsl.runtime.draws import generator

__all__ = [
    "CLASSES",
    "COLOURS",
    "SHAPES",
    "Scene",
    "Thing",
    "USUAL_COLOURS",
    "Variety",
    "draw_scene",
    "scenes_of_split",
]

COLOURS = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "black",
    "brown", "grey", "turquoise", "navy", "olive", "maroon", "lime", "beige",
)  # fmt: skip
USUAL_COLOURS = 8
"""How many of `COLOURS`, the first, objects have unless more are asked for."""
SHAPES = ("circle", "square", "triangle", "cross")
CLASSES = ("object", "colour", "shape", "count")
"""Options of the `label` column: colour and shape of the main object, one of both, how many objects there are."""

PLACES = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")
SIDES = ("left", "right", "above", "below")
ROWS = ("horizontal", "vertical")
ARRANGEMENTS = {1: PLACES, 2: SIDES, 3: ROWS}
"""Number of objects -> the possible arrangements."""

_SHARE_OF_COUNTS = {1: (1.0,), 2: (0.3, 0.7), 3: (0.2, 0.5, 0.3)}
_ATTEMPTS = 500


@dataclass(frozen=True, slots=True)
class Variety:
    """Which scenes there are: of how many objects at most (1 to 3), whether all objects have one size, whether no two of a
    scene have the same name, and how many of `COLOURS` they have."""

    objects: int = 3
    equal_sizes: bool = False
    distinct: bool = False
    colours: int = USUAL_COLOURS
    fewest: int = 1
    """Scenes have at least so many objects; if that is more than `objects`, they have `objects`."""

    def classes(self, label: str) -> tuple[str, ...]:
        """The names of the classes by one of `CLASSES`.

        >>> Variety().classes("object")[:2]
        ('red circle', 'red square')
        """
        colours = COLOURS[: self.colours]
        objects = tuple(f"{colour} {shape}" for colour in colours for shape in SHAPES)
        counts = ("one object", "two objects", "three objects")
        return {"object": objects, "colour": colours, "shape": SHAPES, "count": counts}[label]

    def arrangements(self, count: int) -> tuple[str, ...]:
        """The arrangements of a number of objects."""
        return ("left", "above") if self.equal_sizes and count == 2 else ARRANGEMENTS[count]


@dataclass(frozen=True, slots=True)
class Thing:
    """One object, by position in `COLOURS` and `SHAPES`; `large` is None where all objects have one size."""

    colour: int
    shape: int
    large: bool | None

    @property
    def words(self) -> dict[str, str]:
        """Its plain attributes by `size` (unless all are equal), `colour` and `shape`."""
        size = {} if self.large is None else {"size": "large" if self.large else "small"}
        return {**size, "colour": COLOURS[self.colour], "shape": SHAPES[self.shape]}


@dataclass(frozen=True, slots=True)
class Scene:
    """The main object first, then its companions, and how they are arranged.

    With companions the main object is large and they are small: so it is plain in the image which one the label names.
    `arrangement` is the place of a lone object, the side on which the main object is of its one companion, or the line on
    which it stands between two (the first companion left of it or above it). Where all objects have one size, the main one
    of two is that on the left, or above.
    """

    things: tuple[Thing, ...]
    arrangement: str

    def label(self, attribute: str) -> int:
        """Its class by one `attribute`: a position in `Variety.classes(attribute)`."""
        main = self.things[0]
        places = {"object": main.colour * len(SHAPES) + main.shape, "colour": main.colour, "shape": main.shape}
        return len(self.things) - 1 if attribute == "count" else places[attribute]

    @property
    def held_out(self) -> bool:
        """Whether the scene belongs to the held-out split, whatever the seed and the sizes of several objects: about one
        scene in ten does."""
        return hashlib.blake2b(repr(self._usual()).encode(), digest_size=1).digest()[0] < 26

    def _usual(self) -> Scene:
        """The scene with the usual sizes."""
        if len(self.things) == 1:
            return replace(self, things=(replace(self.things[0], large=self.things[0].large is not False),))
        things, arrangement = self.things, self.arrangement
        if things[0].large is None and arrangement in ("right", "below"):  # "A right of B" is "B left of A" then
            things, arrangement = things[::-1], {"right": "left", "below": "above"}[arrangement]
        return Scene(tuple(replace(thing, large=not number) for number, thing in enumerate(things)), arrangement)


def draw_scene(random: np.random.Generator, variety: Variety) -> Scene:
    """A scene of a variety."""
    while True:
        scene = _drawn(random, variety)
        if not variety.distinct or len(set(scene.things)) == len(scene.things):
            return scene


def _drawn(random: np.random.Generator, variety: Variety) -> Scene:
    count = 1 + int(np.searchsorted(np.cumsum(_SHARE_OF_COUNTS[variety.objects]), random.random()))
    count = min(max(count, variety.fewest), variety.objects)
    things = []
    for position in range(count):
        colour, shape, size = (int(random.integers(n)) for n in (variety.colours, len(SHAPES), 2))
        large = None if variety.equal_sizes else bool(size) if count == 1 else position == 0
        things.append(Thing(colour, shape, large))
    arrangements = variety.arrangements(count)
    return Scene(tuple(things), arrangements[int(random.integers(len(arrangements)))])


def scenes_of_split(seed: int, split: Literal["train", "val"], variety: Variety, count: int) -> list[Scene]:
    """The first `count` scenes of a split, all different as long as there are enough; a longer list starts the same."""
    random = generator(seed, "scenes", split, variety.objects)
    most = _lone_scenes(split, variety) if variety.objects == 1 else math.inf
    scenes: list[Scene] = []
    seen: set[Scene] = set()
    for _ in range(count):
        drawn = (draw_scene(random, variety) for _attempt in range(_ATTEMPTS if len(seen) < most else 0))
        scene = next((scene for scene in drawn if scene.held_out == (split == "val") and scene not in seen), None)
        # Few scenes have only one object; once they are used up, they come again in the order they had.
        scenes.append(scenes[len(scenes) % len(seen)] if scene is None else scene)
        seen.add(scenes[-1])
    return scenes


def _lone_scenes(split: Literal["train", "val"], variety: Variety) -> int:
    """How many scenes of one object a split has."""
    sizes = (None,) if variety.equal_sizes else (False, True)
    things = itertools.starmap(Thing, itertools.product(range(variety.colours), range(len(SHAPES)), sizes))
    scenes = (Scene((thing,), place) for thing in things for place in PLACES)
    return sum(scene.held_out == (split == "val") for scene in scenes)
