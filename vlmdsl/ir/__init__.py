"""The intermediate representation: data that the front end makes, passes change and back ends read."""

from vlmdsl.ir.contrast import Contrast, Direction, TargetPart
from vlmdsl.ir.graph import Graph, Node, walk
from vlmdsl.ir.program import (
    NAMED,
    OUTPUTS,
    STATES,
    Encoder,
    Input,
    Metric,
    Program,
    Stream,
    Teacher,
    Term,
    Update,
    encoder_of,
    inputs,
    parameters,
    root_field,
    states,
    streams,
)
from vlmdsl.ir.updates import live_updates

__all__ = [
    "NAMED", "OUTPUTS", "STATES",
    "Contrast", "Direction", "Encoder", "Graph", "Input", "Metric", "Node", "Program", "Stream", "TargetPart", "Term",
    "Teacher", "Update", "encoder_of", "inputs", "live_updates", "parameters", "root_field", "states", "streams", "walk",
]  # fmt: skip
