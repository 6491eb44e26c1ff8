"""How each construct is spelt on one line."""

from __future__ import annotations

import unicodedata

from vlmdsl.source import SourceText
from vlmdsl.syntax import tree
from vlmdsl.syntax.build import NUMBER
from vlmdsl.syntax.tree import Expression

__all__ = ["ATOM", "GIVEN", "LET", "POSTFIX", "PRODUCT", "SUM", "UNARY", "Spelling", "binding", "operand_levels"]

LET, GIVEN, COMPARISON, SUM, PRODUCT, UNARY, POSTFIX, ATOM = range(8)
"""How tightly constructs bind, loosest first."""

_OPERATORS = {"+": SUM, "-": SUM, "*": PRODUCT, "/": PRODUCT}
_ESCAPES = {"\n": "\\n", "\t": "\\t", '"': '\\"', "\\": "\\\\"}


def binding(node: Expression) -> int:
    """How tightly a construct binds; a number binds like a sign, so that no point or bracket ever touches it."""
    match node:
        case tree.LetIn():
            level = LET
        case tree.Given():
            level = GIVEN
        case tree.Binary():
            level = _OPERATORS.get(node.operator, COMPARISON)
        case tree.Unary() | tree.Number():
            level = UNARY
        case tree.Call() | tree.Member() | tree.Index():
            level = POSTFIX
        case tree.Name() | tree.String() | tree.Tuple():
            level = ATOM
    return level


def operand_levels(node: tree.Binary | tree.Given) -> tuple[int, int]:
    """How tightly the left and the right operand must bind to stand without parentheses."""
    level = binding(node)
    return (SUM, SUM) if level == COMPARISON else (level, level + 1)


class Spelling:
    """Spells constructs on one line; numbers as they were written if the source is known."""

    def __init__(self, source: SourceText | None = None) -> None:
        self.source = source

    def expression(self, node: Expression, level: int = LET) -> str:
        """`node` where something that binds at least as tightly as `level` may stand."""
        text = self._bare(node)
        return f"({text})" if binding(node) < level else text

    def _bare(self, node: Expression) -> str:
        match node:
            case tree.Number():
                text = self.number(node)
            case tree.String():
                text = string(node.value)
            case tree.Name():
                text = node.name
            case tree.Member():
                text = f"{self.expression(node.subject, POSTFIX)}.{node.name.name}"
            case tree.Index():
                text = f"{self.expression(node.subject, POSTFIX)}[{self.expression(node.index)}]"
            case tree.Call():
                text = f"{self.expression(node.callee, POSTFIX)}({', '.join(map(self.argument, node.arguments))})"
            case tree.Unary():
                text = f"-{self.expression(node.operand, UNARY)}"
            case tree.Binary():
                left, right = operand_levels(node)
                text = f"{self.expression(node.left, left)} {node.operator} {self.expression(node.right, right)}"
            case tree.Given():
                left, right = operand_levels(node)
                text = f"{self.expression(node.subject, left)} | {self.expression(node.context, right)}"
            case tree.Tuple():
                items = [self.expression(item) for item in node.items]
                text = f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
            case tree.LetIn():
                text = f"let {node.name.name} = {self.expression(node.value)} in {self.expression(node.body)}"
        return text

    def number(self, node: tree.Number) -> str:
        if self.source is not None:
            written = NUMBER.fullmatch(self.source.slice(node.span))
            if written is not None:
                numeral, scale, unit = written.groups()
                return numeral + scale + (f" {unit.strip()}" if unit else "")
        value = node.value * 100 if node.unit == "%" else node.value
        numeral = str(round(value)) if node.is_integer else repr(value)
        return numeral + (node.unit if node.unit == "%" else f" {node.unit}" if node.unit else "")

    def argument(self, node: tree.Argument) -> str:
        return (f"{node.name.name}=" if node.name else "") + self.expression(node.value)

    def parameter(self, node: tree.Parameter) -> str:
        text = node.name.name + (f": {type_name(node.type)}" if node.type else "")
        return text if node.default is None else f"{text} = {self.expression(node.default)}"


def type_name(node: tree.TypeName) -> str:
    """`Text[4]`, `Image{2}`"""
    return node.name + (f"[{node.count}]" if node.count else "") + (f"{{{node.views}}}" if node.views else "")


def string(value: str) -> str:
    """A string with its quotes; what cannot be seen is escaped."""
    return '"' + "".join(_ESCAPES.get(character) or _visible(character) for character in value) + '"'


def _visible(character: str) -> str:
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") and ord(character) <= 0xFFFF
    return f"\\u{ord(character):04x}" if hidden else character
