"""Makes the frozen tree of `tree.py` from Lark's parse tree; iterative, so depth is not a limit."""

from __future__ import annotations

import math
import re
from typing import Any

from lark import Token, Transformer_NonRecursive, Tree, v_args
from lark.tree import Meta

from vlmdsl.diagnostics import Diagnostic
from vlmdsl.diagnostics.catalog.syntax import BadCount, BadEscape, EditionUnknown, NumberOutOfRange
from vlmdsl.source import Span
from vlmdsl.source.limits import MAXIMUM_DIAGNOSTICS
from vlmdsl.syntax import tree

__all__ = ["DURATIONS", "KNOWN_EDITION", "NO_DURATIONS", "NUMBER", "Builder"]

KNOWN_EDITION = 1
"""The newest edition of the language that this compiler reads."""

NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)(%|[kM]?)( ?(?:steps|epochs))?")
"""A number as the grammar writes it: numeral, percent sign or multiplier, unit."""

DURATIONS = ("steps", "epochs")
"""Units of the time that a run takes."""
NO_DURATIONS = "but only a schedule takes a duration, as in `ramp(0, 1, over=10 epochs)`"

_LARGEST_EXACT = 2.0**53
_FACTORS = {"": 1.0, "k": 1e3, "M": 1e6}
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}


@v_args(meta=True)
class Builder(Transformer_NonRecursive[Token, Any]):
    """One method per rule of the grammar; errors in values (numbers, escapes, counts) are collected in `diagnostics`."""

    def __init__(self, file: str) -> None:
        super().__init__(visit_tokens=False)
        self.file = file
        self.diagnostics: list[Diagnostic] = []
        self.complete = True
        """Whether `diagnostics` has all errors; the number of reported escapes is limited."""

    def build(self, parsed: Tree[Token]) -> Any:
        """The node (or for `module` and `use` the tuple of nodes) that a parse tree stands for."""
        return self.transform(parsed)

    def _span(self, meta: Meta) -> Span:
        return Span(self.file, meta.start_pos, meta.end_pos)

    # ---- statements ---------------------------------------------------------------------------------------------------

    def module(self, meta: Meta, children: list[Any]) -> tuple[tree.Item, ...]:
        items: list[tree.Item] = []
        for child in children:
            items.extend(child if isinstance(child, tuple) else (child,))
        return tuple(items)

    body = module

    def edition(self, meta: Meta, children: list[Any]) -> tree.Edition:
        number = children[1]
        supported = number.unit == "" and number.is_integer and 1 <= number.value <= KNOWN_EDITION
        if not supported:
            self.diagnostics.append(
                EditionUnknown.at(
                    number.span,
                    "not supported here",
                    help=(f"write `vlo {KNOWN_EDITION}`, or install the version of vlmdsl that the recipe was written for",),
                    supported=KNOWN_EDITION,
                )
            )
        return tree.Edition(int(number.value) if supported else KNOWN_EDITION, self._span(meta))

    def recipe(self, meta: Meta, children: list[Any]) -> tree.Recipe:
        _, name, parameters = children
        return tree.Recipe(name, parameters, "", self._span(meta))

    def cite(self, meta: Meta, children: list[Any]) -> tree.Cite:
        return tree.Cite(children[1], self._span(meta))

    def status(self, meta: Meta, children: list[Any]) -> tree.Status:
        return tree.Status(children[1], self._span(meta))

    def batch(self, meta: Meta, children: list[Any]) -> tree.Batch:
        return tree.Batch(children[1], self._span(meta))

    def use(self, meta: Meta, children: list[Any]) -> tuple[tree.Use, ...]:
        return tuple(tree.Use(None, name, name.span) for name in children[1:])

    def use_file(self, meta: Meta, children: list[Any]) -> tree.Use:
        _, path, _, name = children
        return tree.Use(path, name, self._span(meta))

    def path(self, meta: Meta, children: list[Any]) -> tree.Name:
        return tree.Name(".".join(children), self._span(meta))

    def encoder(self, meta: Meta, children: list[Any]) -> tree.EncoderDeclaration:
        _, name, value = children
        return tree.EncoderDeclaration(name, value, "", self._span(meta))

    def let(self, meta: Meta, children: list[Any]) -> tree.Let:
        _, name, value = children
        return tree.Let(name, value, "", self._span(meta))

    def define(self, meta: Meta, children: list[Any]) -> tree.Def:
        _, name, parameters, body = children
        return tree.Def(name, parameters, body, "", self._span(meta))

    def minimize(self, meta: Meta, children: list[Any]) -> tree.Minimize:
        return tree.Minimize(children[1], False, "", self._span(meta))

    def stage(self, meta: Meta, children: list[Any]) -> tree.Stage:
        _, name, _, start, items = children
        return tree.Stage(name, start, items, "", self._span(meta))

    def flow(self, meta: Meta, children: list[Any]) -> tree.Flow:
        _, name, fields, _, share, items = children
        return tree.Flow(name, fields, share, items, "", self._span(meta))

    def fields(self, meta: Meta, children: list[Any]) -> tuple[tree.Name, ...]:
        return tuple(children)

    def bare(self, meta: Meta, children: list[Any]) -> tree.Minimize:
        span = self._span(meta)
        return tree.Minimize((tree.Term(None, children[0], "", span),), True, "", span)

    def lone(self, meta: Meta, children: list[Any]) -> tuple[tree.Term, ...]:
        return (tree.Term(None, children[0], "", self._span(meta)),)

    def block(self, meta: Meta, children: list[Any]) -> tuple[tree.Term, ...]:
        return tuple(children)

    def term(self, meta: Meta, children: list[Any]) -> tree.Term:
        name, value = children
        return tree.Term(name, value, "", self._span(meta))

    def parameters(self, meta: Meta, children: list[Any]) -> tuple[tree.Parameter, ...]:
        return tuple(children)

    def parameter(self, meta: Meta, children: list[Any]) -> tree.Parameter:
        name, type_name, default = children
        return tree.Parameter(name, type_name, default, self._span(meta))

    def type_name(self, meta: Meta, children: list[Any]) -> tree.TypeName:
        name, count, views = children
        return tree.TypeName(str(name), count, views, self._span(meta))

    def count(self, meta: Meta, children: list[Any]) -> int:
        (number,) = children
        if number.unit or not number.is_integer or not 1 <= number.value < _LARGEST_EXACT:
            self.diagnostics.append(BadCount.at(number.span, "not a positive integer"))
            return 1
        return int(number.value)

    views = count

    # ---- expressions --------------------------------------------------------------------------------------------------

    def let_in(self, meta: Meta, children: list[Any]) -> tree.LetIn:
        _, name, value, _, body = children
        return tree.LetIn(name, value, body, self._span(meta))

    def in_context(self, meta: Meta, children: list[Any]) -> tree.Given:
        return tree.Given(children[0], children[1], self._span(meta))

    def binary(self, meta: Meta, children: list[Any]) -> tree.Binary:
        left, operator, right = children
        return tree.Binary(str(operator), left, right, self._span(meta))

    comparison = binary

    def negation(self, meta: Meta, children: list[Any]) -> tree.Unary:
        return tree.Unary("-", children[1], self._span(meta))

    def member(self, meta: Meta, children: list[Any]) -> tree.Member:
        return tree.Member(children[0], children[1], self._span(meta))

    def index(self, meta: Meta, children: list[Any]) -> tree.Index:
        return tree.Index(children[0], children[1], self._span(meta))

    def call(self, meta: Meta, children: list[Any]) -> tree.Call:
        return tree.Call(children[0], tuple(children[1:]), self._span(meta))

    def positional(self, meta: Meta, children: list[Any]) -> tree.Argument:
        return tree.Argument(None, children[0], self._span(meta))

    def keyword(self, meta: Meta, children: list[Any]) -> tree.Argument:
        return tree.Argument(children[0], children[1], self._span(meta))

    def group(self, meta: Meta, children: list[Any]) -> tree.Tuple:
        return tree.Tuple((*children,), self._span(meta))

    def name(self, meta: Meta, children: list[Any]) -> tree.Name:
        return tree.Name(str(children[0]), self._span(meta))

    def number(self, meta: Meta, children: list[Any]) -> tree.Number:
        span = self._span(meta)
        match = NUMBER.fullmatch(children[0])
        assert match is not None, f"the grammar let the number {children[0]!r} pass"
        numeral, scale, unit = match.groups()
        is_integer = numeral.isdigit()
        value = float(numeral) / 100 if scale == "%" else float(numeral) * _FACTORS[scale]
        vanished = value == 0 and any(digit in "123456789" for digit in re.split("[eE]", numeral)[0])
        if math.isinf(value) or vanished or (is_integer and scale != "%" and value > _LARGEST_EXACT):
            self.diagnostics.append(NumberOutOfRange.at(span, "too large" if not vanished else "too small"))
            value = 1.0
        return tree.Number(value, scale if scale == "%" else (unit or "").strip(), is_integer, span)

    def string(self, meta: Meta, children: list[Any]) -> tree.String:
        span = self._span(meta)
        body = str(children[0])[1:-1]

        def replace(match: re.Match[str]) -> str:
            escape = match[1]
            if len(escape) == 5:
                return self._code_point(escape, span, match)
            if escape not in _ESCAPES:
                self._bad_escape(span, match)
                return escape
            return _ESCAPES[escape]

        return tree.String(_ESCAPE.sub(replace, body), span)

    def _code_point(self, escape: str, span: Span, match: re.Match[str]) -> str:
        point = int(escape[1:], 16)
        if 0xD800 <= point <= 0xDFFF:
            self._bad_escape(span, match)
            return "?"
        return chr(point)

    def _bad_escape(self, span: Span, match: re.Match[str]) -> None:
        if len(self.diagnostics) >= MAXIMUM_DIAGNOSTICS:
            self.complete = False
            return
        place = Span(span.file, span.start + 1 + match.start(), span.start + 1 + match.end())
        self.diagnostics.append(
            BadEscape.at(
                place,
                "unknown escape sequence",
                help=('the escapes are `\\n`, `\\t`, `\\"`, `\\\\` and `\\uXXXX`; a backslash itself is `\\\\`',),
                escape=match[0],
            )
        )
