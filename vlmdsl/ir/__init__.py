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
    Update,
    encoder_of,
    inputs,
    live_updates,
    parameters,
    root_field,
    states,
    streams,
)

__all__ = [
    "Contrast", "Direction", "Encoder", "Graph", "Input", "Metric", "Node", "Program", "Stream", "TargetPart", "Term",
    "Update", "encoder_of", "inputs", "live_updates", "parameters", "root_field", "states", "streams", "walk",
]  # fmt: skip
