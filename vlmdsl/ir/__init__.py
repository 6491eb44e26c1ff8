"""The intermediate representation: data that the front end makes, passes change and back ends read."""

from vlmdsl.ir.contrast import Contrast, Direction, TargetPart
from vlmdsl.ir.graph import Graph, Node, walk
from vlmdsl.ir.program import (
    Encoder,
    Input,
    Metric,
    Program,
    Stream,
    Term,
    encoder_of,
    inputs,
    parameters,
    root_field,
    streams,
)

__all__ = [
    "Contrast", "Direction", "Encoder", "Graph", "Input", "Metric", "Node", "Program", "Stream", "TargetPart", "Term",
    "encoder_of", "inputs", "parameters", "root_field", "streams", "walk",
]  # fmt: skip
