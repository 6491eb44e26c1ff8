"""The syntax tree: one frozen class a construct, each with the span of its text.

Equality and hashing of trees ignore spans where tests compare meaning: see `vlmdsl.syntax.same_tree`.
"""

from __future__ import annotations

from vlmdsl._records import record
from vlmdsl.source import Span

__all__ = [
    "Argument", "Batch", "Binary", "Call", "Cite", "Comment", "Def", "Edition", "EncoderDeclaration", "Expression", "Given",
    "Index", "Item", "Let", "LetIn", "Member", "Minimize", "Module", "Name", "Number", "Parameter", "Recipe", "Status",
    "String", "Term", "Tuple", "TypeName", "Unary", "Use",
]  # fmt: skip


@record
class Number:
    """`0.5`, `15%`, `32k`, `10 epochs`. `value` is the plain number times its multiplier (15% -> 0.15, 32k -> 32000.0);
    `unit` is `""`, `"%"`, `"steps"` or `"epochs"`; `is_integer` says that it was written without point and exponent."""

    value: float
    unit: str
    is_integer: bool
    span: Span


@record
class String:
    value: str
    span: Span


@record
class Name:
    name: str
    span: Span


@record
class Member:
    """`x.member`"""

    subject: Expression
    name: Name
    span: Span


@record
class Index:
    """`views[0]`"""

    subject: Expression
    index: Expression
    span: Span


@record
class Argument:
    """One argument of a call; `name` is None for a positional one."""

    name: Name | None
    value: Expression
    span: Span


@record
class Call:
    """`callee(arguments)`; the callee is any postfix expression: `ema(vision)(image)`."""

    callee: Expression
    arguments: tuple[Argument, ...]
    span: Span


@record
class Unary:
    """`-x` (the only unary operator)."""

    operator: str
    operand: Expression
    span: Span


@record
class Binary:
    """`left operator right`, operators `+ - * / < <= > >= == !=`."""

    operator: str
    left: Expression
    right: Expression
    span: Span


@record
class Given:
    """`subject | context`: the text given the image."""

    subject: Expression
    context: Expression
    span: Span


@record
class Tuple:
    """`(a, b)`, `(a,)`, `()`."""

    items: tuple[Expression, ...]
    span: Span


@record
class LetIn:
    """`let name = value in body`"""

    name: Name
    value: Expression
    body: Expression
    span: Span


Expression = Number | String | Name | Member | Index | Call | Unary | Binary | Given | Tuple | LetIn


@record
class TypeName:
    """`Image`, `Text[4]` (count in brackets), `Image{2}` (views in braces)."""

    name: str
    count: int | None
    views: int | None
    span: Span


@record
class Parameter:
    """A parameter of `recipe` or `def`: `name`, `name: Type`, `name = default`, `name: Type = default`."""

    name: Name
    type: TypeName | None
    default: Expression | None
    span: Span


@record
class Edition:
    """`vlo 1`"""

    version: int
    span: Span


@record
class Recipe:
    name: Name
    parameters: tuple[Parameter, ...]
    documentation: str
    span: Span


@record
class Cite:
    text: String
    span: Span


@record
class Status:
    text: String
    span: Span


@record
class Batch:
    """`batch one_source`: which samples the recipe wants together in a batch."""

    policy: Name
    span: Span


@record
class Use:
    """`use a, b` gives one `Use` a name (`path` None); `use "./file.vlo" as name` has both; `use std.x` a dotted name."""

    path: String | None
    name: Name
    span: Span


@record
class EncoderDeclaration:
    name: Name
    value: Expression
    documentation: str
    span: Span


@record
class Let:
    name: Name
    value: Expression
    documentation: str
    span: Span


@record
class Def:
    name: Name
    parameters: tuple[Parameter, ...]
    body: Expression
    documentation: str
    span: Span


@record
class Term:
    """One line of `minimize { ... }`; the name of a lone `minimize expr` is None."""

    name: Name | None
    value: Expression
    documentation: str
    span: Span


@record
class Minimize:
    """`bare` marks a program that is an expression alone: the same as `minimize` of it over the default fields."""

    terms: tuple[Term, ...]
    bare: bool
    documentation: str
    span: Span


Item = Edition | Recipe | Cite | Status | Batch | Use | EncoderDeclaration | Let | Def | Minimize


@record
class Comment:
    """`# ...` and `## ...` with its marker; `own_line` is false for one that follows code."""

    text: str
    own_line: bool
    span: Span


@record
class Module:
    """One file: its items in order, and its comments in order (the formatter weaves them back in)."""

    items: tuple[Item, ...]
    comments: tuple[Comment, ...]
    span: Span
