"""What one elaboration shares: the graph under construction, the diagnostics, names of learned numbers, draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from vlmdsl.diagnostics import Diagnostic
from vlmdsl.diagnostics.catalog.meaning import TooLarge
from vlmdsl.ir import Encoder, Graph, Node
from vlmdsl.primitives import Fault
from vlmdsl.source import Span
from vlmdsl.source.limits import MAXIMUM_CALL_DEPTH, MAXIMUM_DIAGNOSTICS, MAXIMUM_NODES
from vlmdsl.types import ScalarType, Type

__all__ = ["Session"]


@dataclass
class Session:
    """State of one elaboration; everything else in the front end is a function of it and of the tree."""

    graph: Graph = field(default_factory=Graph)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    metrics: list[tuple[Node, Node]] = field(default_factory=list)
    """(learned number, the value to log for it)"""
    encoders: dict[str, Encoder] = field(default_factory=dict)
    """The encoder of each field kind, in the recipe that is being elaborated."""
    default_fields: tuple[Node, ...] | None = None
    """What a criterion without subjects compares, in a program that is an expression alone."""
    used_fields: set[str] = field(default_factory=set)
    _hints: list[str] = field(default_factory=lambda: ["parameter"])
    _serial: int = 0
    _draws: int = 0
    _depth: int = 0

    def report(self, diagnostic: Diagnostic) -> None:
        """Keep a diagnostic, unless it was said already or too many were."""
        if len(self.diagnostics) < MAXIMUM_DIAGNOSTICS and diagnostic not in self.diagnostics:
            self.diagnostics.append(diagnostic)

    def add(self, operation: str, *inputs: Node, type: Type, span: Span, **attributes: object) -> Node:
        if len(self.graph.nodes) >= MAXIMUM_NODES:
            raise Fault(TooLarge.at(span, reason=f"more than {MAXIMUM_NODES} nodes"))
        return self.graph.add(operation, *inputs, type=type, span=span, **attributes)

    def parameter(self, name: str, span: Span, *, initial: float, lower: float | None, upper: float | None) -> Node:
        """A fresh learned number. Its name ends in `#serial` until `finish` gives every live one a unique name."""
        self._serial += 1
        return self.add(
            "parameter",
            type=ScalarType(),
            span=span,
            name=f"{name or self._hints[-1]}#{self._serial}",
            initial=initial,
            lower=lower,
            upper=upper,
        )

    def draw(self) -> int:
        self._draws += 1
        return self._draws

    @contextmanager
    def named(self, hint: str) -> Iterator[None]:
        """Learned numbers made inside are called after what they are bound to."""
        self._hints.append(hint)
        try:
            yield
        finally:
            self._hints.pop()

    @contextmanager
    def entered(self, span: Span) -> Iterator[None]:
        """Counts the depth of calls."""
        self._depth += 1
        try:
            if self._depth > MAXIMUM_CALL_DEPTH:
                raise Fault(TooLarge.at(span, reason=f"calls nested deeper than {MAXIMUM_CALL_DEPTH}"))
            yield
        finally:
            self._depth -= 1
