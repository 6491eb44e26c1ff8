"""Text, spans, size limits and how files are read: the bottom layer."""

from vlmdsl.source.text import SourceMap, SourceText, Span, with_newlines

__all__ = ["SourceMap", "SourceText", "Span", "with_newlines"]
