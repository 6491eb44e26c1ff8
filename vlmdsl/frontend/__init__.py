"""The front end: files, names, types, values; from text to the objective graph."""

from vlmdsl.frontend.load import FrontEnd, load
from vlmdsl.frontend.modules import bundled_names, bundled_text

__all__ = ["FrontEnd", "bundled_names", "bundled_text", "load"]
