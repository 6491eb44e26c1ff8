"""The emitted function in the variants that sizes select.

Which lowering runs is part of the emitted source (`ops.contrast` or `ops.tiled.contrast`), so a choice by sizes is a choice
among sources. Each is emitted when a batch first needs it: two if one operation has two forms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Generic

import torch
from torch import Tensor

from vlmdsl.backends.torch.collectives import process_count
from vlmdsl.backends.torch.compiled import Emitted, Form, R
from vlmdsl.backends.torch.state import StateValue
from vlmdsl.backends.torch.values import Table
from vlmdsl.ir import Input, Node, Program
from vlmdsl.ir.schedule import Schedule
from vlmdsl.planning import schedule_of
from vlmdsl.planning.linear import in_chunks
from vlmdsl.planning.lowering import LoweringRequest, lowerings_of
from vlmdsl.planning.workload import SMALLEST, Workload

__all__ = ["LoweredFunction", "Schedules"]


class Schedules:
    """The schedule of a program by the sizes of a batch: the same steps, whose operations may run in another way.

    Args:
        program: a planned program.
        inputs: the tensors that it takes, by name.
        request: the requested lowerings; DiagnosticError if a term does not have one.
        chunked_losses: the token losses that are computed without logits.
    """

    def __init__(
        self,
        program: Program,
        inputs: Mapping[str, Input],
        request: LoweringRequest,
        chunked_losses: frozenset[Node] = frozenset(),
    ) -> None:
        self._program, self._request = program, request
        self._axes = {name: declared.axes for name, declared in inputs.items()}
        self._losses = in_chunks(chunked_losses)
        self.smallest = schedule_of(program, SMALLEST, request, self._losses)
        """That of the smallest batch: what runs in blocks in any case."""
        self._by_workload: dict[Workload, Schedule] = {}

    @property
    def fixed(self) -> bool:
        """Whether the choice does not depend on sizes."""
        return self._request.fixed

    def of(self, workload: Workload) -> Schedule:
        """The schedule for a batch of these sizes."""
        if workload not in self._by_workload:
            self._by_workload[workload] = self._with(workload, self._request)
        return self._by_workload[workload]

    def _with(self, workload: Workload, request: LoweringRequest) -> Schedule:
        return replace(self.smallest, lowerings=lowerings_of(self._program, workload, request) | self._losses)

    def of_batch(self, inputs: Mapping[str, Tensor]) -> Schedule:
        """The schedule for these inputs of this process."""
        features = next((value for value in inputs.values() if value.is_floating_point() and value.dim() > 1), None)
        if features is None:  # only draws
            return self.smallest
        declared = [(self._axes[name], value.shape) for name, value in inputs.items() if name in self._axes]
        sizes = {axis: size for axes, shape in declared for axis, size in zip(axes, shape, strict=True)}
        world = process_count()
        return self.of(
            Workload(
                batch=features.shape[0] * world,
                world=world,
                dim=features.shape[-1],
                dtype=str(features.dtype).removeprefix("torch."),
                image_tokens=sizes.get("P", 1),
                text_tokens=sizes.get("L", 1),
                device=features.device.type,
            )
        )


class LoweredFunction(Generic[R]):
    """Calls the function of the schedule for a batch.

    Args:
        schedules: say which operations run in blocks.
        function: gives the function that is emitted for a schedule.
    """

    def __init__(self, schedules: Schedules, function: Callable[[Schedule], Emitted[R]]) -> None:
        self._schedules, self._function = schedules, function
        self.smallest: Form[R] = Form(function(schedules.smallest), schedules.smallest.chunked)
        """The function for the smallest batch."""
        self._forms = {self.smallest.chunked: self.smallest}
        self._last: tuple[object, Form[R]] = None, self.smallest
        """What the form for the last inputs was chosen by, and that form: those of the next step are usually alike."""

    def __call__(
        self, inputs: Mapping[str, Tensor], parameters: Mapping[str, Tensor], state: Mapping[str, StateValue | Table]
    ) -> R:
        """The result of the chosen function; in a caller's graph, where sizes may be symbolic, of that for small batches."""
        if torch.compiler.is_compiling():
            return self.smallest.function(inputs, parameters, state)
        return self.of_batch(inputs).function(inputs, parameters, state)

    def of_batch(self, inputs: Mapping[str, Tensor]) -> Form[R]:
        """The function for these inputs."""
        if self._schedules.fixed:
            return self.smallest
        facts = [(name, value.shape, value.dtype, value.device) for name, value in inputs.items()], process_count()
        last_facts, form = self._last
        if facts != last_facts:
            schedule = self._schedules.of_batch(inputs)
            if schedule.chunked not in self._forms:
                self._forms.setdefault(schedule.chunked, Form(self._function(schedule), schedule.chunked))
            form = self._forms[schedule.chunked]
            self._last = facts, form
        return form
