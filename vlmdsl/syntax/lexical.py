"""Errors that are found without the grammar: characters, quotes, numbers, units, and operators of other languages."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from vlmdsl.diagnostics import Diagnostic, Edit, Fix, closest
from vlmdsl.diagnostics.catalog.syntax import (
    ForeignSyntax,
    MalformedNumber,
    UnclosedString,
    UnknownCharacter,
    UnknownUnit,
    WrongQuotes,
)
from vlmdsl.source import SourceText, Span
from vlmdsl.syntax.build import DURATIONS, NO_DURATIONS, NUMBER
from vlmdsl.syntax.grammar import KEYWORDS
from vlmdsl.syntax.scan import Piece

__all__ = ["FOREIGN_WORDS", "foreign_word", "lexical_faults"]

_UNITS = ("steps", "epochs", "%", "k", "M")
_QUOTES = "'‘’‚‛“”„‟`´«»"
_QUOTED = re.compile(rf'[{_QUOTES}]([^{_QUOTES}"\\\n]*)[{_QUOTES}"]')
_UNIT_TAIL = re.compile(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]+)")
_LOOKALIKES = {
    **dict.fromkeys("×·∗⋅", "*"),
    **dict.fromkeys("–—−", "-"),
    **dict(zip("÷≤≥≠，：（）", ("/", "<=", ">=", "!=", ",", ":", "(", ")"), strict=True)),
    **dict.fromkeys("\u00a0\u2009\u202f\u3000", " "),
}
"""Characters that look like signs of the language, and the signs."""

_SIGNS = {
    "**": ("the power operator of Python", "multiply, or write `exp(n * log(x))`"),
    ":=": ("an assignment operator of Python", "write `let name = value` on a separate line"),
    "//": ("integer division in Python", "write `/`; `#` begins a comment"),
    "->": ("a type annotation of Python", "a `def` has no result type; it is inferred"),
    "=>": ("an arrow of another language", "write `>=` to compare, or `def` for a function"),
    "&&": ("an operator of another language", "nest two `where(condition, x, y)`"),
    "||": ("an operator of another language", "nest two `where(condition, x, y)`"),
    "+=": ("an assignment operator of Python", "add the terms in one expression, or list them in `minimize { ... }`"),
    "-=": ("an assignment operator of Python", "names never change; give the result a new name with `let`"),
    "*=": ("an assignment operator of Python", "names never change; give the result a new name with `let`"),
    "/=": ("an assignment operator of Python", "names never change; give the result a new name with `let`"),
    "**=": ("an assignment operator of Python", "names never change; give the result a new name with `let`"),
    ";": ("a statement separator of other languages", "a statement ends with its line"),
    "@": ("the matrix product operator of Python", "write `similarity(image, text)`"),
    "^": ("the power operator of other languages", "multiply, or write `exp(n * log(x))`"),
    "\\": ("a line continuation of Python", "put the expression into parentheses"),
    "&": ("an operator of Python", "nest two `where(condition, x, y)`"),
}
"""Operators of other languages: their meaning there, and what to write here."""

FOREIGN_WORDS = {
    "import": "write `use name` for a bundled recipe, or `use \"./file.vlo\" as name`",
    "from": "write `use name` for a bundled recipe, or `use \"./file.vlo\" as name`",
    "return": "the body of a `def` is one expression after `=`",
    "lambda": "write a separate `def name(a, b) = expression`",
    "if": "choose per sample with `where(condition, x, y)`",
    "else": "choose per sample with `where(condition, x, y)`",
    "for": "a recipe has no loops; for several views write `augment(image, n=2)`",
    "while": "a recipe has no loops; for several views write `augment(image, n=2)`",
    "and": "nest two `where(condition, x, y)`",
    "or": "nest two `where(condition, x, y)`",
    "not": "invert the comparison, or swap the branches of `where`",
    "class": "write a `recipe` in a separate file, and `use` it",
}  # fmt: skip
"""Keywords of Python, and what to write instead."""


def foreign_word(file: str, piece: Piece) -> Diagnostic:
    """The error for a keyword of Python where it can only be meant as one."""
    return ForeignSyntax.at(
        Span(file, piece.start, piece.end), help=(FOREIGN_WORDS[piece.text],), text=piece.text, origin="a keyword of Python"
    )


def lexical_faults(source: SourceText, statement: Sequence[Piece]) -> Iterator[Diagnostic]:
    """Every lexical fault of a statement, in order; what lies inside of wrong quotes is skipped."""
    skip = 0
    for index, piece in enumerate(statement):
        if piece.start < skip:
            continue
        span = Span(source.name, piece.start, piece.end)
        if piece.text[0] in _QUOTES:
            fault, skip = _quotes(source, piece)
            yield fault
        elif piece.text in _SIGNS:
            origin, help = _SIGNS[piece.text]
            yield ForeignSyntax.at(span, help=(help,), text=piece.text, origin=origin)
        elif piece.kind == "unknown":
            yield _character(span, piece.text)
        elif piece.kind == "unclosed":
            yield UnclosedString.at(span, "the line ends here, inside the string", help=('add the closing `"`',))
        elif piece.kind == "number" and not (index and _is_member(statement[index - 1], piece)):
            following = statement[index + 1] if index + 1 < len(statement) else None
            yield from _number(source, piece, following)


def _is_member(previous: Piece, piece: Piece) -> bool:
    """Whether a number with a leading point is a typo in a member, `x.3`, which the grammar explains."""
    return piece.text.startswith(".") and previous.end == piece.start and previous.kind in ("word", "close")


def _quotes(source: SourceText, piece: Piece) -> tuple[Diagnostic, int]:
    """The fault of a quotation that begins here, and where it ends."""
    quoted = _QUOTED.match(source.text, piece.start)
    if quoted is None:
        return WrongQuotes.at(Span(source.name, piece.start, piece.end), help=('write `"`',)), piece.end
    span = Span(source.name, quoted.start(), quoted.end())
    fix = Fix("write straight double quotes", (Edit(span, f'"{quoted[1]}"'),))
    return WrongQuotes.at(span, help=(f'write `"{quoted[1]}"`',), fix=fix), quoted.end()


def _character(span: Span, character: str) -> Diagnostic:
    name = unicodedata.name(character, "")
    code = f"U+{ord(character):04X}"
    detail = f"{name}, {code}" if name else code
    shown = f"`{character}` ({detail})" if character.isprintable() and not character.isspace() else f"the character {detail}"
    if character.isascii() and character.isprintable():
        shown = f"`{character}`"
    meant = _LOOKALIKES.get(character)
    if meant is not None:
        fix = Fix(f"write `{meant}`", (Edit(span, meant),))
        return UnknownCharacter.at(
            span, help=(f"write `{meant}`" if meant != " " else "write a blank",), fix=fix, character=shown
        )
    return UnknownCharacter.at(span, help=_advice(character), character=shown)


def _advice(character: str) -> tuple[str, ...]:
    if character == "%":
        return ("a percent sign directly follows a number: `15%`",)
    if character == "!":
        return ("`!=` compares; conditions cannot be negated: swap the branches of `where`",)
    if character.isnumeric():
        return ("write the number in ASCII digits: `0.5`",)
    if character.isalpha():
        return ("names consist of ASCII letters, digits and underscores: `tau`",)
    return ("remove it",)


def _number(source: SourceText, piece: Piece, following: Piece | None) -> Iterator[Diagnostic]:
    span = Span(source.name, piece.start, piece.end)
    text = piece.text
    if NUMBER.fullmatch(text) is None:
        tail = _UNIT_TAIL.fullmatch(text)
        if tail is not None and tail[1] + tail[2][0] != "0x":
            yield _unit(Span(source.name, piece.start + len(tail[1]), piece.end), tail[2], attached=True)
            return
        digits = text.replace("_", "")
        digits = ("0" if digits.startswith(".") else "") + digits + ("0" if digits.endswith(".") else "")
        fix = Fix(f"write `{digits}`", (Edit(span, digits),)) if NUMBER.fullmatch(digits) else None
        help = (f"write `{digits}`",) if fix else ("numbers look like `3`, `0.07`, `1e-3`, `15%` or `32k`",)
        yield MalformedNumber.at(span, help=help, fix=fix, text=text if len(text) <= 40 else text[:40] + "…")
    elif following is not None and following.kind == "word" and "\n" not in source.text[piece.end : following.start]:
        between = source.text[piece.end : following.start]
        is_word = following.text in KEYWORDS or following.text in FOREIGN_WORDS
        if not is_word and not (following.text in ("steps", "epochs") and between in ("", " ")):
            yield _unit(Span(source.name, following.start, following.end), following.text, attached=False)


def _unit(span: Span, unit: str, *, attached: bool) -> Diagnostic:
    meant = closest(unit, _UNITS)
    if meant in DURATIONS:
        return UnknownUnit.at(span, help=(f"did you mean `{meant}`? {NO_DURATIONS}",), unit=unit)
    if meant is not None and attached:
        fix = Fix(f"write `{meant}`", (Edit(span, meant),), safe=meant != "M")  # a small m may mean a thousandth
        return UnknownUnit.at(span, help=(f"did you mean `{meant}`?",), fix=fix, unit=unit)
    hint = "a number may be followed by `%`, `k`, `M`, `steps` or `epochs`"
    product = "" if attached else f"; to multiply, write `* {unit}`"
    return UnknownUnit.at(span, "not a unit", help=(hint + product,), unit=unit)
