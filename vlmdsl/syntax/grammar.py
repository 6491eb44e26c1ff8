"""Loads `grammar/vlo.lark` and drops the newlines that the grammar is not to see."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path

from lark import Lark, Token
from lark.lark import PostLex

from vlmdsl._resources import root

__all__ = ["KEYWORDS", "cache_file", "load_grammar"]

KEYWORDS = ("vlo", "recipe", "cite", "status", "batch", "use", "as", "encoder", "let", "in", "def", "minimize")
"""The words of the language; no name may be one of them."""

_OPENING = frozenset({"LPAR", "LSQB"})
_CLOSING = frozenset({"RPAR", "RSQB"})


class _Newlines(PostLex):
    """Drops newlines inside `(` and `[` and folds the others, so that blank lines and comments separate nothing twice."""

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        depth = 0
        after_newline = False
        for token in stream:
            if token.type == "_NL":
                if depth == 0 and not after_newline:
                    yield token
                    after_newline = True
                continue
            after_newline = False
            if token.type in _OPENING:
                depth += 1
            elif token.type in _CLOSING:
                depth -= 1
            yield token


def cache_file(grammar: str) -> str | None:
    """Where the parse tables are kept between runs: in the user's own cache folder, or nowhere if there is none.

    Each grammar has a file of its own, so that two versions on one machine do not write over each other's.
    """
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vlmdsl"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.stat()
        if state.st_uid != os.getuid() or state.st_mode & 0o022 or not os.access(folder, os.W_OK):
            return None  # the tables are pickled: what others can write is not read
    except (OSError, RuntimeError):
        return None
    return str(folder / f"grammar-{sha256(grammar.encode()).hexdigest()[:16]}.tables")


@cache
def load_grammar(strict: bool = False) -> Lark:
    """The parser of the language, with the start rules `module`, `statement` and `term`.

    `strict` makes Lark refuse any conflict and any overlap of terminals; it is slow and meant for tests. Otherwise the
    tables come from the cache, which Lark keys on the text of the grammar, its options and its version.
    """
    grammar = (root("grammar") / "vlo.lark").read_text(encoding="utf-8")
    return Lark(
        grammar,
        parser="lalr",
        lexer="basic",
        postlex=_Newlines(),
        propagate_positions=True,
        maybe_placeholders=True,
        start=["module", "statement", "term"],
        strict=strict,
        cache=(not strict and cache_file(grammar)) or False,
    )
