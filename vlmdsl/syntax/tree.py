"""The syntax tree: one frozen class per construct, each with the span of its text.

Equality and hashing of trees ignore spans where tests compare meaning: see `vlmdsl.syntax.same_tree`.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmdsl.source import Span

__all__ = [
    "Argument", "Batch", "Binary", "Call", "Cite", "Comment", "Def", "Edition", "EncoderDeclaration", "Expression", "Flow",
    "Given", "Index", "Item", "Let", "LetIn", "Member", "Minimize", "Module", "Name", "Number", "Parameter", "Recipe",
    "Stage", "Status", "String", "Term", "Tuple", "TypeName", "Unary", "Use",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Number:
    """`0.5`, `15%`, `32k`, `10 epochs`. `value` is the plain number times its multiplier (15% -> 0.15, 32k -> 32000.0);
    `unit` is `""`, `"%"`, `"steps"` or `"epochs"`; `is_integer` says that it was written without point and exponent."""

    value: float
    unit: str
    is_integer: bool
    span: Span


@dataclass(frozen=True, slots=True)
class String:
    """`"text"`, without its quotes."""

    value: str
    span: Span


@dataclass(frozen=True, slots=True)
class Name:
    """`image`"""

    name: str
    span: Span


@dataclass(frozen=True, slots=True)
class Member:
    """`x.member`"""

    subject: Expression
    name: Name
    span: Span


@dataclass(frozen=True, slots=True)
class Index:
    """`views[0]`"""

    subject: Expression
    index: Expression
    span: Span


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a call; `name` is None for a positional one."""

    name: Name | None
    value: Expression
    span: Span


@dataclass(frozen=True, slots=True)
class Call:
    """`callee(arguments)`; the callee is any postfix expression: `ema(vision)(image)`."""

    callee: Expression
    arguments: tuple[Argument, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Unary:
    """`-x` (the only unary operator)."""

    operator: str
    operand: Expression
    span: Span


@dataclass(frozen=True, slots=True)
class Binary:
    """`left operator right`, operators `+ - * / < <= > >= == !=`."""

    operator: str
    left: Expression
    right: Expression
    span: Span


@dataclass(frozen=True, slots=True)
class Given:
    """`subject | context`: the text given the image."""

    subject: Expression
    context: Expression
    span: Span


@dataclass(frozen=True, slots=True)
class Tuple:
    """`(a, b)`, `(a,)`, `()`."""

    items: tuple[Expression, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class LetIn:
    """`let name = value in body`"""

    name: Name
    value: Expression
    body: Expression
    span: Span


Expression = Number | String | Name | Member | Index | Call | Unary | Binary | Given | Tuple | LetIn


@dataclass(frozen=True, slots=True)
class TypeName:
    """`Image`, `Text[4]` (count in brackets), `Image{2}` (views in braces)."""

    name: str
    count: int | None
    views: int | None
    span: Span


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of `recipe` or `def`: `name`, `name: Type`, `name = default`, `name: Type = default`."""

    name: Name
    type: TypeName | None
    default: Expression | None
    span: Span


@dataclass(frozen=True, slots=True)
class Edition:
    """`vlo 1`"""

    version: int
    span: Span


@dataclass(frozen=True, slots=True)
class Recipe:
    """`recipe name(parameters)`"""

    name: Name
    parameters: tuple[Parameter, ...]
    documentation: str
    span: Span


@dataclass(frozen=True, slots=True)
class Cite:
    """`cite "arXiv:2103.00020"`"""

    text: String
    span: Span


@dataclass(frozen=True, slots=True)
class Status:
    """`status "verified: ..."`"""

    text: String
    span: Span


@dataclass(frozen=True, slots=True)
class Batch:
    """`batch one_source`: which samples may be together in a batch."""

    policy: Name
    span: Span


@dataclass(frozen=True, slots=True)
class Use:
    """`use a, b` gives one `Use` a name (`path` None); `use "./file.vlo" as name` has both; `use std.x` a dotted name."""

    path: String | None
    name: Name
    span: Span


@dataclass(frozen=True, slots=True)
class EncoderDeclaration:
    """`encoder name = value`"""

    name: Name
    value: Expression
    documentation: str
    span: Span


@dataclass(frozen=True, slots=True)
class Let:
    """`let name = value`"""

    name: Name
    value: Expression
    documentation: str
    span: Span


@dataclass(frozen=True, slots=True)
class Def:
    """`def name(parameters) = body`"""

    name: Name
    parameters: tuple[Parameter, ...]
    body: Expression
    documentation: str
    span: Span


@dataclass(frozen=True, slots=True)
class Term:
    """One line of `minimize { ... }`; the name of a lone `minimize expr` is None."""

    name: Name | None
    value: Expression
    documentation: str
    span: Span


@dataclass(frozen=True, slots=True)
class Minimize:
    """`bare` marks a program that is an expression alone: the same as `minimize` of it over the default fields."""

    terms: tuple[Term, ...]
    bare: bool
    documentation: str
    span: Span


@dataclass(frozen=True, slots=True)
class Flow:
    """`flow texts(text) share 15% { ... }`: what a share of the steps does. `fields` are those that its batches have, None
    where they are left out, `share` is None for the flow that takes the rest."""

    name: Name
    fields: tuple[Name, ...] | None
    share: Number | None
    items: tuple[Item, ...]
    documentation: str
    span: Span


@dataclass(frozen=True, slots=True)
class Stage:
    """`stage second from first { ... }`: a part of the run with an objective, or flows, of its own."""

    name: Name
    start: Name | None
    items: tuple[Item, ...]
    documentation: str
    span: Span


Item = Edition | Recipe | Cite | Status | Batch | Use | EncoderDeclaration | Let | Def | Minimize | Flow | Stage


@dataclass(frozen=True, slots=True)
class Comment:
    """`# ...` and `## ...` with its marker; `own_line` is false for one that follows code."""

    text: str
    own_line: bool
    span: Span


@dataclass(frozen=True, slots=True)
class Module:
    """One file: its items in order, and its comments in order (the formatter weaves them back in)."""

    items: tuple[Item, ...]
    comments: tuple[Comment, ...]
    span: Span
