"""The surface syntax: text to tree and back."""

from vlmdsl.syntax.build import DURATIONS, NO_DURATIONS
from vlmdsl.syntax.equality import same_tree
from vlmdsl.syntax.format import format_module, format_text
from vlmdsl.syntax.parser import parse, parse_fully, read_source
from vlmdsl.syntax.walk import children, expressions_of

__all__ = [
    "DURATIONS", "NO_DURATIONS", "children", "expressions_of", "format_module", "format_text", "parse", "parse_fully",
    "read_source", "same_tree",
]  # fmt: skip
