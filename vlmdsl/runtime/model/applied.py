"""The modules that a value of a graph depends on, called outside of a step: for evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmdsl.backends.torch.step import Environment
from vlmdsl.ir import Node, walk
from vlmdsl.ir.operations.encoding import ENCODE
from vlmdsl.ir.operations.modules import APPLY
from vlmdsl.ir.schedule import Apply, Mode
from vlmdsl.planning import applied_of

if TYPE_CHECKING:
    from vlmdsl.runtime.model.model import VisionLanguageModel

__all__ = ["apply_modules"]


def apply_modules(model: VisionLanguageModel, node: Node, environment: Environment) -> None:
    """Adds the outputs of all towers and modules on features below a node to an `environment`, which holds what the towers
    take. None of them has heads. Gradients are the caller's."""
    for below in walk([node]):
        if below.operation in (ENCODE, APPLY):
            output = applied_of(below)
            apply = Apply(output.use, Mode("Image"), (output.value,))
            environment[output] = model.call_tower(apply, model.inputs(apply, environment))[0]
