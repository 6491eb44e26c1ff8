"""Terms that have nothing to do: an empty selection gives the loss 0, or there is no negative, or no positive, of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from vlmdsl.diagnostics import Diagnostic
from vlmdsl.diagnostics.catalog.runs import TermIdle
from vlmdsl.ir import Node, Program, Ramp, walk
from vlmdsl.ir.counted import COUNTED, counted_in
from vlmdsl.ir.operations.rules import of_samples
from vlmdsl.ir.operations.scalars import RAMP
from vlmdsl.ir.operations.views import FIELD
from vlmdsl.source import Span
from vlmdsl.types import LossType, ScalarType

__all__ = ["STEPS", "IdleTerms", "counted_of", "idle_term"]

STEPS = 100
"""Steps of a flow after which a term that was 0 in each of them is reported."""


class IdleTerms:
    """Watches the terms of the flows of a stage; each is named once at most.

    Values are kept where they are, and read once per `STEPS` steps, so that no step waits for its losses. They are those of
    the global batch: all processes name the same terms.

    >>> watch = IdleTerms(steps=2)
    >>> [watch.after("", {"a": torch.tensor(0.0), "b": torch.tensor(value)}) for value in (0.0, 1.0)]
    [[], ['a']]
    """

    def __init__(self, steps: int = STEPS) -> None:
        self._steps = steps
        self._values: dict[str, list[Tensor]] = {}
        self._named: set[tuple[str, str]] = set()

    def after(self, flow: str, terms: Mapping[str, Tensor]) -> list[str]:
        """The terms of a flow that were 0 in all of its last steps, this one included; called after each of its steps."""
        values = self._values.setdefault(flow, [])
        values += [term.detach() for term in terms.values()]
        if len(values) < self._steps * len(terms):
            return []
        active = torch.stack(self._values.pop(flow)).view(self._steps, len(terms)).any(dim=0)
        idle = [name for name, active_once in zip(terms, active.tolist(), strict=True) if not active_once]
        new = [name for name in idle if (flow, name) not in self._named]
        self._named |= {(flow, name) for name in new}
        return new


def counted_of(metrics: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The metrics that count what a term is about: `NAME.negatives`, `NAME.positives`."""
    return {name: value for name, value in metrics.items() if name.partition(".")[2] in _COUNTS}


_COUNTS = frozenset(counted.metric for counted in COUNTED.values())


def idle_term(program: Program, name: str, steps: int = STEPS) -> Diagnostic | None:
    """V0855 for a term of a program that was 0 in so many steps, or had none of what it counts (`counted_of`): what it may
    have had none of, and which fields it reads.

    None for one whose weight is a schedule that begins or ends at 0.
    """
    name, _, metric = name.partition(".")
    term = next(term.node for term in program.terms if term.name == name)
    if any(0.0 in (ramp.start, ramp.end) for ramp in _weights(term)):
        return None
    nodes = list(walk([term]))
    counted = dict.fromkeys(node.operation.counts for node in nodes if node.operation.counts)
    if any(of_samples(node).weight is not None for node in nodes):
        counted["weight of a sample above 0"] = None
    if metric:
        counted = dict.fromkeys(own.words for own in counted_in(term) if own.metric == metric)
    fields = dict.fromkeys(node.string("name") for node in nodes if node.operation is FIELD)
    what = " and no ".join(counted)
    place = next(iter(program.graph.spans_of(term)), Span("training", 0, 0))
    notes = (f"it reads {_listed(fields)}",) if fields else ()
    help = "look at these columns of the data and at what selects from them, or remove the term"
    reason = f"there was no {what}" if what else "its loss was 0 in each of them"
    return TermIdle.at(place, notes=notes, help=(help,), term=name, steps=steps, reason=reason)


def _weights(node: Node) -> list[Ramp]:
    """The schedules that a term is multiplied with."""
    if node.operation is RAMP:
        ramp = node.attribute("ramp")
        return [ramp] if isinstance(ramp, Ramp) else []
    if not isinstance(node.type, LossType | ScalarType) or not node.operation.elementwise:
        return []
    return [ramp for parent in node.inputs for ramp in _weights(parent)]


def _listed(names: Iterable[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return ", ".join(quoted[:-1]) + " and " + quoted[-1] if len(quoted) > 1 else quoted[0]
