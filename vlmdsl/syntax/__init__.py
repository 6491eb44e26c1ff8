"""The surface syntax: from text to tree; `vlmdsl.syntax.format`, which few commands need, goes from tree to text."""

from vlmdsl.syntax.build import DURATIONS, NO_DURATIONS
from vlmdsl.syntax.equality import same_tree
from vlmdsl.syntax.parser import parse, parse_fully, read_source
from vlmdsl.syntax.walk import children, expressions_of

__all__ = [
    "DURATIONS", "NO_DURATIONS", "children", "expressions_of", "parse", "parse_fully",
    "read_source", "same_tree",
]  # fmt: skip
