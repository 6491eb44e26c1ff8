"""What the tree of a text is: shapes, values and spans."""

from __future__ import annotations

import pytest

from vlmdsl.source import SourceText
from vlmdsl.syntax import children, expressions_of, parse, same_tree, tree

RECIPE = """\
vlo 1

## Two lines
## about it.
recipe mine(image: Image{2}, text: Text[4], label: Label, weight = 2.0)
cite "a \\"b\\" \\u00e9"
status "as printed"
batch one_source
use clip, std.contrast
use "./other.vlo" as other  # not documentation
encoder shared = vision
# plain
## A name.
let tau =
  learned(0.07, max_scale=100)
def f(a, b = (1, 2)) = let s = score(a, b) in
  -s[0].pooled

minimize {
  ## The pairs.
  pairs: contrast(image, text), ## not documentation either
  rest: weight * other(image)(text | image)
}
"""


def parsed(text: str) -> tuple[tree.Item, ...]:
    module, faults = parse(SourceText("mine.vlo", text))
    assert faults == []
    return module.items


def expression(text: str) -> tree.Expression:
    (item,) = parsed(text)
    assert isinstance(item, tree.Minimize)
    return item.terms[0].value


def shown(node: object) -> str:
    """An expression with every grouping visible."""
    match node:
        case tree.Binary() | tree.Given() | tree.Unary() | tree.LetIn():
            text = f"({_operation(node)})"
        case tree.Call():
            text = f"{shown(node.callee)}({', '.join(shown(argument.value) for argument in node.arguments)})"
        case tree.Member():
            text = f"{shown(node.subject)}.{node.name.name}"
        case tree.Index():
            text = f"{shown(node.subject)}[{shown(node.index)}]"
        case tree.Tuple():
            text = f"<{' '.join(map(shown, node.items))}>"
        case tree.Number():
            text = f"{node.value:g}{node.unit}"
        case tree.Name():
            text = node.name
        case _:
            raise AssertionError(node)
    return text


def _operation(node: tree.Binary | tree.Given | tree.Unary | tree.LetIn) -> str:
    match node:
        case tree.Binary():
            return f"{shown(node.left)} {node.operator} {shown(node.right)}"
        case tree.Given():
            return f"{shown(node.subject)} | {shown(node.context)}"
        case tree.Unary():
            return f"-{shown(node.operand)}"
        case tree.LetIn():
            return f"let {node.name.name} = {shown(node.value)} in {shown(node.body)}"


@pytest.mark.parametrize(
    ("text", "grouping"),
    [
        ("a + b - c", "((a + b) - c)"),
        ("a - b * c / d", "(a - ((b * c) / d))"),
        ("-a * b", "((-a) * b)"),
        ("a * -b.c", "(a * (-b.c))"),
        ("a + b < c * d", "((a + b) < (c * d))"),
        ("a | b < c", "(a | (b < c))"),
        ("a | b | c", "((a | b) | c)"),
        ("(a + b) * c", "((a + b) * c)"),
        ("a.b(c)[0](d)", "a.b(c)[0](d)"),
        ("let a = 1 in a | b", "(let a = 1 in (a | b))"),
        ("let a = let b = 1 in b in a", "(let a = (let b = 1 in b) in a)"),
        ("f(let a = 1 in a, b)", "f((let a = 1 in a), b)"),
        ("((), (a,), (a), (a, b,))", "<<> <a> a <a b>>"),
        ("steps + epochs", "(steps + epochs)"),
        ("f(\n  a,\n  # between\n  b,\n)", "f(a, b)"),
        ("(a\n\n+ b\n)", "(a + b)"),
        ("let a = # why\n\n 1 in\n\n a", "(let a = 1 in a)"),
        ("\ufeffa\r\n", "a"),
    ],
)
def test_grouping(text: str, grouping: str) -> None:
    assert shown(expression(text)) == grouping


@pytest.mark.parametrize(
    ("text", "value", "unit", "is_integer"),
    [
        ("3", 3.0, "", True),
        ("0.07", 0.07, "", False),
        ("1e-3", 0.001, "", False),
        ("15%", 0.15, "%", True),
        ("0.5%", 0.005, "%", False),
        ("32k", 32_000.0, "", True),
        ("1.5M", 1_500_000.0, "", False),
        ("2000 steps", 2000.0, "steps", True),
        ("10epochs", 10.0, "epochs", True),
        ("2k steps", 2000.0, "steps", True),
        ("9007199254740992", 2.0**53, "", True),
        ("0.000", 0.0, "", False),
    ],
)
def test_numbers(text: str, value: float, unit: str, is_integer: bool) -> None:
    number = expression(text)
    assert isinstance(number, tree.Number)
    assert (number.value, number.unit, number.is_integer) == (value, unit, is_integer)
    assert (number.span.start, number.span.end) == (0, len(text))


def test_the_items_of_a_recipe() -> None:
    items = parsed(RECIPE)
    kinds = [type(item).__name__ for item in items]
    assert kinds == [
        "Edition", "Recipe", "Cite", "Status", "Batch", "Use", "Use", "Use", "EncoderDeclaration", "Let", "Def", "Minimize",
    ]  # fmt: skip
    edition, recipe, cite, _, batch, first, second, file, _, let, function, minimize = items
    assert isinstance(edition, tree.Edition)
    assert edition.version == 1
    assert isinstance(recipe, tree.Recipe)
    types = [
        (parameter.type.name, parameter.type.count, parameter.type.views)
        for parameter in recipe.parameters
        if parameter.type
    ]
    assert types == [("Image", None, 2), ("Text", 4, None), ("Label", None, None)]
    assert isinstance(recipe.parameters[3].default, tree.Number)
    assert recipe.documentation == "Two lines\nabout it."
    assert isinstance(cite, tree.Cite)
    assert cite.text.value == 'a "b" é'
    assert isinstance(batch, tree.Batch)
    assert batch.policy.name == "one_source"
    assert isinstance(first, tree.Use)
    assert isinstance(second, tree.Use)
    assert isinstance(file, tree.Use)
    assert [(use.path and use.path.value, use.name.name) for use in (first, second, file)] == [
        (None, "clip"),
        (None, "std.contrast"),
        ("./other.vlo", "other"),
    ]
    assert isinstance(let, tree.Let)
    assert let.documentation == "A name."
    assert isinstance(function, tree.Def)
    assert [(parameter.name.name, parameter.default is None) for parameter in function.parameters] == [
        ("a", True),
        ("b", False),
    ]
    assert isinstance(minimize, tree.Minimize)
    assert [(term.name and term.name.name, term.documentation) for term in minimize.terms] == [
        ("pairs", "The pairs."),
        ("rest", ""),
    ]


def test_spans_are_exact() -> None:
    source = SourceText("mine.vlo", RECIPE)
    items = parsed(RECIPE)
    sliced = [source.slice(item.span) for item in items]
    assert sliced[0] == "vlo 1"
    assert sliced[1] == "recipe mine(image: Image{2}, text: Text[4], label: Label, weight = 2.0)"
    assert sliced[4:8] == ["batch one_source", "clip", "std.contrast", 'use "./other.vlo" as other']
    assert sliced[9] == "let tau =\n  learned(0.07, max_scale=100)"
    assert sliced[10].endswith("-s[0].pooled")
    assert sliced[11].startswith("minimize {")
    assert sliced[11].endswith("}")
    (bare,) = parsed("(a + f((b), c=(d))) * (e)")
    texts: list[str] = []
    waiting = list(expressions_of(bare))
    text = SourceText("mine.vlo", "(a + f((b), c=(d))) * (e)")
    while waiting:
        node = waiting.pop()
        texts.append(text.slice(node.span))
        waiting.extend(children(node))
    assert texts == ["(a + f((b), c=(d))) * (e)", "e", "a + f((b), c=(d))", "f((b), c=(d))", "d", "b", "f", "a"]


def test_comments_keep_their_text_and_place() -> None:
    module, _ = parse(SourceText("mine.vlo", "# one  \nlet a = f(1, # two\n  ## three\n  2)\nminimize a#"))
    assert [(comment.text, comment.own_line) for comment in module.comments] == [
        ("# one", True),
        ("# two", False),
        ("## three", True),
        ("#", False),
    ]


def test_a_comment_inside_of_an_item_documents_nothing() -> None:
    items = parsed(
        "let a = f(\n  ## of an argument\n  1)\nlet b = 2\nminimize {\n  x: g(\n    ## neither\n    a)\n  y: b\n}"
    )
    assert [getattr(item, "documentation", "") for item in items] == ["", "", ""]
    assert isinstance(items[2], tree.Minimize)
    assert [term.documentation for term in items[2].terms] == ["", ""]


def test_another_edition_is_another_tree() -> None:
    module, _ = parse(SourceText("mine.vlo", "minimize a"))
    newer = tree.Module((tree.Edition(2, module.span), *module.items), (), module.span)
    assert not same_tree(module, newer)


def test_a_sharp_in_a_string_is_not_a_comment() -> None:
    module, faults = parse(SourceText("mine.vlo", 'recipe r(a: Image)\ncite "#1"\nminimize a'))
    assert (module.comments, faults) == ((), [])


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("a+b", " ( a + b ) # c", True),
        ("vlo 1\nminimize a", "minimize a", True),
        ("minimize a", "a", False),
        ("a - b", "a + b", False),
        ("(a, b)", "(a, b, b)", False),
        ("32k", "32000", True),
        ("## doc\nlet a = 1\nminimize a", "let a = 1\nminimize a", False),
    ],
)
def test_same_tree(first: str, second: str, same: bool) -> None:
    trees = [parse(SourceText("mine.vlo", text))[0] for text in (first, second)]
    assert same_tree(*trees) is same


def test_what_can_be_read_is_in_the_tree_beside_the_faults() -> None:
    module, faults = parse(SourceText("mine.vlo", "let a = (1\nlet b = 2\nminimize {\n  x: b\n  y: b b\n}\n"))
    assert [fault.code for fault in faults] == ["V0112", "V0114"]
    let, minimize = module.items
    assert isinstance(let, tree.Let)
    assert let.name.name == "b"
    assert isinstance(minimize, tree.Minimize)
    assert [term.name.name for term in minimize.terms if term.name] == ["x"]
