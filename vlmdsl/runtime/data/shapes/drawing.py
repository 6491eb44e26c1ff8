"""Draws a scene: where its objects stand, the image, the boxes and the segments."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from vlmdsl.runtime.data.shapes.scenes import SHAPES, Scene

__all__ = ["Drawing", "Placement", "place"]

Paint = int | tuple[int, int, int]

_OVERSAMPLING = 2
_RADIUS = {
    1: {True: 0.25, False: 0.14, None: 0.2},
    2: {True: 0.22, False: 0.12, None: 0.17},
    3: {True: 0.17, False: 0.11, None: 0.14},
}
"""Objects in the scene -> large? (None: all have one size) -> radius, as a fraction of the image."""
_JITTER = 0.03
_PAINTS = np.array(
    [
        (214, 39, 40), (255, 140, 20), (240, 215, 30), (50, 160, 60),
        (40, 90, 210), (125, 60, 180), (250, 140, 190), (35, 35, 35),
        (125, 75, 35), (130, 130, 130), (50, 195, 190), (20, 30, 110),
        (115, 125, 30), (115, 15, 50), (165, 225, 60), (205, 170, 120),
    ],
    dtype=np.int64,
)  # fmt: skip
"""RGB of each of `COLOURS`."""
_PLACE_OFFSETS = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1), "above": (0, -1), "below": (0, 1)}


@dataclass(frozen=True, slots=True)
class Placement:
    """One object on the canvas; lengths are fractions of the image's side, the angle is in radians."""

    x: float
    y: float
    radius: float
    angle: float
    shape: str
    paint: tuple[int, int, int]

    def outline(self, size: int) -> list[tuple[float, float]]:
        """Its corners in pixels of an image of side `size`; for a circle those of the square around it."""
        x, y = self.x * size, self.y * size
        angle = 0.0 if self.shape == "circle" else self.angle
        sine, cosine = self.radius * size * math.sin(angle), self.radius * size * math.cos(angle)
        return [(x + u * cosine - v * sine, y + u * sine + v * cosine) for u, v in _OUTLINES[self.shape]]

    def box(self, size: int) -> tuple[float, float, float, float]:
        """The box around it in pixels of an image of side `size`: left, top, right, bottom."""
        across, along = zip(*self.outline(size), strict=True)
        return (max(min(across), 0.0), max(min(along), 0.0), min(max(across), float(size)), min(max(along), float(size)))


def place(scene: Scene, random: np.random.Generator) -> tuple[Placement, ...]:
    """Where the objects stand and how they look, with small chance differences; in the order of the scene's objects."""
    placements = []
    shades = random.integers(-14, 15, size=(len(scene.things), 3))
    for thing, (x, y), shade in zip(scene.things, _centres(scene), shades, strict=True):
        dx, dy, stretch, turn = random.uniform(-1, 1, size=4).tolist()
        radius = _RADIUS[len(scene.things)][thing.large] * (1 + 0.12 * stretch)
        red, green, blue = (int(level) for level in np.clip(_PAINTS[thing.colour] + shade, 0, 255))
        placements.append(
            Placement(x + _JITTER * dx, y + _JITTER * dy, radius, 0.2 * turn, SHAPES[thing.shape], (red, green, blue))
        )
    return tuple(placements)


def _centres(scene: Scene) -> list[tuple[float, float]]:
    """The centres of the objects, as fractions of the image's side."""
    steps = [_PLACE_OFFSETS.get(word, (0, 0)) for word in scene.arrangement.split()]
    dx, dy = sum(step[0] for step in steps), sum(step[1] for step in steps)
    if len(scene.things) == 1:
        reach = 0.32 if scene.things[0].large is False else 0.22
        return [(0.5 + reach * dx, 0.5 + reach * dy)]
    if len(scene.things) == 2 and scene.things[0].large is None:
        return [(0.5 + 0.24 * dx, 0.5 + 0.24 * dy), (0.5 - 0.24 * dx, 0.5 - 0.24 * dy)]
    if len(scene.things) == 2:
        return [(0.5 + 0.2 * dx, 0.5 + 0.2 * dy), (0.5 - 0.28 * dx, 0.5 - 0.28 * dy)]
    if scene.arrangement == "horizontal":
        return [(0.5, 0.5), (0.16, 0.5), (0.84, 0.5)]
    return [(0.5, 0.5), (0.5, 0.16), (0.5, 0.84)]


@dataclass(frozen=True, slots=True)
class Drawing:
    """Placed objects on a grey ground of lightness `ground`; `grain` is the standard deviation of the pixel noise."""

    placements: tuple[Placement, ...]
    ground: int
    grain: float = 4.0

    def image(self, size: int, random: np.random.Generator) -> np.ndarray:
        """`uint8 [size, size, 3]`, RGB."""
        fine = size * _OVERSAMPLING
        canvas = Image.new("RGB", (fine, fine), (self.ground,) * 3)
        pencil = ImageDraw.Draw(canvas)
        for placement in self.placements:
            _draw(pencil, placement, fine, placement.paint)
        pixels = np.asarray(canvas.reduce(_OVERSAMPLING), dtype=np.float32)
        noise = random.standard_normal(size=(size, size, 1), dtype=np.float32) * self.grain
        return np.clip(pixels + noise, 0, 255).astype(np.uint8)

    def segments(self, size: int) -> np.ndarray:
        """`uint8 [size, size]`: 0 for the ground, k for the k-th object."""
        canvas = Image.new("L", (size, size), 0)
        pencil = ImageDraw.Draw(canvas)
        for number, placement in enumerate(self.placements, start=1):
            _draw(pencil, placement, size, number)
        return np.asarray(canvas)


def _draw(pencil: ImageDraw.ImageDraw, thing: Placement, size: int, paint: Paint) -> None:
    outline = thing.outline(size)
    if thing.shape == "circle":
        pencil.ellipse((*outline[0], *outline[2]), fill=paint)
    else:
        pencil.polygon(outline, fill=paint)


_ARM = 0.32
_OUTLINES: dict[str, tuple[tuple[float, float], ...]] = {
    "circle": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
    "square": ((-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)),
    "triangle": ((0.0, -1.0), (0.95, 0.75), (-0.95, 0.75)),
    "cross": (
        (-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM),
        (_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM),
    ),
}  # fmt: skip
"""Outlines in units of the radius, y downwards."""
