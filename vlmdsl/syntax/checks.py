"""Checks beyond the grammar: order and number of statements, repeated names, parameters and arguments."""

from __future__ import annotations

from collections.abc import Iterator

from vlmdsl.diagnostics import Diagnostic, Edit, Fix, Label
from vlmdsl.diagnostics.catalog.syntax import (
    EmptyBlock,
    EmptyFile,
    FieldWithoutType,
    MinimizeMissing,
    PositionalAfterKeyword,
    RepeatedStatement,
    RequiredAfterDefault,
    StatementOrder,
    StrayExpression,
)
from vlmdsl.source import Span
from vlmdsl.syntax import tree
from vlmdsl.syntax.blocks import check_blocks, duplicates, head_of
from vlmdsl.syntax.walk import children, expressions_of

__all__ = ["check_item", "check_module"]

_SINGLE: dict[type[tree.Item], str] = {
    tree.Edition: "vlo",
    tree.Recipe: "recipe",
    tree.Status: "status",
    tree.Batch: "batch",
    tree.Minimize: "minimize",
}


def check_item(item: tree.Item) -> Iterator[Diagnostic]:
    """The errors within one item."""
    if isinstance(item, tree.Stage | tree.Flow):
        for inner in item.items:
            yield from check_item(inner)
        return
    if isinstance(item, tree.Recipe | tree.Def):
        yield from _check_parameters(item)
    if isinstance(item, tree.Minimize):
        if not item.terms:
            yield EmptyBlock.at(item.span, help=("write one term a line: `name: expression`",))
        yield from duplicates("term", [term.name for term in item.terms if term.name])
    waiting = list(expressions_of(item))
    while waiting:
        node = waiting.pop()
        if isinstance(node, tree.Call):
            yield from _check_arguments(node)
        waiting.extend(children(node))


def _check_parameters(item: tree.Recipe | tree.Def) -> Iterator[Diagnostic]:
    if isinstance(item, tree.Def):
        # A recipe's parameters share the name space of the file, which name resolution watches.
        yield from duplicates("parameter", [parameter.name for parameter in item.parameters])
    earlier: tree.Parameter | None = None
    for parameter in item.parameters:
        name = parameter.name.name
        if parameter.default is not None:
            earlier = earlier or parameter
            continue
        if earlier is not None:
            place = Label(earlier.span, "this one has a default")
            yield RequiredAfterDefault.at(
                parameter.span,
                "no default",
                secondary=(place,),
                help=(f"move `{name}` before `{earlier.name.name}`, or give it a default",),
                name=name,
                earlier=earlier.name.name,
            )
        if isinstance(item, tree.Recipe) and parameter.type is None:
            yield FieldWithoutType.at(
                parameter.span,
                "a field or a hyper-parameter?",
                help=(f"a field has a type: `{name}: Image`; a hyper-parameter has a default: `{name} = 1.0`",),
                name=name,
            )


def _check_arguments(call: tree.Call) -> Iterator[Diagnostic]:
    yield from duplicates("argument", [argument.name for argument in call.arguments if argument.name])
    keyword: tree.Argument | None = None
    for argument in call.arguments:
        if argument.name is not None:
            keyword = argument
        elif keyword is not None and keyword.name is not None:
            yield PositionalAfterKeyword.at(
                argument.span,
                "positional",
                secondary=(Label(keyword.span, "keyword"),),
                help=("move it before the keyword arguments, or give it its keyword",),
                name=keyword.name.name,
            )


def check_module(items: tuple[tree.Item, ...], file: str, *, complete: bool) -> Iterator[Diagnostic]:
    """The errors of the file as a whole: which statements it has, how often and in which order.

    If some statements could not be parsed (not `complete`), missing statements are not reported.
    """
    yield from _check_repetition(items)
    yield from _check_order(items)
    if complete:
        yield from check_blocks(items)
        yield from _check_objective(items, file)


def _check_repetition(items: tuple[tree.Item, ...]) -> Iterator[Diagnostic]:
    seen: dict[type[tree.Item], tree.Item] = {}
    for item in items:
        word = _SINGLE.get(type(item))
        if word is None or (isinstance(item, tree.Minimize) and item.bare):
            continue
        first = seen.setdefault(type(item), item)
        if first is not item:
            several = ("several losses are terms of one block: `minimize { name: loss ... }`",)
            yield RepeatedStatement.at(
                head_of(item, word),
                "again here",
                secondary=(Label(head_of(first, word), "first here"),),
                help=several if word == "minimize" else (),
                where="a file",
                word=word,
            )


def _check_order(items: tuple[tree.Item, ...]) -> Iterator[Diagnostic]:
    editions = [item for item in items if isinstance(item, tree.Edition)]
    if editions and items[0] is not editions[0]:
        yield StatementOrder.at(editions[0].span, "not the first statement", word="vlo", others="every other statement")
    recipes = [item for item in items if isinstance(item, tree.Recipe)]
    if recipes:
        before = [item for item in items[: items.index(recipes[0])] if not isinstance(item, tree.Edition)]
        if before:
            yield StatementOrder.at(
                head_of(recipes[0], "recipe"),
                "comes too late",
                secondary=(Label(before[0].span, "this statement stands before it"),),
                word="recipe",
                others="every statement but the edition",
            )


def _check_objective(items: tuple[tree.Item, ...], file: str) -> Iterator[Diagnostic]:
    meaningful = [item for item in items if not isinstance(item, tree.Edition)]
    if not meaningful:
        yield EmptyFile.at(Span(file, 0, 0), help=("the smallest program is `contrast(image, text)`",))
        return
    objectives = [item for item in meaningful if isinstance(item, tree.Minimize)]
    bare = [item for item in objectives if item.bare]
    if bare and len(meaningful) > 1:
        if len(objectives) == 1:
            yield _word_missing(bare[0])
        else:
            for item in bare:
                yield StrayExpression.at(
                    item.span, help=("name it with `let name = ...`, or make it a term of the `minimize` block",)
                )
    elif not objectives and not any(isinstance(item, tree.Def | tree.Stage | tree.Flow) for item in meaningful):
        last = meaningful[-1].span
        yield MinimizeMissing.at(
            Span(file, last.end, last.end),
            "the file ends here",
            help=("state what to minimise: `minimize contrast(image, text)`",),
        )


def _word_missing(item: tree.Minimize) -> Diagnostic:
    place = Span(item.span.file, item.span.start, item.span.start)
    return MinimizeMissing.at(
        item.span,
        "this expression has no `minimize` before it",
        help=("write `minimize` before it",),
        fix=Fix("write `minimize`", (Edit(place, "minimize "),)),
    )
