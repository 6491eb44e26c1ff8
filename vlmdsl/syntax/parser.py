"""From text to tree: `parse` never raises, and reports all independent errors of a text at once."""

from __future__ import annotations

from typing import NamedTuple

from lark.exceptions import UnexpectedInput
from lark.utils import TextSlice

from vlmdsl.diagnostics import Diagnostic, limited
from vlmdsl.diagnostics.catalog.syntax import NotText, TooDeep, TooLarge
from vlmdsl.source import SourceText, Span, with_newlines
from vlmdsl.source.limits import MAXIMUM_BYTES, MAXIMUM_NESTING, MAXIMUM_PIECES
from vlmdsl.syntax import tree
from vlmdsl.syntax.build import Builder
from vlmdsl.syntax.checks import check_item, check_module
from vlmdsl.syntax.documentation import attach_documentation
from vlmdsl.syntax.grammar import load_grammar
from vlmdsl.syntax.scan import Piece, comments_of, scan
from vlmdsl.syntax.walk import too_deep

__all__ = ["Parsed", "parse", "parse_fully", "read_source"]


class Parsed(NamedTuple):
    """The result of parsing: the tree, the errors by place, and the number of words, symbols and line breaks."""

    module: tree.Module
    faults: list[Diagnostic]
    pieces: int
    complete: bool
    """Whether the search for errors was complete; it stops after a hundred."""


def read_source(data: bytes, name: str, size: int = 0) -> tuple[SourceText, list[Diagnostic]]:
    """The text that the bytes of a file hold, under the name that messages show; `size` of a file of which only the first
    bytes were read.

    A byte order mark is dropped and every kind of line end becomes a newline. With a diagnostic (the file is too large, or
    is not UTF-8) the text holds what can be shown and should not be parsed.
    """
    if len(data) > MAXIMUM_BYTES:
        return SourceText(name, ""), [_too_large(name, max(size, len(data)))]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        shown = SourceText(name, data.decode("utf-8", errors="replace"))
        place = len(data[: error.start].decode("utf-8"))
        fault = NotText.at(Span(name, place, place + 1), f"byte {data[error.start]:#04x} at offset {error.start}")
        return shown, [fault]
    return SourceText(name, with_newlines(text)), []


def parse(source: SourceText) -> tuple[tree.Module, list[Diagnostic]]:
    """Parse a text: its tree and all independent syntax errors, in the order of the text.

    Never raises. With errors the tree holds the statements that could be parsed.
    """
    parsed = parse_fully(source)
    return parsed.module, limited(parsed.faults, complete=parsed.complete)


def parse_fully(source: SourceText) -> Parsed:
    """The same with all errors, however many, for callers that add others."""
    span = Span(source.name, 0, len(source.text))
    size = len(source.text.encode("utf-8", errors="surrogatepass"))
    if size > MAXIMUM_BYTES:
        return Parsed(tree.Module((), (), span), [_too_large(source.name, size)], 0, True)
    text = " " + source.text[1:] if source.text.startswith("\ufeff") else source.text
    pieces = scan(text, MAXIMUM_PIECES)
    if len(pieces) > MAXIMUM_PIECES:
        place = Span(source.name, pieces[-1].start, pieces[-1].end)
        words = "words, symbols and line breaks"
        fault = TooLarge.at(place, size=f"more than {MAXIMUM_PIECES:,} {words}", limit="no more")
        return Parsed(tree.Module((), (), span), [fault], len(pieces), True)
    comments = comments_of(source, pieces)
    nested = next((piece for piece in pieces if piece.kind == "open" and piece.depth >= MAXIMUM_NESTING), None)
    if nested is not None:
        fault = _too_deep(Span(source.name, nested.start, nested.end))
        return Parsed(tree.Module((), comments, span), [fault], len(pieces), True)
    items, faults, complete = _items(SourceText(source.name, text), pieces)
    items = attach_documentation(items, comments)
    faults.sort(key=lambda fault: fault.primary.span.start)
    return Parsed(tree.Module(items, comments, span), faults, len(pieces), complete)


def _items(source: SourceText, pieces: list[Piece]) -> tuple[tuple[tree.Item, ...], list[Diagnostic], bool]:
    """The items of a text, its faults, and whether these are all: by the grammar as a whole, else statement by statement."""
    builder = Builder(source.name)
    try:
        parsed = load_grammar().parse(TextSlice(source.text, 0, len(source.text)), start="module")
    except UnexpectedInput:
        from vlmdsl.syntax.recovery import recover  # error recovery is only loaded for a text with errors

        items, faults, complete = recover(source, pieces, builder)
        whole = False
    else:
        items, faults, complete, whole = builder.build(parsed), [], True, True
    faults.extend(builder.diagnostics)
    kept: list[tree.Item] = []
    for item in items:
        deep = too_deep(item, MAXIMUM_NESTING)
        if deep is not None:
            faults.append(_too_deep(deep.span))
            continue
        kept.append(item)
        faults.extend(check_item(item))
    faults.extend(check_module(items, source.name, complete=whole))
    return tuple(kept), faults, complete and builder.complete


def _too_large(name: str, size: int) -> Diagnostic:
    return TooLarge.at(Span(name, 0, 0), size=f"{size:,} bytes", limit=f"{MAXIMUM_BYTES:,}")


def _too_deep(span: Span) -> Diagnostic:
    return TooDeep.at(span, "too deep", help=("name parts of it with `let`",), limit=MAXIMUM_NESTING)
