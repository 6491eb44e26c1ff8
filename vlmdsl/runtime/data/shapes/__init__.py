"""The built-in data: procedural scenes, so that every recipe trains with nothing downloaded."""

from vlmdsl.runtime.data.shapes.negatives import WRONG_KINDS
from vlmdsl.runtime.data.shapes.scenes import CLASSES, COLOURS, SHAPES, USUAL_COLOURS, Scene, Thing, Variety
from vlmdsl.runtime.data.shapes.source import DEFAULT_SAMPLES, ShapesSource

__all__ = [
    "CLASSES", "COLOURS", "DEFAULT_SAMPLES", "SHAPES", "Scene", "ShapesSource", "Thing", "USUAL_COLOURS", "Variety",
    "WRONG_KINDS",
]  # fmt: skip
