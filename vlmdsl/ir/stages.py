"""The parts of a run: consecutive stages, and the flows that share the steps of a stage."""

from __future__ import annotations

from dataclasses import dataclass

from vlmdsl.ir.program import Program

__all__ = ["Flow", "Stage", "flow_title"]


@dataclass(frozen=True, slots=True)
class Flow:
    """The objective of a share of the steps of a stage. The only flow of a stage without flows has the name ""."""

    name: str
    share: float
    """The probability that a step runs this flow."""
    program: Program


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the run with its own flows. The only stage of a recipe without stages has the name ""."""

    name: str
    flows: tuple[Flow, ...]
    starts_from: str = ""
    """The stage whose weights it begins with; "" for untrained weights."""


def flow_title(stage: Stage, flow: Flow) -> str:
    """The title of a flow where several are listed: `stage second, flow texts (15 % of its steps)`; "" for the only one.

    >>> from vlmdsl.ir import Graph
    >>> flows = tuple(Flow(name, share, Program("r", Graph(), ())) for name, share in (("a", 0.85), ("b", 0.15)))
    >>> stage = Stage("", flows)
    >>> flow_title(stage, flows[1])
    'flow b (15 % of the steps)'
    """
    parts = []
    if stage.name:
        start = f" from {stage.starts_from}" if stage.starts_from else ""
        parts.append(f"stage {stage.name}{start}")
    if flow.name:
        parts.append(f"flow {flow.name} ({100 * flow.share:.6g} % of {'its' if stage.name else 'the'} steps)")
    return ", ".join(parts)
