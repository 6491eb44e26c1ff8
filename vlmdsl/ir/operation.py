"""The record of an operation: everything that the graph, passes and back ends may ask about it, besides what it computes.

A record names what an operation carries, the rule of its type and its *traits*. Whoever treats a group of operations alike
asks a trait, never a list of names: a new operation, of a plug-in too, belongs where its traits say. How an operation is
called in torch, written in a formula, named in emitted source and what it costs are facets of the back ends and the planner,
found by its record (ADR 0019).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, TypeAlias

from vlmdsl.types import Type

if TYPE_CHECKING:
    from vlmdsl.ir.node import Node

__all__ = ["OPERATIONS", "BrokenError", "InternalError", "Operation", "Yields", "define", "operation_named"]


class BrokenError(Exception):
    """What is wrong with a node; whoever checks it adds where."""


class InternalError(Exception):
    """A fault of the compiler itself: the stage that broke an invariant, the node and what is wrong with it."""

    def __init__(self, stage: str, node: Node | None, reason: str) -> None:
        self.stage, self.node, self.reason = stage, node, reason
        place = "" if node is None else f" at {node!r}"
        super().__init__(f"internal error after {stage}{place}: {reason}")


Yields: TypeAlias = Callable[["Node", tuple[Type, ...]], Type]
"""The type a node must have, given itself and the types of its inputs; BrokenError where they do not fit."""


@dataclass(frozen=True, eq=False, repr=False)
class Operation(str):
    """One operation of the graph. It is its name, so that it prints, sorts and compares as such; one record a name.

    >>> from vlmdsl.ir.operations.scalars import ADD
    >>> ADD == "add", ADD.elementwise, ADD.commutative
    (True, True, True)
    """

    name: str
    yields: Yields
    """The rule of its type."""
    attributes: Mapping[str, tuple[type, ...]] = field(default_factory=dict)
    """What it carries: names with their Python types, in the order in which a call of it takes them."""
    defaults: Mapping[str, object] = field(default_factory=dict)
    """Attributes that are left out where they have these values."""

    takes: str = ""
    """Its inputs, in words."""
    carries: str = ""
    """Its attributes, in words; each by its name."""
    gives: str = ""
    """Its type and what it computes, in words."""

    declares_type: bool = False
    """Its type is data (a field's kind, what a memory holds): who adds it says which, and the rule checks it."""
    named: bool = False
    """Its nodes are told apart by their attribute `name`, unique in a program."""
    state: bool = False
    """It reads what outlives the step, as it was before the step."""
    learned: bool = False
    """A number that a gradient reaches: a learned one, or one that the caller gives."""

    per_sample_view: bool = False
    """A view of a field that is made of each sample for itself, by the workers of a loader."""
    in_evaluation: bool = False
    """A view that evaluation makes too; of the others it takes what they are made of."""
    view_word: str = ""
    """What a view is called in names of streams; its own name where this is empty."""
    reads_rewrites: bool = False
    """It reads the further texts of a sample beside the text itself."""
    pairs_fields: bool = False
    """It makes one stream of an image and a text, which a batch holds apart."""
    reads_encoder_output: bool = False
    """It reads one output of an encoder, the one of its name."""
    enters: bool = False
    """Samples enter the objective here: nothing before it can leave some of them out."""

    passes_features: bool = False
    """It gives the features of its first input, changed sample by sample; their length stays."""
    compares: bool = False
    """Its first two inputs meet feature by feature, so they have one length."""
    multiplies: bool = False
    """It multiplies matrices of features, which are therefore kept for the backward pass."""

    elementwise: bool = False
    """Each entry is made of the same entry of every input, a number of all others; its type follows by broadcasting."""
    per_sample: bool = False
    """Each sample (each entry of a matrix) is made of the same sample of the inputs."""
    commutative: bool = False
    """Its two inputs may change places."""
    comparison: bool = False
    """It gives a truth value for two numbers."""
    signs: tuple[int, ...] = ()
    """Of a sum: the sign that each input has in it."""
    number: Callable[..., float] | None = None
    """What it gives for plain numbers; it may raise ArithmeticError or ValueError."""
    keeps_zero: bool = False
    """It is zero where all its inputs but the conditions are."""
    stops_gradient: bool = False
    """No gradient goes on to its inputs."""

    excludes: bool = False
    """Some entries of the matrix that it gives are not candidates, whatever is done to their numbers."""
    criterion: bool = False
    """It reads a matrix along one direction and gives one number per sample."""
    sums_to_one: bool = False
    """A target whose rows sum to 1."""
    symmetric: bool = False
    """A target that is its own transpose."""
    materialised: bool = False
    """A target that is made as a matrix for each direction."""
    of_matrix: bool = False
    """A target that is made of a matrix, for each of its directions."""

    origin: str = "vlmdsl"
    """The distribution that brought it."""
    module: str = ""
    """The module whose import defines it, where that is a plug-in's."""

    def __new__(cls, name: str, *_positional: object, **_keyword: object) -> Operation:
        return super().__new__(cls, name)

    def __reduce__(self) -> tuple[Callable[[str, str], Operation], tuple[str, str]]:
        return _restored, (str(self), self.module)

    @property
    def word(self) -> str:
        """What a view is called in names of streams."""
        return self.view_word or self.name


OPERATIONS: dict[str, Operation] = {}
"""Every operation by its name, in the order of definition."""


def define(operation: Operation) -> Operation:
    """Add a record to `OPERATIONS`; ValueError if its name is taken. A plug-in may define its own again, in a notebook."""
    defined = OPERATIONS.get(operation.name)
    if defined is not None and (defined.origin != operation.origin or not defined.module):
        raise ValueError(f"the operation {operation.name!r} is already defined")
    OPERATIONS[operation.name] = operation
    return operation


def operation_named(name: str) -> Operation:
    """The record of this name (of itself, where it is one); InternalError for an unknown name."""
    if isinstance(name, Operation):
        return name
    record = OPERATIONS.get(name)
    if record is None:
        raise InternalError("the front end", None, f"{name!r} is not an operation")
    return record


def _restored(name: str, module: str) -> Operation:
    """The record of this name in another process, which may not have imported the plug-in that brought it."""
    if name not in OPERATIONS and module:
        import_module(module)
    return operation_named(name)
