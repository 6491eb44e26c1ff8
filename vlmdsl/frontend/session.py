"""The state of one elaboration: the graph under construction, diagnostics, names of learned parameters and states, draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from vlmdsl.diagnostics import Diagnostic, Edit, Fix, Label
from vlmdsl.diagnostics.catalog.meaning import TooLarge
from vlmdsl.diagnostics.catalog.types import PooledWhereTokensAreCompared
from vlmdsl.diagnostics.catalog.values import NotANumber
from vlmdsl.frontend.starts import start_value
from vlmdsl.ir import Encoder, Graph, Node, Update
from vlmdsl.ir.ramps import Ramp
from vlmdsl.primitives import Fault
from vlmdsl.primitives.spec import StateType
from vlmdsl.primitives.values import FusionValue, Value
from vlmdsl.source import Span
from vlmdsl.source.limits import (
    LARGEST_NUMBER,
    MAXIMUM_CALL_DEPTH,
    MAXIMUM_CALLS,
    MAXIMUM_DIAGNOSTICS,
    MAXIMUM_NODES,
    MAXIMUM_STEPS,
)
from vlmdsl.types import QueueType, ScalarType, Type

__all__ = ["EnoughError", "Session"]


class EnoughError(Exception):
    """Raised when there are enough errors to stop the elaboration."""


@dataclass
class Session:
    """State of one elaboration; everything else in the front end is a function of it and of the tree."""

    graph: Graph = field(default_factory=Graph)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    metrics: list[tuple[Node, Node]] = field(default_factory=list)
    """(learned number or state, the value to log for it)"""
    updates: list[Update] = field(default_factory=list)
    """The update of every state."""
    log_scales: set[str] = field(default_factory=set)
    """The learned parameters, by name, that are stored as the log of the inverse of the reported value."""
    encoders: dict[str, Encoder] = field(default_factory=dict)
    """The encoder of each field kind, in the recipe that is being elaborated."""
    fusion: FusionValue | None = None
    """The fusion encoder, if the recipe declares one."""
    default_fields: tuple[Node, ...] | None = None
    """The subjects of a criterion without subjects, in a program that is a single expression."""
    used_fields: set[str] = field(default_factory=set)
    members: dict[Span, Span] = field(default_factory=dict)
    """The places of `.member` in evaluated `x.member` where it can be dropped."""
    _hints: list[str] = field(default_factory=lambda: ["parameter"])
    _said: set[tuple[str, str, Span | None]] = field(default_factory=set)
    _serial: int = 0
    _draws: int = 0
    _starts: dict[int, float | None] = field(default_factory=dict)
    _entered: int = 0
    _steps: int = 0
    _errors: int = 0
    _calls: list[tuple[Span, tuple[tuple[Value, Span], ...]]] = field(default_factory=list)

    def next(self) -> Session:
        """A session for the next program of a file: it reports to the same list, and the limits are for all together."""
        following = Session(diagnostics=self.diagnostics)
        following._said = self._said
        following._entered, following._steps, following._errors = self._entered, self._steps, self._errors
        return following

    def report(self, diagnostic: Diagnostic) -> None:
        """Add a diagnostic, once per place; a limit is reported only once. EnoughError after many."""
        place = None if diagnostic.code == TooLarge.code else diagnostic.primary.span
        key = (diagnostic.code, diagnostic.message, place)
        if key not in self._said:
            self._said.add(key)
            self.diagnostics.append(diagnostic)
            self._errors += diagnostic.severity == "error"
            if self._errors >= MAXIMUM_DIAGNOSTICS:
                raise EnoughError

    def add(self, operation: str, *inputs: Node, span: Span, type: Type | None = None, **attributes: object) -> Node:
        self.step(span)
        if len(self.graph.nodes) >= MAXIMUM_NODES:
            raise Fault(TooLarge.at(span, reason=f"more than {MAXIMUM_NODES} nodes"))
        number = attributes.get({"constant": "value", "parameter": "initial"}.get(operation, ""))
        if isinstance(number, float) and abs(number) > LARGEST_NUMBER:
            reason = f"{number:g} is beyond 32-bit floating point, in which objectives are computed"
            raise Fault(NotANumber.at(span, reason=reason))
        spans = (self._written_call(span), span) if _in_library(span) else (span,)
        node = self.graph.add(operation, *inputs, type=type, span=spans, **attributes)
        if isinstance(node.type, ScalarType) and node.index not in self._starts:
            self._starts[node.index] = start_value(node, [self._starts.get(parent.index) for parent in inputs])
        return node

    def start_of(self, node: Node) -> float | None:
        """The value of a number before the first step, if it is computed from constants and learned parameters."""
        return self._starts.get(node.index)

    def step(self, span: Span) -> None:
        """Count a step of the elaboration, whose time is bounded; Fault V0504 beyond the limit."""
        self._steps += 1
        if self._steps > MAXIMUM_STEPS:
            raise Fault(TooLarge.at(span, reason=f"more than {MAXIMUM_STEPS:,} steps"))

    def _written_call(self, inner: Span) -> Span:
        """The call in the user's text that the library is evaluated for."""
        return next((call for call, _ in reversed(self._calls) if not _in_library(call)), inner)

    def parameter(
        self, name: str, span: Span, *, initial: float, lower: float | None, upper: float | None, log_scale: bool
    ) -> Node:
        """A new learned parameter; for a temperature stored as its `log_scale`, `name` is that of the temperature."""
        serial = self._serial_name(name)
        if log_scale:
            self.log_scales.add(serial)
        return self.add("parameter", span=span, name=serial, initial=initial, lower=lower, upper=upper)

    def state(self, name: str, span: Span, *, type: StateType, initial: float | None, suffix: str) -> Node:
        """A new state: a number, one per feature, or one per sample of the data set."""
        serial = self._serial_name(name, suffix)
        return self.add("state", type=type, span=span, name=serial, initial=initial)

    def index(self, span: Span) -> Node:
        """The position of each sample in the data set: one node for all that is kept of samples."""
        return self.add("index", span=span, name="index#0")

    def drawn(self, name: str, span: Span, *, distribution: str, arguments: tuple[float, float]) -> Node:
        """A new number that is drawn for each step."""
        serial = self._serial_name(name or ("" if len(self._hints) > 1 else "draw"))
        return self.add("draw", span=span, name=serial, distribution=distribution, arguments=arguments)

    def ramp(self, name: str, span: Span, *, ramp: Ramp) -> Node:
        """A new number that follows the run."""
        serial = self._serial_name(name or ("" if len(self._hints) > 1 else "ramp"))
        return self.add("ramp", span=span, name=serial, ramp=ramp)

    def uniforms(self, name: str, span: Span, *, count: int) -> Node:
        """New numbers from [0, 1), `count` per sample."""
        serial = self._serial_name(name or ("" if len(self._hints) > 1 else "uniform"), suffix="_uniform")
        return self.add("draw", span=span, name=serial, distribution="uniform", arguments=(0.0, 1.0), count=count)

    def memory(self, name: str, span: Span, *, type: QueueType, size: int, start: str) -> Node:
        """A new memory of vectors, labels or inputs of towers."""
        return self.add("memory", type=type, span=span, name=self._serial_name(name), size=size, start=start)

    def _serial_name(self, name: str, suffix: str = "") -> str:
        """A name with the suffix `#serial`, which `finish` replaces by unique names."""
        self._serial += 1
        return f"{name or self._hints[-1] + suffix}#{self._serial}"

    def draw(self) -> int:
        self._draws += 1
        return self._draws

    @contextmanager
    def named(self, hint: str) -> Iterator[None]:
        """Learned parameters and states created inside get the name that they are bound to."""
        self._hints.append(hint)
        try:
            yield
        finally:
            self._hints.pop()

    @contextmanager
    def entered(self, span: Span, arguments: tuple[tuple[Value, Span], ...]) -> Iterator[None]:
        """Count calls and their depth, and record the arguments of each with their places."""
        self._calls.append((span, arguments))
        try:
            self._entered += 1
            if len(self._calls) > MAXIMUM_CALL_DEPTH:
                raise Fault(TooLarge.at(span, reason=f"calls nested deeper than {MAXIMUM_CALL_DEPTH}"))
            if self._entered > MAXIMUM_CALLS:
                raise Fault(TooLarge.at(span, reason=f"more than {MAXIMUM_CALLS} calls"))
            yield
        finally:
            self._calls.pop()

    def blamed(self, fault: Fault) -> Diagnostic:
        """The diagnostic of a fault, at the place in the user's text with the wrong value, with the fix for it."""
        diagnostic = self._moved(fault)
        member = self.members.get(diagnostic.primary.span)
        if diagnostic.code != PooledWhereTokensAreCompared.code or member is None:
            return diagnostic
        return replace(diagnostic, fix=Fix("drop `.pooled`", (Edit(member, ""),)))

    def _moved(self, fault: Fault) -> Diagnostic:
        """The diagnostic of a fault; one inside a library function is moved to the user's call of it."""
        diagnostic = fault.diagnostic
        inner = diagnostic.primary.span
        if not _in_library(inner):
            return diagnostic
        for call, arguments in reversed(self._calls):
            if not _in_library(call):
                place = self._written(fault.value, arguments, call)
                moved = Label(place, diagnostic.primary.text)
                return replace(diagnostic, primary=moved, secondary=(*diagnostic.secondary, Label(inner, "needed here")))
        return diagnostic

    def _written(self, value: Value | None, arguments: tuple[tuple[Value, Span], ...], call: Span) -> Span:
        """The argument that is `value`, or that created it; the whole call if there is none."""
        if value is None:
            return call
        for argument, place in reversed(arguments):
            if argument is value:
                return place
        spans = self.graph.spans_of(value) if isinstance(value, Node) else ()
        return next((span for span in spans if span.file == call.file and call.start <= span.start < call.end), call)


def _in_library(span: Span) -> bool:
    return span.file.startswith("std/")
