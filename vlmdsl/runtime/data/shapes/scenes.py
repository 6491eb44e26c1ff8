"""What is in a scene, apart from how it is drawn or described; and which scenes a split has."""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vlmdsl.runtime.draws import generator

__all__ = ["CLASSES", "CLASS_NAMES", "COLOURS", "SHAPES", "Scene", "Thing", "draw_scene", "scenes_of_split"]

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black")
SHAPES = ("circle", "square", "triangle", "cross")
CLASS_NAMES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
CLASSES: dict[str, tuple[str, ...]] = {
    "object": CLASS_NAMES,
    "colour": COLOURS,
    "shape": SHAPES,
    "count": ("one object", "two objects", "three objects"),
}
"""Options of the `label` column -> the classes: colour and shape of the main object, one of both, how many objects."""

PLACES = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")
SIDES = ("left", "right", "above", "below")
ROWS = ("horizontal", "vertical")
ARRANGEMENTS = {1: PLACES, 2: SIDES, 3: ROWS}
"""Number of objects -> the possible arrangements."""

_SHARE_OF_COUNTS = {1: (1.0,), 2: (0.3, 0.7), 3: (0.2, 0.5, 0.3)}
_ATTEMPTS = 500


@dataclass(frozen=True, slots=True)
class Thing:
    """One object, by position in `COLOURS` and `SHAPES`."""

    colour: int
    shape: int
    large: bool


@dataclass(frozen=True, slots=True)
class Scene:
    """The main object first, then its companions, and how they are arranged.

    With companions the main object is large and they are small: so it is plain in the image which one the label names.
    `arrangement` is the place of a lone object, the side on which the main object is of its one companion, or the line on
    which it stands between two (the first companion left of it or above it).
    """

    things: tuple[Thing, ...]
    arrangement: str

    def label(self, attribute: str) -> int:
        """Its class by one `attribute`: a position in `CLASSES[attribute]`."""
        main = self.things[0]
        places = {"object": main.colour * len(SHAPES) + main.shape, "colour": main.colour, "shape": main.shape}
        return len(self.things) - 1 if attribute == "count" else places[attribute]

    @property
    def held_out(self) -> bool:
        """Whether the scene belongs to the held-out split, whatever the seed: about one scene in ten does."""
        return hashlib.blake2b(repr(self).encode(), digest_size=1).digest()[0] < 26


def draw_scene(random: np.random.Generator, objects: int) -> Scene:
    """A scene of at most `objects` (1 to 3) objects."""
    count = 1 + int(np.searchsorted(np.cumsum(_SHARE_OF_COUNTS[objects]), random.random()))
    count = min(count, objects)
    things = []
    for position in range(count):
        colour, shape, size = (int(random.integers(n)) for n in (len(COLOURS), len(SHAPES), 2))
        things.append(Thing(colour, shape, bool(size) if count == 1 else position == 0))
    arrangements = ARRANGEMENTS[count]
    return Scene(tuple(things), arrangements[int(random.integers(len(arrangements)))])


def scenes_of_split(seed: int, split: Literal["train", "val"], objects: int, count: int) -> list[Scene]:
    """The first `count` scenes of a split, all different as long as there are enough; a longer list starts the same."""
    random = generator(seed, "scenes", split, objects)
    most = _lone_scenes(split) if objects == 1 else math.inf
    scenes: list[Scene] = []
    seen: set[Scene] = set()
    for _ in range(count):
        drawn = (draw_scene(random, objects) for _attempt in range(_ATTEMPTS if len(seen) < most else 0))
        scene = next((scene for scene in drawn if scene.held_out == (split == "val") and scene not in seen), None)
        # Few scenes have only one object; once they are used up, they come again in the order they had.
        scenes.append(scenes[len(scenes) % len(seen)] if scene is None else scene)
        seen.add(scenes[-1])
    return scenes


def _lone_scenes(split: Literal["train", "val"]) -> int:
    """How many scenes of one object a split has."""
    things = itertools.starmap(Thing, itertools.product(range(len(COLOURS)), range(len(SHAPES)), (False, True)))
    scenes = (Scene((thing,), place) for thing in things for place in PLACES)
    return sum(scene.held_out == (split == "val") for scene in scenes)
