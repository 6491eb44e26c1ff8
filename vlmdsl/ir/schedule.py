"""The schedule of a step, as data: what is loaded, what is computed, and which modules are called, in order.

`vlmdsl.planning.schedule` creates it from a program. The plan prints it and `backends.torch.step` executes exactly it, so
what is planned is what runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from vlmdsl.ir.node import Node
from vlmdsl.ir.operations.prediction import TOKEN_LOSS, predicted_by
from vlmdsl.ir.program import Moment
from vlmdsl.ir.uses import Use

__all__ = ["Applied", "Apply", "Compute", "Linear", "Load", "Lowering", "Mode", "Schedule", "Split", "Value"]


@dataclass(frozen=True, slots=True)
class Applied:
    """The output of a use of a module on `value`: a source of the graph, the output of another module, or the node of an
    `apply`, or of the `encode` of a text decoder, which holds its inputs.
    """

    use: Use
    value: Value

    @property
    def source(self) -> Node:
        """The node at the bottom: a field, a view of one, a pair of both, or the node that holds the inputs."""
        value = self.value
        while isinstance(value, Applied):
            value = value.value
        return value


Value: TypeAlias = Node | Applied
"""What a step holds at run time: a node of the graph, or the output of a module."""


@dataclass(frozen=True, slots=True)
class Linear:
    """What a `Compute` takes for a product that it makes itself: of `value`, the states of the tokens that are predicted,
    with the weight of the linear module of `use`, which is not called."""

    use: Use
    value: Applied


@dataclass(frozen=True, slots=True)
class Split:
    """How text decoders take texts: where a `prefix` comes from (`none`, `drawn`, `prompt`: another text before it), the
    share of samples whose tokens are predicted in `parallel`, and whether it takes the `whole` text: the last token has no
    next one, so that only pooled features and states depend on it."""

    prefix: str
    parallel: float
    whole: bool


@dataclass(frozen=True, slots=True)
class Mode:
    """What the values of one call have in common, so that they can be one batch: the kind of field, the side of crops as a
    share of the tower's images, the shares of dropped patches, in order, and whether pairs are blended or patches replaced.
    For heads it is the kind only. Of texts given images it says, too, which tower encoded the images, and their mode; of
    text decoders also how texts are split.
    """

    kind: str
    side: float = 1.0
    dropped: tuple[float, ...] = ()
    blended: bool = False
    context: tuple[str, Mode] | None = None
    split: Split | None = None
    replaced: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """The values of a batch: fields and views of them that the workers of the loader compute per sample, plain fields, and
    numbers that are drawn for the step or come from the caller."""

    values: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Compute:
    """One emitted torch function: it takes values of earlier steps and returns nodes of the graph.

    The last one returns the losses, and its `gives` is empty. Numbers computed from draws and fields only are not passed on:
    they are computed again where they are used.
    """

    name: str
    takes: tuple[Value | Linear, ...]
    gives: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Apply:
    """One call of a module, for all `values` at once; their outputs are `Applied(use, value)`."""

    use: Use
    mode: Mode
    values: tuple[Value, ...]
    outputs: tuple[Applied, ...] = field(init=False, compare=False, repr=False)
    """The outputs of the call, in the order of its values."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "outputs", tuple(Applied(self.use, value) for value in self.values))


@dataclass(frozen=True, slots=True)
class Lowering:
    """How an operation runs: `name`, `reason`, and the rejected alternatives with theirs.

    `dense` makes whole matrices, `chunked` blocks of their rows, `search` keeps the largest of each row only.
    """

    name: str
    reason: str
    rejected: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Schedule:
    """A step: `steps` in order, on what `load` brings.

    `lowerings` say how the operations on similarity matrices and the token losses run that its functions compute; emitted
    code calls what they name. Teachers move `before` the first step, or `after` the optimiser's. An epoch may be followed by
    a function that takes state and gives what it becomes.
    """

    load: Load
    steps: tuple[Compute | Apply, ...]
    lowerings: Mapping[Node, Lowering] = field(hash=False)
    before: tuple[Use, ...] = ()
    after: Mapping[Moment, tuple[Use | Compute, ...]] = field(default_factory=dict)
    chunked: frozenset[Node] = field(init=False, compare=False, repr=False)
    """The operations that run in blocks: what functions emitted for different sizes differ in."""
    chunked_losses: frozenset[Node] = field(init=False, compare=False, repr=False)
    """The token losses whose function makes the product with the weight itself, in chunks of tokens."""

    def __post_init__(self) -> None:
        chunked = frozenset(node for node, lowering in self.lowerings.items() if lowering.name == "chunked")
        object.__setattr__(self, "chunked", chunked)
        object.__setattr__(self, "chunked_losses", frozenset(node for node in chunked if node.operation is TOKEN_LOSS))

    @property
    def without_logits(self) -> frozenset[Node]:
        """The encoded texts and the linear maps of which the schedule makes no logits."""
        return frozenset(predicted_by(loss.inputs[0]) for loss in self.chunked_losses)

    @property
    def calls(self) -> tuple[Apply, ...]:
        """The calls of modules, in order."""
        return tuple(step for step in self.steps if isinstance(step, Apply))

    @property
    def computes(self) -> tuple[Compute, ...]:
        """The emitted functions, in order; the last one returns the losses."""
        return tuple(step for step in self.steps if isinstance(step, Compute))

    @property
    def reads_outputs_early(self) -> bool:
        """Whether a function before the last one takes outputs of modules; one that mixes images takes none."""
        return any(isinstance(value, Applied) for compute in self.computes[:-1] for value in compute.takes)
