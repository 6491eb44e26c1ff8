"""The builder for the meaning of a primitive: the graph, the coercions, and the places of arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vlmdsl.diagnostics import Diagnostic
from vlmdsl.frontend import coerce
from vlmdsl.frontend.session import Session
from vlmdsl.ir import Moment, Node, Update
from vlmdsl.ir.ramps import Ramp
from vlmdsl.primitives import Fault
from vlmdsl.primitives.spec import StateType
from vlmdsl.primitives.values import Value
from vlmdsl.source import Span
from vlmdsl.types import QueueType

__all__ = ["CallBuilder"]


@dataclass
class CallBuilder:
    """The `primitives.Builder` of one call."""

    session: Session
    span: Span
    places: Mapping[str, Span]
    call_function: Callable[[Value, tuple[Value, ...], Span], Value]
    apply_view: Callable[[Value, Value, Span], Value]
    fixed_draw: int | None = field(default=None)
    """The draw of an existing view value: applied twice, it draws once."""

    def place(self, argument: str) -> Span:
        return self.places.get(argument, self.span)

    def add(self, operation: str, *inputs: Node, **attributes: Any) -> Node:
        return self.session.add(operation, *inputs, span=self.span, **attributes)

    def constant(self, value: float) -> Node:
        return self.add("constant", value=float(value))

    def parameter(
        self, name: str, *, initial: float, lower: float | None, upper: float | None, log_scale: bool = False
    ) -> Node:
        return self.session.parameter(name, self.span, initial=initial, lower=lower, upper=upper, log_scale=log_scale)

    def state(self, name: str, *, type: StateType, initial: float | None, suffix: str = "_mean") -> Node:
        return self.session.state(name, self.span, type=type, initial=initial, suffix=suffix)

    def index(self) -> Node:
        return self.session.index(self.span)

    def drawn(self, name: str, *, distribution: str, arguments: tuple[float, float]) -> Node:
        return self.session.drawn(name, self.span, distribution=distribution, arguments=arguments)

    def ramp(self, name: str, *, ramp: Ramp) -> Node:
        return self.session.ramp(name, self.span, ramp=ramp)

    def uniforms(self, name: str, *, count: int) -> Node:
        return self.session.uniforms(name, self.span, count=count)

    def memory(self, name: str, *, type: QueueType, size: int, start: str) -> Node:
        return self.session.memory(name, self.span, type=type, size=size, start=start)

    def entering(self, memory: Node) -> tuple[Node, ...]:
        return next(update.node.inputs[1:] for update in self.session.updates if update.state is memory)

    def update(self, state: Node, value: Node, when: Moment = "step") -> None:
        self.session.updates.append(Update(state, value, when))

    def report(self, stored: Node, value: Node) -> None:
        self.session.metrics.append((stored, value))

    def warn(self, diagnostic: Diagnostic) -> None:
        self.session.report(self.session.blamed(Fault(diagnostic)))

    def draw(self) -> int:
        return self.session.draw() if self.fixed_draw is None else self.fixed_draw

    def encoded(self, value: Value, argument: str) -> Value:
        return coerce.encode(self.session, value, self.place(argument))

    def pooled(self, value: Value, argument: str, wanted_by: str) -> Node:
        return coerce.pooled(self.session, value, self.place(argument), wanted_by)

    def tokens(self, value: Value, argument: str, wanted_by: str) -> Node:
        return coerce.tokens(self.session, value, self.place(argument), wanted_by)

    def call(self, function: Value, arguments: tuple[Value, ...]) -> Value:
        return self.call_function(function, arguments, self.span)

    def view(self, view: Value, subject: Value) -> Value:
        return self.apply_view(view, subject, self.span)
