"""Random programs as trees and as untidy texts, for the laws of the syntax."""

from __future__ import annotations

from hypothesis import strategies as st

from vlmdsl.source import Span
from vlmdsl.source.limits import MAXIMUM_PIECES
from vlmdsl.syntax import tree
from vlmdsl.syntax.grammar import KEYWORDS
from vlmdsl.syntax.scan import Piece, scan

__all__ = ["modules", "untidy"]

NOWHERE = Span("random.vlo", 0, 0)

_odd_names = ["a", "image", "steps", "epochs", "k", "e5", "_", "letter", "inner", "x" * 40]
names = (
    (st.sampled_from(_odd_names) | st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True))
    .filter(lambda name: name not in KEYWORDS)
    .map(lambda name: tree.Name(name, NOWHERE))
)
strings = (
    st.text(max_size=12).filter(lambda text: text.isprintable() or "\n" in text).map(lambda text: tree.String(text, NOWHERE))
)
units = st.sampled_from(["", "steps", "epochs"])
integers = st.builds(lambda value, unit: tree.Number(float(value), unit, True, NOWHERE), st.integers(0, 10**6), units)
decimals = st.builds(
    lambda value, unit: tree.Number(value, unit, False, NOWHERE), st.floats(0, 1e300, allow_subnormal=False), units
)
percents = st.integers(0, 1000).map(lambda value: tree.Number(value / 100, "%", True, NOWHERE))
leaves = names | strings | integers | decimals | percents


def _unique(arguments: list[tuple[tree.Name | None, tree.Expression]]) -> tuple[tree.Argument, ...]:
    """Positional arguments first, then keyword ones, no keyword twice."""
    keywords = {name.name: (name, value) for name, value in arguments if name is not None}
    ordered = [(None, value) for name, value in arguments if name is None] + list(keywords.values())
    return tuple(tree.Argument(name, value, NOWHERE) for name, value in ordered)


def _extend(inner: st.SearchStrategy[tree.Expression]) -> st.SearchStrategy[tree.Expression]:
    arguments = st.lists(st.tuples(st.none() | names, inner), max_size=4).map(_unique)
    operators = st.sampled_from(["+", "-", "*", "/", "<", "<=", ">", ">=", "==", "!="])
    return st.one_of(
        st.builds(lambda subject, name: tree.Member(subject, name, NOWHERE), inner, names),
        st.builds(lambda subject, index: tree.Index(subject, index, NOWHERE), inner, inner),
        st.builds(lambda callee, values: tree.Call(callee, values, NOWHERE), inner, arguments),
        st.builds(lambda operand: tree.Unary("-", operand, NOWHERE), inner),
        st.builds(lambda sign, left, right: tree.Binary(sign, left, right, NOWHERE), operators, inner, inner),
        st.builds(lambda subject, context: tree.Given(subject, context, NOWHERE), inner, inner),
        st.lists(inner, max_size=3).map(lambda items: tree.Tuple(tuple(items), NOWHERE)),
        st.builds(lambda name, value, body: tree.LetIn(name, value, body, NOWHERE), names, inner, inner),
    )


expressions = st.recursive(leaves, _extend, max_leaves=12)
documentation = st.sampled_from(["", "One line.", "Two\nlines of it.", "# marked", "a\n\nb"])
types = st.builds(
    lambda name, count, views: tree.TypeName(name, count, views, NOWHERE),
    st.sampled_from(["Image", "Text"]),
    st.none() | st.integers(1, 9),
    st.none() | st.integers(1, 9),
)


@st.composite
def _parameters(draw: st.DrawFn, fields: bool) -> tuple[tree.Parameter, ...]:
    chosen = draw(st.lists(names, max_size=5, unique_by=lambda name: name.name))
    required = draw(st.integers(0, len(chosen)))
    parameters: list[tree.Parameter] = []
    for index, name in enumerate(chosen):
        default = None if index < required else draw(expressions)
        typed = draw(types) if (fields and default is None) or draw(st.booleans()) else None
        parameters.append(tree.Parameter(name, typed, default, NOWHERE))
    return tuple(parameters)


def _terms(parts: list[tuple[tree.Name, tree.Expression, str]]) -> tuple[tree.Term, ...]:
    return tuple(tree.Term(name, value, text, NOWHERE) for name, value, text in parts)


objectives = st.one_of(
    st.builds(
        lambda value, text: tree.Minimize((tree.Term(None, value, "", NOWHERE),), False, text, NOWHERE),
        expressions,
        documentation,
    ),
    st.lists(st.tuples(names, expressions, documentation), min_size=1, max_size=4, unique_by=lambda part: part[0].name).map(
        lambda parts: tree.Minimize(_terms(parts), False, "", NOWHERE)
    ),
)
statements = st.one_of(
    st.builds(lambda text: tree.Cite(text, NOWHERE), strings),
    st.builds(lambda name: tree.Use(None, name, NOWHERE), names),
    st.builds(lambda path, name: tree.Use(path, name, NOWHERE), strings, names),
    st.builds(
        lambda name, value, text: tree.EncoderDeclaration(name, value, text, NOWHERE), names, expressions, documentation
    ),
    st.builds(lambda name, value, text: tree.Let(name, value, text, NOWHERE), names, expressions, documentation),
    st.builds(
        lambda name, parameters, body, text: tree.Def(name, parameters, body, text, NOWHERE),
        names,
        _parameters(False),
        expressions,
        documentation,
    ),
)


_names_of_blocks = st.lists(names, min_size=1, max_size=3, unique_by=lambda name: name.name)


@st.composite
def _inside(draw: st.DrawFn) -> tuple[tree.Item, ...]:
    """What stands in a flow, or in a stage without flows."""
    lets = st.builds(lambda name, value, text: tree.Let(name, value, text, NOWHERE), names, expressions, documentation)
    return (*draw(st.lists(lets, max_size=2)), draw(objectives))


@st.composite
def _flows(draw: st.DrawFn) -> list[tree.Item]:
    own = draw(_names_of_blocks)
    fields = st.none() | st.lists(names, max_size=2, unique_by=lambda name: name.name).map(tuple)
    shares = [tree.Number(1 / 4, "", False, NOWHERE)] * (len(own) - 1) + [None]
    return [
        tree.Flow(name, draw(fields), share, draw(_inside()), draw(documentation), NOWHERE)
        for name, share in zip(own, shares, strict=True)
    ]


@st.composite
def _courses(draw: st.DrawFn) -> list[tree.Item]:
    """What a file minimises: one objective, flows, or stages."""
    kind = draw(st.integers(0, 3))
    if kind < 2:
        return [draw(objectives)]
    if kind == 2:
        return draw(_flows())
    starts = st.none() | names
    return [
        tree.Stage(name, draw(starts), draw(st.one_of(_inside(), _flows().map(tuple))), draw(documentation), NOWHERE)
        for name in draw(_names_of_blocks)
    ]


@st.composite
def modules(draw: st.DrawFn) -> tree.Module:
    """A random module that has no syntax fault."""
    if draw(st.integers(0, 5)) == 0:
        value = draw(expressions)
        bare = tree.Minimize((tree.Term(None, value, "", NOWHERE),), True, draw(documentation), NOWHERE)
        return tree.Module((bare,), (), NOWHERE)
    items: list[tree.Item] = [tree.Edition(1, NOWHERE)]
    batch = [tree.Batch(draw(names), NOWHERE)] if draw(st.integers(0, 3)) == 0 else []
    if draw(st.booleans()):
        items.append(tree.Recipe(draw(names), draw(_parameters(True)), draw(documentation), NOWHERE))
    items += draw(st.lists(statements, max_size=4))
    return tree.Module((*items, *batch, *draw(_courses())), (), NOWHERE)


@st.composite
def untidy(draw: st.DrawFn, text: str) -> str:
    """A tidy text written again with other blanks, and with line breaks and comments wherever the language allows them."""
    comments = st.sampled_from(["", "", "", "", " # why", "  ## documented", "#"])
    written: list[str] = []
    open_brackets: list[str] = []
    previous: Piece | None = None
    for piece in scan(text, MAXIMUM_PIECES):
        if piece.kind == "newline":
            if not open_brackets or open_brackets[-1] == "{":
                written.append(
                    draw(comments) + draw(st.sampled_from(["\n", "\n", "\n\n\n", "\n# alone\n", "\n ## of the next\n"]))
                )
        elif piece.kind == "comment":
            written.append(piece.text)
        else:
            inside = bool(open_brackets) and open_brackets[-1] != "{"
            broken = inside or (previous is not None and previous.text in ("=", "in"))
            unit = previous is not None and previous.kind == "number" and piece.text in ("steps", "epochs")
            if broken and not unit and draw(st.integers(0, 4)) == 0:
                written.append(
                    draw(comments) + "\n" + draw(st.sampled_from(["", "  ", "# own line\n", "## own line\n", "\n"]))
                )
            elif not unit and previous is not None and previous.end != piece.start:
                written.append(draw(st.sampled_from([" ", " ", "\t", "   "])))
            elif unit:
                written.append(" ")
            written.append(piece.text)
        if piece.kind == "open":
            open_brackets.append(piece.text)
        elif piece.kind == "close":
            open_brackets.pop()
        previous = piece
    return "".join(written)
