"""A page of `explain`, as text and as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vlmdsl.diagnostics import plain

__all__ = ["Explanation"]


@dataclass(frozen=True)
class Explanation:
    """A page: `sections` are pairs of heading and body, `facts` the same content as data."""

    title: str
    sections: tuple[tuple[str, str], ...]
    facts: Mapping[str, object]
    latex: str = ""

    def to_text(self) -> str:
        """The page as plain text, safe to print."""
        parts = [self.title, "=" * len(self.title), ""]
        for heading, body in self.sections:
            parts.extend([heading, "-" * len(heading), body.rstrip(), ""] if heading else [body.rstrip(), ""])
        return plain("\n".join(parts).rstrip() + "\n")

    def to_json(self) -> Mapping[str, object]:
        """The page as plain data."""
        return {"title": self.title, **self.facts}
