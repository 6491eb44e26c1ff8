"""The front end: from text to the objective graph, through files, names, types and values."""

from vlmdsl.frontend.load import FrontEnd, load

__all__ = ["FrontEnd", "load"]
