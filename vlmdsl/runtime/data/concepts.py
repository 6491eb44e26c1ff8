"""The concepts that a run is given: names, with definitions where there are any (DetCLIP's concept dictionary)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.data import ConceptsUnreadable
from vlmdsl.source import Span
from vlmdsl.source.regular_files import BadFile, read_lines

__all__ = ["ConceptNames", "read_concepts"]

_LARGEST = 2**24
_MOST = 100_000
_LONGEST = 1000
_PLACE = Span("<command line>", 0, 0)


@dataclass(frozen=True)
class ConceptNames:
    """Names of concepts in the order of their file, and the definitions of those that have one."""

    names: tuple[str, ...]
    definitions: Mapping[str, str] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """The name with its definition, as DetCLIP writes it: `a cat, a small domesticated animal`."""
        definition = self.definitions.get(name)
        return name if definition is None else f"{name}, {definition}"


def read_concepts(path: str) -> ConceptNames:
    """The concepts of a file: a name per line, with `: ` and a definition after it where it has one; `#` begins a comment.

    Raises `DiagnosticError` (V0841).
    """
    try:
        lines = read_lines(path, _LARGEST)
    except BadFile as fault:
        raise _unreadable(path, fault.reason) from fault
    definitions: dict[str, str] = {}
    for line in lines:
        name, _, definition = (part.strip() for part in line.partition(": "))
        if name:
            definitions.setdefault(name[:_LONGEST], definition[:_LONGEST])
    if not definitions:
        raise _unreadable(path, "it names no concept")
    if len(definitions) > _MOST:
        raise _unreadable(path, f"it names more than {_MOST} concepts")
    return ConceptNames(tuple(definitions), {name: said for name, said in definitions.items() if said})


def _unreadable(path: str, reason: str) -> DiagnosticError:
    help = "write one concept per line, as in `zebra: a striped animal like a horse`"
    return DiagnosticError((ConceptsUnreadable.at(_PLACE, path=path, reason=reason, help=(help,)),))
