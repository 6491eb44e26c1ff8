"""The emitted function in the variants that sizes select.

Which lowering runs is part of the emitted source (`ops.contrast` or `ops.tiled.contrast`), so a choice by sizes is a choice
among sources. Each is emitted, and compiled, when a batch first needs it: two if one operation has two forms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from vlmdsl.backends.torch.collectives import process_count
from vlmdsl.backends.torch.compiled import Emitted, Result
from vlmdsl.backends.torch.state import StateValue
from vlmdsl.backends.torch.values import Table
from vlmdsl.ir import Input, Node, Program
from vlmdsl.planning.cost import Workload
from vlmdsl.planning.lowering import LoweringRequest, chunked

__all__ = ["Chooser", "LoweredFunction"]

Chunked = frozenset[Node]


class Chooser:
    """Which operations of a program run in blocks, by the sizes of a batch.

    Args:
        program: a planned program.
        inputs: the tensors that it takes, by name.
        request: the requested lowerings; DiagnosticError if a term does not have one.
    """

    def __init__(self, program: Program, inputs: Mapping[str, Input], request: LoweringRequest) -> None:
        self._program, self._request = program, request
        self._axes = {name: declared.axes for name, declared in inputs.items()}
        self._by_workload: dict[Workload, Chunked] = {}
        self.smallest = self.of(Workload(1, 1, 1, "float32", 1, 1))
        """The choice for the smallest batch: what runs in blocks in any case."""

    @property
    def fixed(self) -> bool:
        """Whether the choice does not depend on sizes."""
        return self._request.fixed

    def of(self, workload: Workload) -> Chunked:
        """The choice for a batch of these sizes."""
        if workload not in self._by_workload:
            self._by_workload[workload] = chunked(self._program, workload, self._request)
        return self._by_workload[workload]

    def of_batch(self, inputs: Mapping[str, Tensor]) -> Chunked:
        """The choice for these inputs of this process."""
        features = next(value for value in inputs.values() if value.is_floating_point() and value.dim() > 1)
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


class LoweredFunction:
    """Calls the function of the choice for a batch.

    Args:
        chooser: makes the choice.
        function: gives the function of a choice.
    """

    def __init__(self, chooser: Chooser, function: Callable[[Chunked], Emitted]) -> None:
        self._chooser, self._function = chooser, function
        self._smallest = function(chooser.smallest)
        self._functions: dict[Chunked, Emitted] = {chooser.smallest: self._smallest}

    def __call__(
        self, inputs: Mapping[str, Tensor], parameters: Mapping[str, Tensor], state: Mapping[str, StateValue | Table]
    ) -> Result:
        """The result of the chosen function; in a caller's graph, where sizes may be symbolic, of that for small batches."""
        if self._chooser.fixed or torch.compiler.is_compiling():
            return self._smallest(inputs, parameters, state)
        choice = self._chooser.of_batch(inputs)
        if choice not in self._functions:
            self._functions.setdefault(choice, self._function(choice))
        return self._functions[choice](inputs, parameters, state)
