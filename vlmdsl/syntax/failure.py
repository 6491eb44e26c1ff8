"""Explains a statement that the grammar rejects: from what was parsed, what follows, and what could have followed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from vlmdsl.diagnostics import Diagnostic, Edit, Fix, Label, closest
from vlmdsl.diagnostics.catalog import syntax as catalog
from vlmdsl.source import Span
from vlmdsl.syntax.grammar import BLOCK_WORDS, KEYWORDS
from vlmdsl.syntax.lexical import FOREIGN_WORDS, foreign_word
from vlmdsl.syntax.scan import Piece
from vlmdsl.syntax.statements import BINARY_SIGNS, STATEMENT_WORDS

__all__ = ["explain_failure"]

_COMPARISONS = frozenset({"<", "<=", ">", ">=", "==", "!="})
_SHOWN = {
    "COLON": "`:`",
    "COMMA": "`,`",
    "RPAR": "`)`",
    "RSQB": "`]`",
    "RBRACE": "`}`",
    "IN": "`in`",
    "AS": "`as`",
    "FROM": "`from`",
    "SHARE": "`share`",
    "LBRACE": "`{`",
}


@dataclass(frozen=True)
class _Failure:
    """Where the grammar stopped in a statement."""

    file: str
    pieces: Sequence[Piece]
    index: int
    accepted: frozenset[str]
    start: Literal["statement", "term"]

    @property
    def piece(self) -> Piece | None:
        """The piece that does not fit; None for the end of the statement."""
        return self.pieces[self.index] if self.index < len(self.pieces) else None

    @property
    def previous(self) -> Piece | None:
        return self.pieces[self.index - 1] if self.index else None

    @property
    def head(self) -> Piece:
        return self.pieces[0]

    @property
    def opener(self) -> Piece | None:
        """The innermost bracket open at the place."""
        waiting: list[Piece] = []
        for piece in self.pieces[: self.index]:
            if piece.kind == "open":
                waiting.append(piece)
            elif piece.kind == "close" and waiting:
                waiting.pop()
        return waiting[-1] if waiting else None

    @property
    def place(self) -> Span:
        """The tight place: the piece, or the point after the last one."""
        piece = self.piece
        return self.span(piece) if piece is not None else Span(self.file, self.pieces[-1].end, self.pieces[-1].end)

    def span(self, piece: Piece) -> Span:
        return Span(self.file, piece.start, piece.end)

    def text(self, index: int) -> str:
        return self.pieces[index].text if index < len(self.pieces) else ""

    @property
    def wants(self) -> str:
        """What is required here, in words; "" if there are other possibilities."""
        if "NUMBER" in self.accepted and "NAME" in self.accepted:
            return "a value"
        if "NAME" in self.accepted:
            return "a name"
        if "STRING" in self.accepted:
            return "a string"
        return "a number" if "NUMBER" in self.accepted else ""


def explain_failure(
    error: UnexpectedInput, file: str, pieces: Sequence[Piece], start: Literal["statement", "term"]
) -> Diagnostic:
    """The diagnostic for a statement or term (its pieces without newlines) at which the grammar raised `error`."""
    at_end = isinstance(error, UnexpectedToken) and error.token.type == "$END"
    position = error.pos_in_stream or 0
    index = len(pieces) if at_end else next((i for i, piece in enumerate(pieces) if piece.end > position), len(pieces))
    accepted: set[str] = set()
    if isinstance(error, UnexpectedToken):
        accepted = set(error.accepts or error.expected)
    elif isinstance(error, UnexpectedCharacters):
        accepted = set(error.allowed or ())
    failure = _Failure(file, pieces, index, frozenset(accepted), start)
    for rule in _RULES:
        diagnostic = rule(failure)
        if diagnostic is not None:
            return diagnostic
    return _unexpected(failure)


def _definition_without_word(failure: _Failure) -> Diagnostic | None:
    """`tau = 3`, `f(a) = a`."""
    head = failure.head
    if failure.start != "statement" or head.kind != "word" or head.text in KEYWORDS or failure.text(failure.index) != "=":
        return None
    if failure.index == 1:
        word = "let"
    elif failure.text(1) == "(" and failure.text(failure.index - 1) == ")" and failure.opener is None:
        word = "def"
    else:
        return None
    fix = Fix(f"write `{word}`", (Edit(Span(failure.file, head.start, head.start), f"{word} "),))
    return catalog.UnmarkedDefinition.at(
        failure.span(head), help=(f"write `{word}` before it",), fix=fix, name=head.text, word=word
    )


def _foreign_word(failure: _Failure) -> Diagnostic | None:
    """A word of Python at the place, or just before it, where it makes no sense as a name."""
    if failure.head.text in BLOCK_WORDS:
        return None  # `from` is a word of theirs
    for piece in (failure.previous, failure.piece):
        if piece is not None and piece.kind == "word" and piece.text in FOREIGN_WORDS:
            return foreign_word(failure.file, piece)
    return None


def _unknown_statement(failure: _Failure) -> Diagnostic | None:
    """`minimise contrast(...)`: a line that begins with two words."""
    head, piece = failure.head, failure.piece
    if (
        failure.start != "statement"
        or failure.index != 1
        or head.kind != "word"
        or head.text in (*KEYWORDS, *BLOCK_WORDS)
        or piece is None
    ):
        return None
    if piece.kind not in ("word", "string", "number") and piece.text != "{":
        return None
    meant = closest(head.text, (*STATEMENT_WORDS, *BLOCK_WORDS))
    if meant is None:
        words = ", ".join(f"`{word}`" for word in (*STATEMENT_WORDS, *BLOCK_WORDS))
        return catalog.UnknownStatement.at(failure.span(head), help=(f"a statement begins with {words}",), word=head.text)
    fix = Fix(f"write `{meant}`", (Edit(failure.span(head), meant),))
    return catalog.UnknownStatement.at(failure.span(head), help=(f"did you mean `{meant}`?",), fix=fix, word=head.text)


def _nameless_block(failure: _Failure) -> Diagnostic | None:
    """`stage {`, `flow (image) {`, `stage recipe {`."""
    if failure.head.text not in BLOCK_WORDS or "{" not in {piece.text for piece in failure.pieces}:
        return None
    following = failure.pieces[1]
    if following.text in KEYWORDS:
        return catalog.ReservedWord.at(
            failure.span(following), "not a name", help=("choose another name",), word=following.text
        )
    if following.kind == "word":
        return None
    place = failure.span(following)
    return catalog.MissingOperand.at(place, "a name expected here", what="a name", sign=f"`{failure.head.text}`")


def _share_of_a_flow(failure: _Failure) -> Diagnostic | None:
    """`flow texts(text) share part {`, `flow texts(text) share -5% {`, `flow texts(text) share {`."""
    previous = failure.previous
    if failure.head.text != "flow" or previous is None or previous.text != "share" or failure.wants != "a number":
        return None
    note = "the share is written out: it is neither a hyper-parameter nor an expression"
    help = "write a share of the steps, as in `share 15%`"
    return catalog.ShareOutOfRange.at(failure.place, "a number expected here", notes=(note,), help=(help,))


def _nameless_term(failure: _Failure) -> Diagnostic | None:
    """A term of a block that does not begin with `name:`."""
    if failure.start != "term" or failure.text(1) == ":" or failure.head.text in KEYWORDS:
        return None
    whole = Span(failure.file, failure.head.start, failure.pieces[-1].end)
    if failure.head.kind == "word" and failure.text(1) == "=":
        fix = Fix("write `:`", (Edit(Span(failure.file, failure.head.end, failure.pieces[1].end), ":"),))
        return catalog.NamelessTerm.at(whole, help=("a term is written `name: expression`: replace `=` with `:`",), fix=fix)
    return catalog.NamelessTerm.at(whole, help=("write a name and a colon before it: `name: expression`",))


def _reserved(failure: _Failure) -> Diagnostic | None:
    """A word of the language where a name has to be."""
    piece = failure.piece
    if piece is None or piece.text not in KEYWORDS or "NAME" not in failure.accepted or piece.text in ("in", "as"):
        return None
    previous = failure.previous
    if previous is not None and previous.text in BINARY_SIGNS:
        return None
    return catalog.ReservedWord.at(failure.place, "not a name", help=("choose another name",), word=piece.text)


def _missing_equals(failure: _Failure) -> Diagnostic | None:
    """`let tau 3`, `def f(a): a`, `let x: Scalar = 3`."""
    if failure.head.text not in ("let", "def", "encoder") or "EQUAL" not in failure.accepted or failure.opener is not None:
        return None
    piece = failure.piece
    what = f"`{failure.head.text} {failure.text(1)}`"
    if piece is not None and piece.text == ":" and failure.head.text != "def":
        return catalog.MissingEquals.at(
            failure.place, help=(f"`{failure.head.text}` takes no type; it is inferred",), what=what
        )
    fix = None
    if piece is not None and piece.text in (":", "=="):
        fix = Fix("write `=`", (Edit(failure.place, " =" if piece.text == ":" else "="),))
    elif piece is not None and (piece.kind in ("word", "number", "string") or piece.text == "-"):
        fix = Fix("write `=`", (Edit(Span(failure.file, piece.start, piece.start), "= "),))
    return catalog.MissingEquals.at(
        failure.place, "`=` expected here", help=("write `=` and the value",), fix=fix, what=what
    )


def _chained(failure: _Failure) -> Diagnostic | None:
    """`a < b < c`."""
    piece = failure.piece
    if piece is None or piece.text not in _COMPARISONS or failure.wants == "a value":
        return None
    depth = failure.opener.depth + 1 if failure.opener else failure.head.depth
    first = [other for other in failure.pieces[: failure.index] if other.text in _COMPARISONS and other.depth == depth]
    if not first:
        return None
    return catalog.ChainedComparison.at(
        failure.place,
        "the second comparison",
        secondary=(Label(failure.span(first[-1]), "the first"),),
        help=("nest two `where(condition, x, y)`, or bound the value with `clamp`",),
    )


def _missing_operand(failure: _Failure) -> Diagnostic | None:
    """A sign or word lacks its operand: the statement ends, or continues with something else."""
    previous, piece = failure.previous, failure.piece
    if previous is None or previous.kind == "open":
        return None
    if piece is not None:
        begins_value = piece.kind in ("word", "number", "string", "open") and piece.text not in KEYWORDS
        needs_value = previous.text in KEYWORDS or previous.text in BINARY_SIGNS | {"=", ":", "."}
        if begins_value or not needs_value or not failure.wants or piece.text == ":":
            return None
    expected = _expected(failure)
    if not expected:
        return None
    sign = _described(previous) if previous.kind == "string" else f"`{previous.text}`"
    return catalog.MissingOperand.at(failure.place, f"{expected[0]} expected here", what=expected[0], sign=sign)


def _missing_comma(failure: _Failure) -> Diagnostic | None:
    """Two values side by side inside of brackets."""
    previous, piece, opener = failure.previous, failure.piece, failure.opener
    if previous is None or piece is None or opener is None or opener.text == "{":
        return None
    ends = previous.kind in ("word", "number", "string", "close")
    if not ends or piece.kind not in ("word", "number", "string") or piece.text in KEYWORDS:
        return None
    fix = Fix("write a comma", (Edit(Span(failure.file, previous.end, previous.end), ","),), safe=False)
    return catalog.MissingComma.at(
        failure.place, help=("separate arguments by commas; write `*` to multiply",), fix=fix, found=_described(piece)
    )


def _unexpected(failure: _Failure) -> Diagnostic:
    expected = _expected(failure)
    return catalog.UnexpectedToken.at(
        failure.place,
        f"expected {_listed(expected)}" if expected else "",
        help=_advice(failure),
        found=_described(failure.piece) if failure.piece is not None else "the end of this statement",
    )


def _described(piece: Piece) -> str:
    if piece.kind == "string":
        return "this string"
    return f"`{piece.text}`" if len(piece.text) <= 40 else f"`{piece.text[:40]}…`"


def _expected(failure: _Failure) -> list[str]:
    """What is allowed here, in words, the most likely first."""
    expected = [failure.wants] if failure.wants else []
    if {"PLUS", "MULTIPLICATIVE"} & failure.accepted and failure.wants != "a value":
        expected.append("an operator")
    expected += [shown for name, shown in _SHOWN.items() if name in failure.accepted]
    if "EQUAL" in failure.accepted and not failure.wants:
        expected.append("`=`")
    if "LPAR" in failure.accepted and not {"NAME", "PLUS"} & failure.accepted:
        expected.append("`(`")
    if {"$END", "_NL"} & failure.accepted and failure.opener is None:
        expected.append("the end of the line")
    return expected


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]


def _advice(failure: _Failure) -> tuple[str, ...]:
    piece = failure.piece
    advice = ""
    if piece is None:
        pass
    elif piece.text == "=" and failure.opener is not None:
        advice = "the keyword of an argument is a plain name: `temperature=tau`; `==` compares"
    elif piece.text == "=" and failure.head.text == "def":
        advice = "a `def` has its parameters in parentheses; `let` names a value"
    elif piece.text == "=":
        advice = "`let name = value` defines a name; `==` compares"
    elif piece.text == ":" and failure.index == 1:
        advice = "named terms go inside `minimize { ... }`"
    elif piece.text == "[" and failure.wants:
        advice = "there are no lists; a tuple is written in parentheses: `(a, b)`"
    elif piece.text == "{" and failure.text(failure.index - 1) == ")":
        advice = "a body is one expression after `=`, without braces"
    elif piece.text in STATEMENT_WORDS and failure.opener is None:
        advice = "each statement begins on a new line"
    return (advice,) if advice else ()


_RULES: tuple[Callable[[_Failure], Diagnostic | None], ...] = (
    _definition_without_word,
    _foreign_word,
    _unknown_statement,
    _nameless_block,
    _share_of_a_flow,
    _nameless_term,
    _missing_equals,
    _reserved,
    _chained,
    _missing_operand,
    _missing_comma,
)
"""Tried in this order; the first explanation that applies is used."""
