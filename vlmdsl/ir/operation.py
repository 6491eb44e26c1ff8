"""The record of an operation: everything that the graph, passes and back ends need to know about it, except what it
computes.

A record holds the attributes of an operation, its type rule and its *traits*. Code that treats a group of operations alike
uses a trait, never a list of names, so that new operations, also those of plug-ins, are included by their traits. The torch
call, formula, identifier in emitted source and cost of an operation are facets of the back ends and the planner, looked up
by its record (ADR 0019).
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
    """What is wrong with a node; the caller adds the place."""


class InternalError(Exception):
    """An internal error of the compiler: the stage that broke an invariant, the node and the problem."""

    def __init__(self, stage: str, node: Node | None, reason: str) -> None:
        self.stage, self.node, self.reason = stage, node, reason
        place = "" if node is None else f" at {node!r}"
        super().__init__(f"internal error after {stage}{place}: {reason}")


Yields: TypeAlias = Callable[["Node", tuple[Type, ...]], Type]
"""The type a node must have, given itself and the types of its inputs; BrokenError if they do not fit."""


@dataclass(frozen=True, eq=False, repr=False)
class Operation(str):
    """One operation of the graph. It is a string, its name, so it prints, sorts and compares like it; one record per name.

    >>> from vlmdsl.ir.operations.scalars import ADD
    >>> ADD == "add", ADD.elementwise, ADD.commutative
    (True, True, True)
    """

    name: str
    yields: Yields
    """The rule of its type."""
    attributes: Mapping[str, tuple[type, ...]] = field(default_factory=dict)
    """Its attributes: names with their Python types, in the order of a call."""
    defaults: Mapping[str, object] = field(default_factory=dict)
    """Default values; an attribute with its default is omitted."""

    takes: str = ""
    """Its inputs, in words."""
    carries: str = ""
    """Its attributes, in words, each by name."""
    gives: str = ""
    """Its type and what it computes, in words."""

    declares_type: bool = False
    """Its type is data (the kind of a field, the contents of a memory): the caller passes it, and the rule checks it."""
    named: bool = False
    """Its nodes are identified by their attribute `name`, unique in a program."""
    state: bool = False
    """It reads a state, with its value before the step."""
    learned: bool = False
    """A number with a gradient: a learned parameter, or one from the caller."""

    per_sample_view: bool = False
    """A view of a field, computed per sample by the workers of the loader."""
    in_evaluation: bool = False
    """A view that evaluation also applies; it skips the others."""
    view_word: str = ""
    """The name of a view in names of streams, if not that of the operation."""
    reads_rewrites: bool = False
    """It reads the rewrites of a text besides the text itself."""
    pairs_fields: bool = False
    """It combines two fields, an image and a text or two texts, which a batch holds separately, into one stream."""
    reads_encoder_output: bool = False
    """It reads the output of an encoder that it is named after."""
    enters: bool = False
    """Samples enter the objective here; they cannot be excluded before."""

    passes_features: bool = False
    """Its result is the features of its first input, changed per sample, with the same dimension."""
    compares: bool = False
    """Its first two inputs are combined feature by feature, so they have the same dimension."""
    multiplies: bool = False
    """It multiplies matrices of features, which are saved for the backward pass."""

    elementwise: bool = False
    """Each entry depends on the same entry of every input, and scalars broadcast; so does its type."""
    per_sample: bool = False
    """Each sample (each entry of a matrix) depends only on the same sample of the inputs."""
    commutative: bool = False
    """Its two inputs can be swapped."""
    comparison: bool = False
    """It compares two numbers; its result is a truth value."""
    signs: tuple[int, ...] = ()
    """For a sum: the sign of each input."""
    number: Callable[..., float] | None = None
    """Its function on plain numbers, which may raise ArithmeticError or ValueError."""
    keeps_zero: bool = False
    """It is zero if all its inputs except conditions are."""
    counts: str = ""
    """What its value is a sum or a mean over, one of them in words, where a step may have none: the value is 0 then."""
    stops_gradient: bool = False
    """No gradient reaches its inputs."""
    samples_after: int = 0
    """For a mean that can be restricted to some samples and weighted by sample: the place among its inputs where a Condition
    and a Score for that may stand (`ir.of_samples`). 0: it cannot."""

    excludes: bool = False
    """Some entries of its matrix are not candidates, whatever their values."""
    criterion: bool = False
    """It reads a matrix along one direction and returns one number per sample."""
    sums_to_one: bool = False
    """A target whose rows sum to 1."""
    symmetric: bool = False
    """A target that is its own transpose."""
    materialised: bool = False
    """A target that is computed as a matrix per direction."""
    of_matrix: bool = False
    """A target that is computed from a matrix, per direction."""

    origin: str = "vlmdsl"
    """The distribution that defines it."""
    module: str = ""
    """The module whose import defines it, where that is a plug-in's."""

    def __new__(cls, name: str, *_positional: object, **_keyword: object) -> Operation:
        return super().__new__(cls, name)

    def __reduce__(self) -> tuple[Callable[[str, str], Operation], tuple[str, str]]:
        return _restored, (str(self), self.module)

    @property
    def word(self) -> str:
        """The name of a view in names of streams."""
        return self.view_word or self.name


OPERATIONS: dict[str, Operation] = {}
"""Every operation by its name, in the order of definition."""


def define(operation: Operation) -> Operation:
    """Add a record to `OPERATIONS`; ValueError if its name is taken. A plug-in may redefine its own, for notebooks."""
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
    """The record of this name in another process, which may not have imported the plug-in that defines it."""
    if name not in OPERATIONS and module:
        import_module(module)
    return operation_named(name)
