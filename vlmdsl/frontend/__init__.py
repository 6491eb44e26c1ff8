"""The front end: files, names, types, values; from text to the objective graph."""

from vlmdsl.frontend.load import FrontEnd, load

__all__ = ["FrontEnd", "load"]
