"""The built-in data: procedural scenes, so that every recipe trains with nothing downloaded."""

from vlmdsl.runtime.data.shapes.negatives import WRONG_KINDS
from vlmdsl.runtime.data.shapes.scenes import CLASS_NAMES, CLASSES, COLOURS, SHAPES, Scene, Thing
from vlmdsl.runtime.data.shapes.source import DEFAULT_SAMPLES, ShapesSource

__all__ = ["CLASSES", "CLASS_NAMES", "COLOURS", "DEFAULT_SAMPLES", "SHAPES", "Scene", "ShapesSource", "Thing", "WRONG_KINDS"]
