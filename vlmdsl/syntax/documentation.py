"""Attaches `##` comments to the items that they document."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vlmdsl.syntax import tree

__all__ = ["attach_documentation"]


def attach_documentation(items: tuple[tree.Item, ...], comments: tuple[tree.Comment, ...]) -> tuple[tree.Item, ...]:
    """The items with the `##` lines that stand before them; those before an edition go on to what follows it."""
    waiting = iter([comment for comment in comments if comment.own_line and comment.text.startswith("##")])
    return _documented(items, _Lines(waiting))


def _documented(items: tuple[tree.Item, ...], lines: _Lines) -> tuple[tree.Item, ...]:
    documented: list[tree.Item] = []
    for item in items:
        if isinstance(item, tree.Edition):
            documented.append(item)
            continue
        text = lines.before(item.span.start)
        if isinstance(item, tree.Minimize) and not item.bare:
            terms = tuple(_documented_term(term, lines) for term in item.terms)
            documented.append(replace(item, documentation=text, terms=terms))
        elif isinstance(item, tree.Stage | tree.Flow):
            documented.append(replace(item, documentation=text, items=_documented(item.items, lines)))
        elif isinstance(item, tree.Recipe | tree.EncoderDeclaration | tree.Let | tree.Def | tree.Minimize):
            documented.append(replace(item, documentation=text))
        else:
            documented.append(item)
        lines.before(item.span.end)
    return tuple(documented)


def _documented_term(term: tree.Term, lines: _Lines) -> tree.Term:
    text = lines.before(term.span.start) if term.name else ""
    lines.before(term.span.end)
    return replace(term, documentation=text)


class _Lines:
    """The documentation comments of a file, taken in order."""

    def __init__(self, comments: Iterator[tree.Comment]) -> None:
        self._comments = list(comments)
        self._next = 0

    def before(self, offset: int) -> str:
        """The lines not yet taken that begin before `offset`, without their markers."""
        taken: list[str] = []
        while self._next < len(self._comments) and self._comments[self._next].span.start < offset:
            taken.append(self._comments[self._next].text.removeprefix("##").removeprefix(" "))
            self._next += 1
        return "\n".join(taken)
