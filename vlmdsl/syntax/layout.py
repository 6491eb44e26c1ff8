"""Expressions on one line, or broken at their brackets, with the comments inside them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

from vlmdsl.source import SourceText, Span
from vlmdsl.syntax import tree
from vlmdsl.syntax.spelling import GIVEN, LET, POSTFIX, PRODUCT, UNARY, Spelling, binding, operand_levels
from vlmdsl.syntax.tree import Expression

__all__ = ["COLUMNS", "STEP", "Comments", "Layout"]

COLUMNS = 100
STEP = 2

_Operand = tuple[str, Expression, int]
"""An operator (empty for the first), what follows it, and how tightly that must bind."""


class Comments:
    """The comments of a file, taken in order as the text before them is written."""

    def __init__(self, comments: Sequence[tree.Comment], source: SourceText | None) -> None:
        self._comments = list(comments)
        self._starts = [comment.span.start for comment in comments]
        self._source = source
        self._next = 0

    def pending(self, before: int) -> bool:
        """Whether a comment not yet taken begins before an offset."""
        return self._next < len(self._starts) and self._starts[self._next] < before

    def take(self, before: int) -> list[tree.Comment]:
        """The comments not yet taken that begin before an offset."""
        first, self._next = self._next, max(self._next, bisect_left(self._starts, before))
        return self._comments[first : self._next]

    def trailing(self, end: int, limit: int) -> str:
        """The comment that follows what ends at `end` on the same line, with two blanks before it; else ""."""
        if self._next == len(self._comments):
            return ""
        comment = self._comments[self._next]
        if comment.own_line or not end <= comment.span.start < limit or self.line(comment.span.start) != self.line(end):
            return ""
        self._next += 1
        return f"  {comment.text}"

    def mark(self) -> int:
        """How far comments have been taken; `rewind` goes back to it."""
        return self._next

    def rewind(self, mark: int) -> None:
        self._next = mark

    def line(self, offset: int) -> int:
        """The line of an offset; 0 without a source."""
        return self._source.position(offset)[0] if self._source is not None else 0


class Layout:
    """Lays expressions out as lines: the first continues a line already begun, the others carry their indentation."""

    def __init__(self, spelling: Spelling, comments: Comments) -> None:
        self.spelling = spelling
        self.comments = comments
        self.columns = COLUMNS
        """How long a line may be; less inside of a block, which is indented as a whole."""
        self._end = 0

    def value(self, node: Expression, indent: int, used: int, end: int, *, in_parentheses: bool) -> list[str]:
        """The lines of a whole value, whose statement, term or element ends at `end`.

        `in_parentheses` puts a `let ... in` that does not fit on one line into parentheses.
        """
        outer, self._end = self._end, end
        flat = not self.comments.pending(node.span.end) and used + len(self.spelling.expression(node)) <= self.columns
        lines = self.expression(node, indent, used, 0, GIVEN if in_parentheses and not flat else LET)
        self._end = outer
        return lines

    def expression(self, node: Expression, indent: int, used: int, reserve: int = 0, level: int = LET) -> list[str]:
        """The lines of `node`: `used` columns of the first line are taken, and the last line needs `reserve` more.

        `indent` is where lines between brackets of the construct are indented from.
        """
        flat = self.spelling.expression(node, level)
        if not self.comments.pending(node.span.end) and used + len(flat) + reserve <= self.columns:
            return [flat]
        return self._enclosed(node, indent) if binding(node) < level else self._broken(node, indent, used, reserve)

    def _broken(self, node: Expression, indent: int, used: int, reserve: int) -> list[str]:
        """The lines of an expression that does not fit on one."""
        match node:
            case tree.Call():
                callee = self.expression(node.callee, indent, used, 1, POSTFIX)
                lines = _join(callee, self._list("(", node.arguments, ")", indent, node.span.end))
            case tree.Tuple() if node.items:
                lines = self._list("(", node.items, ")", indent, node.span.end)
            case tree.Member():
                lines = _join(self.expression(node.subject, indent, used, 0, POSTFIX), [f".{node.name.name}"])
            case tree.Index():
                subject = self.expression(node.subject, indent, used, 0, POSTFIX)
                lines = _join(subject, ["["], self.expression(node.index, indent, len(subject[-1]) + 1, 1), ["]"])
            case tree.Unary():
                lines = _join(["-"], self.expression(node.operand, indent, used + 1, reserve, UNARY))
            case tree.Binary() | tree.Given():
                lines = self._chain(node, indent, used)
            case tree.LetIn():
                lines = self._let_in(node, indent, used, reserve)
            case tree.Number() | tree.String() | tree.Name() | tree.Tuple():
                lines = [self.spelling.expression(node)]
        return lines

    def _enclosed(self, node: Expression, indent: int) -> list[str]:
        """The expression in added parentheses, on lines between them."""
        inner = indent + STEP
        if isinstance(node, tree.Binary | tree.Given):
            return self._operands(_operands(node), indent)
        leading = [f"{' ' * inner}{comment.text}" for comment in self.comments.take(node.span.start)]
        return ["(", *leading, *_indented(self.expression(node, inner, inner), inner), f"{' ' * indent})"]

    def _list(
        self,
        opening: str,
        elements: Sequence[tree.Argument | tree.Parameter | Expression],
        closing: str,
        indent: int,
        end: int,
    ) -> list[str]:
        """Bracketed elements, one per line; `end` is the offset after the closing bracket."""
        inner = indent + STEP
        lines = [opening]
        for index, element in enumerate(elements):
            limit = elements[index + 1].span.start if index + 1 < len(elements) else end
            leading = self.comments.take(element.span.start)
            body = self._element(element, inner)
            body[-1] += ","
            leading += self.comments.take(element.span.end)
            lines += [f"{' ' * inner}{comment.text}" for comment in leading]
            body[-1] += self.comments.trailing(element.span.end, limit)
            lines += _indented(body, inner)
        lines += [f"{' ' * inner}{comment.text}" for comment in self.comments.take(end)]
        return [*lines, f"{' ' * indent}{closing}"]

    def _element(self, element: tree.Argument | tree.Parameter | Expression, indent: int) -> list[str]:
        prefix = ""
        value: Expression | None
        match element:
            case tree.Argument(name=name, value=value):
                prefix = f"{name.name}=" if name else ""
            case tree.Parameter(default=value):
                prefix = self.spelling.parameter(replace(element, default=None)) + (" = " if value else "")
            case _:
                value = element
        if value is None:
            return [prefix]
        outer, self._end = self._end, element.span.end
        lines = self.expression(value, indent, indent + len(prefix), 1)
        self._end = outer
        return _join([prefix], lines)

    def parameters(self, parameters: Sequence[tree.Parameter], used: int, span: Span) -> list[str]:
        """`(a: A, b = 1)`; `span` is that of the item up to its body."""
        flat = f"({', '.join(map(self.spelling.parameter, parameters))})"
        if not self.comments.pending(span.end) and used + len(flat) + len(" =") <= self.columns:
            return [flat]
        return self._list("(", parameters, ")", 0, span.end)

    def _chain(self, node: tree.Binary | tree.Given, indent: int, used: int) -> list[str]:
        """Operands of one level: a call at the end of a product keeps its place, anything else is broken at operators."""
        operands = _operands(node)
        operator, last, level = operands[-1]
        if binding(node) == PRODUCT and isinstance(last, tree.Call) and not self.comments.pending(last.span.start):
            head = "".join(f"{sign and f' {sign} '}{self.spelling.expression(part, at)}" for sign, part, at in operands[:-1])
            head += f" {operator} "
            callee = self.spelling.expression(last.callee, POSTFIX)
            if used + len(head) + len(callee) < self.columns:
                return _join([head], self.expression(last, indent, used + len(head), 0, level))
        return self._operands(operands, indent)

    def _operands(self, operands: Sequence[_Operand], indent: int) -> list[str]:
        inner = indent + STEP
        lines = ["("]
        for index, (operator, part, level) in enumerate(operands):
            prefix = f"{operator} " if operator else ""
            limit = operands[index + 1][1].span.start if index + 1 < len(operands) else self._end
            leading = self.comments.take(part.span.start)
            body = _join([prefix], self.expression(part, inner, inner + len(prefix), 0, level))
            leading += self.comments.take(part.span.end)
            lines += [f"{' ' * inner}{comment.text}" for comment in leading]
            body[-1] += self.comments.trailing(part.span.end, limit)
            lines += _indented(body, inner)
        return [*lines, f"{' ' * indent})"]

    def _let_in(self, node: tree.LetIn, indent: int, used: int, reserve: int) -> list[str]:
        prefix = f"let {node.name.name} = "
        lines = _join([prefix], self.expression(node.value, indent, used + len(prefix), 3), [" in"])
        lines[-1] += self.comments.trailing(node.value.span.end, node.body.span.start)
        lines += [f"{' ' * indent}{comment.text}" for comment in self.comments.take(node.body.span.start)]
        return [*lines, *_indented(self.expression(node.body, indent, indent, reserve), indent)]


def _operands(node: tree.Binary | tree.Given) -> list[_Operand]:
    """The operands of a chain of operators that bind equally, from the left."""
    reversed_operands: list[_Operand] = []
    current: Expression = node
    level = binding(node)
    while isinstance(current, tree.Binary | tree.Given) and binding(current) == level:
        left, right = operand_levels(current)
        if isinstance(current, tree.Binary):
            reversed_operands.append((current.operator, current.right, right))
            current = current.left
        else:
            reversed_operands.append(("|", current.context, right))
            current = current.subject
        if left != level:
            break
    reversed_operands.append(("", current, operand_levels(node)[0]))
    return reversed_operands[::-1]


def _join(*parts: list[str]) -> list[str]:
    """Lines of which the last of each part continues with the first of the next."""
    lines = [""]
    for part in parts:
        lines[-1] += part[0]
        lines += part[1:]
    return lines


def _indented(lines: Sequence[str], indent: int) -> list[str]:
    """The lines with the first indented too."""
    return [" " * indent + lines[0], *lines[1:]]
