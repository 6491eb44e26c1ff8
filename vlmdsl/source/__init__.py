"""Text, spans and size limits: the bottom layer, on which everything else stands."""

from vlmdsl.source.text import SourceMap, SourceText, Span

__all__ = ["SourceMap", "SourceText", "Span"]
