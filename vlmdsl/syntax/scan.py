"""A coarse scan of any text whatever: brackets, comments and words, without the grammar.

The parser itself is Lark's; this scan collects comments, bounds the nesting before parsing, and finds the statements of a
text that does not parse.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from vlmdsl.source import SourceText, Span
from vlmdsl.syntax.tree import Comment

__all__ = ["CLOSERS", "Piece", "comments_of", "scan"]

CLOSERS = {"(": ")", "[": "]", "{": "}"}

_PIECE = re.compile(
    r"""
      (?P<comment>\#[^\n]*)
    | (?P<newline>\n)
    | (?P<blank>[ \t\r\f]+)
    | (?P<string>"(?:[^"\\\n]|\\[^\n])*")
    | (?P<unclosed>"[^\n]*)
    | (?P<number>(?:[0-9]|\.[0-9])(?:[eE][+-][0-9]|[A-Za-z0-9_.])*%?)
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<open>[(\[{])
    | (?P<close>[)\]}])
    | (?P<sign>\*\*=?|:=|->|=>|//|&&|\|\||[-+*/]=|<=|>=|==|!=|[-+*/<>=|,.:])
    | (?P<unknown>.)
    """,
    re.VERBOSE | re.DOTALL,
)


class Piece(NamedTuple):
    """One lexical piece; `kind` is a group of the pattern above, `depth` the number of brackets open before it."""

    kind: str
    text: str
    start: int
    end: int
    depth: int


def scan(text: str, limit: int) -> list[Piece]:
    """The pieces of a text in order, blanks left out; at most one more than `limit`."""
    pieces: list[Piece] = []
    depth = 0
    for match in _PIECE.finditer(text):
        kind = match.lastgroup or "unknown"
        if kind == "blank":
            continue
        if kind == "close":
            depth = max(depth - 1, 0)
        pieces.append(Piece(kind, match.group(), match.start(), match.end(), depth))
        if kind == "open":
            depth += 1
        if len(pieces) > limit:
            break
    return pieces


def comments_of(source: SourceText, pieces: list[Piece]) -> tuple[Comment, ...]:
    """The comments of a text, each without the white space at its end."""
    comments: list[Comment] = []
    line_is_empty = True
    for piece in pieces:
        if piece.kind == "comment":
            text = piece.text.rstrip()
            comments.append(Comment(text, line_is_empty, Span(source.name, piece.start, piece.start + len(text))))
        line_is_empty = piece.kind == "newline"
    return tuple(comments)
