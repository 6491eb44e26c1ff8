"""Loads `grammar/vlo.lark`, drops the newlines that have no meaning, and distinguishes `stage` and `flow` from names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path

from lark import Lark, Token
from lark.lark import PostLex

from vlmdsl._resources import root

__all__ = ["BLOCK_WORDS", "KEYWORDS", "cache_file", "load_grammar"]

KEYWORDS = ("vlo", "recipe", "cite", "status", "batch", "use", "as", "encoder", "let", "in", "def", "minimize")
"""The keywords, which cannot be names."""

BLOCK_WORDS = ("stage", "flow")
"""The words that begin a block of statements. They are keywords only at the start of a statement before a name, and `from`
and `share` only between these and their block: all four can also be names."""

_INSIDE = {"STAGE": "from", "FLOW": "share"}
"""The word that may follow the name of a block."""
_OPENING = frozenset({"LPAR", "LSQB"})
_CLOSING = frozenset({"RPAR", "RSQB"})


class _Words(PostLex):
    """Drops newlines inside `(` and `[` and folds the others, so that blank lines and comments separate nothing twice; and
    tells the words of `stage` and `flow` from names."""

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        previous, head = "_NL", ""
        tokens = self._significant(stream)
        token = next(tokens, None)
        while token is not None:
            following = next(tokens, None)
            starts = previous in ("_NL", "LBRACE")
            if (
                token.type == "NAME"
                and token in BLOCK_WORDS
                and starts
                and following is not None
                and following.type == "NAME"
            ):
                head = token.type = token.upper()
            elif token.type == "NAME" and previous in ("NAME", "RPAR") and token == _INSIDE.get(head):
                token.type = token.upper()
            elif token.type in ("LBRACE", "_NL"):
                head = ""
            previous = token.type
            yield token
            token = following

    def _significant(self, stream: Iterator[Token]) -> Iterator[Token]:
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
    """Where the parse tables are cached: in the user's cache folder, or nowhere if there is none.

    Each grammar has a separate file, so that two versions on one machine do not overwrite each other's.
    """
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vlmdsl"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.stat()
        if state.st_uid != os.getuid() or state.st_mode & 0o022 or not os.access(folder, os.W_OK):
            return None  # the tables are pickled, so files that others can write are not read
    except (OSError, RuntimeError):
        return None
    return str(folder / f"grammar-{sha256(grammar.encode()).hexdigest()[:16]}.tables")


@cache
def load_grammar(strict: bool = False) -> Lark:
    """The parser of the language, with the start rules `module`, `statement` and `term`.

    `strict` makes Lark reject any conflict and any overlap of terminals; it is slow and meant for tests. Otherwise the
    tables come from the cache, which Lark keys on the text of the grammar, its options and its version.
    """
    grammar = (root("grammar") / "vlo.lark").read_text(encoding="utf-8")
    return Lark(
        grammar,
        parser="lalr",
        lexer="basic",
        postlex=_Words(),
        propagate_positions=True,
        maybe_placeholders=True,
        start=["module", "statement", "term"],
        strict=strict,
        cache=(not strict and cache_file(grammar)) or False,
    )
