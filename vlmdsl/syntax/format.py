"""The formatter: one style, all comments kept, at most one blank line, lines within the limit where possible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.source import SourceText, Span
from vlmdsl.syntax import tree
from vlmdsl.syntax.build import KNOWN_EDITION
from vlmdsl.syntax.layout import COLUMNS, STEP, Comments, Layout
from vlmdsl.syntax.parser import parse
from vlmdsl.syntax.spelling import Spelling, string

__all__ = ["format_module", "format_text"]

_ROUNDS = 8
"""How often formatting is repeated until the text is stable; two are enough for all but contrived texts."""


def format_text(source: SourceText) -> str:
    """Format a text; DiagnosticError if it has syntax errors.

    >>> format_text(SourceText("<expression>", "contrast( image,text )"))
    'contrast(image, text)\\n'
    """
    module, faults = parse(source)
    if faults:
        raise DiagnosticError(tuple(faults))
    text = format_module(module, source)
    for _ in range(_ROUNDS):
        # A comment that moved to a separate line may let the line that it broke be joined again.
        written = SourceText(source.name, text)
        again = format_module(parse(written)[0], written)
        if again == text:
            break
        text = again
    return text


def format_module(module: tree.Module, source: SourceText | None = None) -> str:
    """Format a tree.

    With the `source` that it was parsed from, the spelling of numbers, comments and blank lines are kept. Without it, the
    documentation of items is written as `##` lines, and blank lines separate the edition and the objective.
    """
    return _Formatter(module, source).text()


@dataclass
class _Entry:
    """Lines that stay together, and the first and last line of the source that they come from."""

    lines: list[str]
    first: int = 0
    last: int = 0
    apart: bool = False
    """Whether a blank line stands before it, whatever the source has."""


class _Formatter:
    def __init__(self, module: tree.Module, source: SourceText | None) -> None:
        self.module = module
        self.woven = source is not None
        self.comments = Comments(module.comments if self.woven else (), source)
        self.spelling = Spelling(source)
        self.layout = Layout(self.spelling, self.comments)

    def text(self) -> str:
        items = self.module.items
        named = any(isinstance(item, tree.Edition) or (isinstance(item, tree.Minimize) and item.bare) for item in items)
        head = [] if named else [f"vlo {KNOWN_EDITION}", ""]
        return "\n".join([*head, *_spaced(self._entries(items, self.module.span.end + 1))]) + "\n"

    def _entries(self, items: Sequence[tree.Item], end: int) -> Iterator[_Entry]:
        """The own-line comments and the items of the file, or of a block of it, in order."""
        groups = list(self._groups(items))
        for index, group in enumerate(groups):
            span = Span(group[0].span.file, group[0].span.start, group[-1].span.end)
            limit = groups[index + 1][0].span.start if index + 1 < len(groups) else end
            yield from self._own_lines(span.start)
            lines = self._documentation(group[0]) + self._item(group)
            apart = not self.woven and index > 0 and isinstance(group[0], tree.Minimize | tree.Stage | tree.Flow)
            apart = apart or (not self.woven and index > 0 and isinstance(groups[index - 1][0], tree.Edition))
            yield self._entry(lines, span, limit, apart)
        yield from self._own_lines(end)

    def _entry(self, lines: list[str], span: Span, limit: int, apart: bool = False) -> _Entry:
        """The lines of `span`, with the comment after it that begins before `limit`."""
        lines[-1] += self.comments.trailing(span.end, limit)
        return _Entry(lines, self.comments.line(span.start), self.comments.line(span.end), apart)

    def _own_lines(self, before: int, indent: int = 0) -> Iterator[_Entry]:
        for comment in self.comments.take(before):
            line = self.comments.line(comment.span.start)
            yield _Entry([" " * indent + comment.text], line, line)

    def _documentation(self, node: tree.Item | tree.Term, indent: int = 0) -> list[str]:
        """The `##` lines of an item, where no comments are woven in."""
        text = getattr(node, "documentation", "")
        if self.woven or not text:
            return []
        return [f"{' ' * indent}## {line}".rstrip() for line in text.split("\n")]

    def _groups(self, items: Sequence[tree.Item]) -> Iterator[list[tree.Item]]:
        """The items, those of one `use` line together."""
        group: list[tree.Item] = []
        for item in items:
            joins = bool(group) and _is_plain_use(group[0]) and _is_plain_use(item)
            if group and not (joins and self.comments.line(group[-1].span.end) == self.comments.line(item.span.start)):
                yield group
                group = []
            group.append(item)
        if group:
            yield group

    def _item(self, group: Sequence[tree.Item]) -> list[str]:
        match group[0]:
            case tree.Edition() as item:
                lines = [f"vlo {item.version}"]
            case tree.Cite() as item:
                lines = [f"cite {string(item.text.value)}"]
            case tree.Status() as item:
                lines = [f"status {string(item.text.value)}"]
            case tree.Batch() as item:
                lines = [f"batch {item.policy.name}"]
            case tree.Use() as item:
                path = item.path
                names = [use.name.name for use in group if isinstance(use, tree.Use)]
                lines = _use_lines(names) if path is None else [f"use {string(path.value)} as {item.name.name}"]
            case tree.Recipe() as item:
                head = f"recipe {item.name.name}"
                lines = self._signature(head, item.parameters, item.span)
            case tree.Def() as item:
                head = f"def {item.name.name}"
                header = Span(item.span.file, item.span.start, item.body.span.start)
                lines = self._signature(head, item.parameters, header)
                lines = self._definition(lines, item.body, item.span.end)
            case tree.Let() as item:
                lines = self._definition([f"let {item.name.name}"], item.value, item.span.end)
            case tree.EncoderDeclaration() as item:
                lines = self._definition([f"encoder {item.name.name}"], item.value, item.span.end)
            case tree.Minimize() as item:
                lines = self._minimize(item)
            case tree.Stage() as item:
                start = "" if item.start is None else f" from {item.start.name}"
                lines = self._block(item, f"stage {item.name.name}{start}")
            case tree.Flow() as item:
                lines = self._block(item, f"flow {item.name.name}{self._mixture(item)}")
        return lines

    def _signature(self, head: str, parameters: Sequence[tree.Parameter], span: Span) -> list[str]:
        first, *rest = self.layout.parameters(parameters, len(head), span)
        return [head + first, *rest]

    def _definition(self, head: list[str], value: tree.Expression, end: int) -> list[str]:
        """`head = value`; a `let ... in` that does not fit on the line goes below it."""
        used = len(head[-1]) + len(" = ")
        if isinstance(value, tree.LetIn) and not self._fits(value, used):
            prefix, indent, below = f"{head[-1]} =", STEP, True
        else:
            prefix, indent, below = f"{head[-1]} = ", 0, False
        hoisted, lines = self._value(prefix, value, end, indent, below=below)
        return [*hoisted, *head[:-1], *lines]

    def _fits(self, value: tree.Expression, used: int) -> bool:
        return (
            not self.comments.pending(value.span.end) and used + len(self.spelling.expression(value)) <= self.layout.columns
        )

    def _value(
        self, prefix: str, value: tree.Expression, end: int, indent: int, *, below: bool = False
    ) -> tuple[list[str], list[str]]:
        """Comments that do not fit inside the value, and the value's lines after `prefix`.

        A `##` comment among them must not become the documentation of the item: it is kept inside, in parentheses.
        """
        margin = " " * indent
        is_chain = isinstance(value, tree.Binary | tree.Given)
        early = [] if is_chain else self.comments.take(value.span.start)
        mark = self.comments.mark()
        lines = self.layout.value(value, indent, indent if below else len(prefix), end, in_parentheses=not below)
        loose = early + self.comments.take(end)
        if not any(comment.text.startswith("##") for comment in loose):
            lines = [prefix, margin + lines[0], *lines[1:]] if below else [prefix + lines[0], *lines[1:]]
            return [f"{margin if not below else ''}{comment.text}" for comment in loose], lines
        self.comments.rewind(mark)
        inner = indent + STEP
        lines = self.layout.value(value, inner, inner, end, in_parentheses=False)
        loose = early + self.comments.take(end)
        opening = f"{prefix.rstrip()} (" if prefix.strip() else f"{prefix}("
        inside = [f"{' ' * inner}{comment.text}" for comment in loose]
        return [], [opening, *inside, " " * inner + lines[0], *lines[1:], f"{margin})"]

    def _block(self, item: tree.Stage | tree.Flow, head: str) -> list[str]:
        """`head { ... }`; a comment behind the brace stays there."""
        first = item.items[0].span.start if item.items else item.span.end
        head += " {" + self.comments.trailing(item.name.span.end, first)
        self.layout.columns -= STEP
        inside = [" " * STEP + line if line else "" for line in _spaced(self._entries(item.items, item.span.end))]
        self.layout.columns += STEP
        return [head, *inside, "}"]

    def _mixture(self, item: tree.Flow) -> str:
        """The fields of a flow and its share, as they stand in its head."""
        fields = "" if item.fields is None else f"({', '.join(field.name for field in item.fields)})"
        return fields if item.share is None else f"{fields} share {self.spelling.expression(item.share)}"

    def _minimize(self, item: tree.Minimize) -> list[str]:
        if item.bare or item.terms[0].name is None:
            prefix = "" if item.bare else "minimize "
            hoisted, lines = self._value(prefix, item.terms[0].value, item.span.end, 0)
            return [*hoisted, *lines]
        head = "minimize {" + self.comments.trailing(item.span.start, item.terms[0].span.start)
        return [head, *_spaced(self._terms(item)), "}"]

    def _terms(self, item: tree.Minimize) -> Iterator[_Entry]:
        width = max(len(term.name.name) for term in item.terms if term.name)
        for index, term in enumerate(item.terms):
            limit = item.terms[index + 1].span.start if index + 1 < len(item.terms) else item.span.end
            yield from self._own_lines(term.span.start, STEP)
            name = term.name.name if term.name else ""
            prefix = " " * STEP + f"{name}:".ljust(width + 2)
            hoisted, lines = self._value(prefix, term.value, term.span.end, STEP)
            yield self._entry([*self._documentation(term, STEP), *hoisted, *lines], term.span, limit)
        yield from self._own_lines(item.span.end, STEP)


def _spaced(entries: Iterator[_Entry]) -> Iterator[str]:
    """The lines of entries, with one blank line where the source has any."""
    previous: _Entry | None = None
    for entry in entries:
        if previous is not None and (entry.apart or entry.first - previous.last > 1):
            yield ""
        yield from entry.lines
        previous = entry


def _is_plain_use(item: tree.Item) -> bool:
    return isinstance(item, tree.Use) and item.path is None


def _use_lines(names: Sequence[str]) -> list[str]:
    """`use a, b`, on several lines if one is too short."""
    lines: list[str] = []
    for name in names:
        if lines and len(lines[-1]) + len(name) + 2 <= COLUMNS:
            lines[-1] += f", {name}"
        else:
            lines.append(f"use {name}")
    return lines
