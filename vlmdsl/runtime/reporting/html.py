"""HTML whose texts are escaped: nothing else can be put into a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from vlmdsl.diagnostics import plain

__all__ = ["Html", "element", "page", "section", "table"]

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_LONGEST = 20_000
"""Characters of a text."""
_EMPTY = frozenset({"img", "meta", "br"})
_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2328; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.2rem; border-bottom: 1px solid #d0d7de; } h3 { margin: 1.2rem 0 0.3rem; }
nav a { margin-right: 1rem; } .muted { color: #59636e; } .note { border-left: 4px solid #bf8700; padding: 0 0.8rem; }
table { border-collapse: collapse; margin: 0.6rem 0; } caption { text-align: left; color: #59636e; }
th, td { padding: 0.15rem 0.7rem; text-align: left; vertical-align: top; border-bottom: 1px solid #eaeef2; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { background: #f6f8fa; padding: 0.7rem; overflow-x: auto; font-size: 13px; white-space: pre-wrap; }
.wide { overflow-x: auto; } .charts { display: flex; flex-wrap: wrap; gap: 0.8rem; } figure { margin: 0; }
figcaption { font-weight: 600; font-size: 13px; } .legend { font-size: 12px; margin-right: 0.8rem; white-space: nowrap; }
.row { display: flex; gap: 0.7rem; align-items: flex-start; margin: 0.6rem 0; }
.row ol { margin: 0; padding-left: 1.4rem; } .right { color: #1a7f37; font-weight: 600; }
.picture { border: 3px solid #d0d7de; width: 96px; height: 96px; object-fit: contain; background: white; }
.picture.right { border-color: #1a7f37; } .tile { font-size: 12px; text-align: center; } .query { width: 11rem; }
table.confusion td, table.confusion th { padding: 0 0.25rem; font-size: 11px; border: 1px solid #eaeef2; }
svg text { font: 10px system-ui, sans-serif; fill: #59636e; }
""".strip()


class Html(str):
    """Text that is HTML already.

    >>> element("p", "1 < 2")
    '<p>1 &lt; 2</p>'
    """

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: str | int | float | None) -> Html:
    """An element with its children, of which only `Html` is taken as it is; `class_` is the attribute `class`.

    >>> element("a", "text", href="#x", class_=None)
    '<a href="#x">text</a>'
    """
    written = "".join(
        f' {key.strip("_").replace("_", "-")}="{escape(_clean(str(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _EMPTY:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{joined(children)}</{name}>")


def joined(children: Iterable[str]) -> Html:
    """Several children, one after the other."""
    return Html("".join(child if isinstance(child, Html) else _text(child) for child in children))


def section(title: str, identity: str, *children: str) -> Html:
    """A section with its heading, which `#identity` leads to; nothing where it would be empty."""
    shown = [child for child in children if child]
    return element("section", element("h2", title), *shown, id=identity) if shown else Html("")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = (), caption: str = "") -> Html:
    """A table whose columns `numbers` are set to the right; nothing without rows."""
    right = frozenset(numbers)

    def cells(name: str, row: Sequence[str]) -> Html:
        kinds = ("number" if column in right else None for column in range(len(row)))
        return element("tr", *(element(name, cell, class_=kind) for cell, kind in zip(row, kinds, strict=True)))

    body = [cells("td", row) for row in rows]
    if not body:
        return Html("")
    top = [element("caption", caption)] if caption else []
    top += [element("thead", cells("th", head))] if any(head) else []
    return element("div", element("table", *top, element("tbody", *body)), class_="wide")


def page(title: str, sections: Sequence[tuple[str, str, Html]], *introduction: str) -> str:
    """A whole file: `sections` are title, identity and content, those without content left out."""
    kept = [(name, identity, content) for name, identity, content in sections if content]
    links = element("nav", *(element("a", name, href=f"#{identity}") for name, identity, _ in kept))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        Html(f"<style>{_STYLE}</style>"),
    )
    body = element("body", element("h1", title), *introduction, links, *(section(*own) for own in kept))
    return f'<!doctype html>\n<html lang="en">{head}{body}</html>\n'


def _clean(text: str) -> str:
    """Text without characters that turn the direction of writing, or that no page may hold."""
    return text if text.isascii() and text.isprintable() else plain(text)


def _text(text: str) -> str:
    shown = _clean(text)
    cut = f"{shown[:_LONGEST]} [and {len(shown) - _LONGEST:,} more characters]" if len(shown) > _LONGEST else shown
    return escape(cut)
