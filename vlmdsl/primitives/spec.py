"""The declaration of a primitive: arguments, type rule, meaning, laws, cost, LaTeX, documentation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict, StringConstraints

from vlmdsl.diagnostics import Diagnostic
from vlmdsl.ir import Moment, Node
from vlmdsl.ir.ramps import Ramp
from vlmdsl.primitives.values import Value
from vlmdsl.source import Span
from vlmdsl.types import PerSampleType, QueueType, ScalarType, VectorType

__all__ = [
    "Builder",
    "Fault",
    "GivenName",
    "Law",
    "Meaning",
    "OptionalName",
    "Parameters",
    "Primitive",
    "StateType",
    "Subject",
]

Law = Literal["permutation", "swap", "scale_invariant", "bounded", "non_negative", "translation_invariant"]
"""The laws that property tests check: equivariant under a permutation of the batch; `f(y, x)` is the transpose of `f(x, y)`;
unchanged when a feature vector is scaled; in [-1, 1]; at least 0; unchanged when a constant is added to all logits."""

_LONGEST_NAME = 64
GivenName = Annotated[str, StringConstraints(pattern="^[A-Za-z_][A-Za-z0-9_]*$", max_length=_LONGEST_NAME)]
"""A parameter that names something: such names become those of tensors, checkpoint entries and Python variables."""
OptionalName = Annotated[str, StringConstraints(pattern="^([A-Za-z_][A-Za-z0-9_]*)?$", max_length=_LONGEST_NAME)]
"""The same, or the empty string for a default name."""


class Parameters(BaseModel):
    """Base of every parameter model: closed, strict, immutable. A field's `description` is its documentation.

    A model is built when a recipe first uses it: a recipe needs few of them, and building all takes noticeable time.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True, defer_build=True)


class Fault(Exception):  # noqa: N818 - the recipe is wrong, not the program
    """Raised while a call is elaborated to report `diagnostic` and give up this call only.

    `value` is the wrong value, if there is one: an error inside a library function is then shown where its user wrote
    that value.
    """

    def __init__(self, diagnostic: Diagnostic, value: Value | None = None) -> None:
        self.diagnostic = diagnostic
        self.value = value
        super().__init__(diagnostic.message)


@dataclass(frozen=True, slots=True)
class Subject:
    """An argument that carries data: `accepts` names its kinds.

    Kinds: `Encoded`, `Vec`, `Tokens`, `Distribution`, `Memory`, `Labels`, `Inputs`, `Sim`, `Score`, `Scalar`, `Condition`,
    `Choice`, `Target`, `Loss`, `Logits`, `Codes`, `Picks`, `Patches`, `Pixels`, `Table`, `Alignment`, `Assignment`,
    `BoxAssignment`, `WordMap`, `Image`, `Text`, `Label`, `Flag`, `Mask`, `Similarity`, `View`, `Encoder`, `Tuple`, `Static`,
    `Any`. A subject with a `default` may be left out; `keyword` ones are never positional.
    """

    name: str
    accepts: tuple[str, ...]
    description: str
    default: Value | None = None
    keyword: bool = False


StateType: TypeAlias = ScalarType | VectorType | PerSampleType
"""What a state may be: a number, one per feature, or one per sample of the data set."""


class Builder(Protocol):
    """What the meaning of a primitive can use: the graph under construction, and the coercions of the language."""

    span: Span
    """The call being elaborated."""

    def place(self, argument: str) -> Span:
        """The place of an argument of this call (the call itself if the argument was omitted)."""

    def add(self, operation: str, *inputs: Node, **attributes: object) -> Node:
        """Add an operation (see `ir.Graph.add`) with this call as its place; its type follows from its inputs."""

    def constant(self, value: float) -> Node: ...

    def parameter(
        self, name: str, *, initial: float, lower: float | None, upper: float | None, log_scale: bool = False
    ) -> Node:
        """A new learned parameter; `name` is made unique in the objective. With `log_scale` it is the log of the inverse of
        the named number, and its name says so."""

    def state(self, name: str, *, type: StateType, initial: float | None, suffix: str = "_mean") -> Node:
        """A new state, a number, one per feature or one per sample of the data set, with its value before this step; `name`
        is made unique in the objective, by default what it is bound to with `suffix`."""

    def index(self) -> Node:
        """The position of each sample of the batch in the data set."""

    def drawn(self, name: str, *, distribution: str, arguments: tuple[float, float]) -> Node:
        """A new number that is drawn for each step, the same on all processes; `name` is made unique in the objective."""

    def ramp(self, name: str, *, ramp: Ramp) -> Node:
        """A new number that follows the run, the same on all processes; `name` is made unique in the objective."""

    def uniforms(self, name: str, *, count: int) -> Node:
        """New numbers from [0, 1), `count` per sample; `name` is made unique in the objective."""

    def memory(self, name: str, *, type: QueueType, size: int, start: str) -> Node:
        """A new memory of `size` vectors, labels or inputs of towers, with its contents before this step; `start` is `empty`
        or `random`."""

    def entering(self, memory: Node) -> tuple[Node, ...]:
        """What enters a memory after the step."""

    def update(self, state: Node, value: Node, when: Moment = "step") -> None:
        """Set the state to `value` after a training step, or after an epoch."""

    def report(self, stored: Node, value: Node) -> None:
        """Log `value` (a temperature) under the name of the learned number or state `stored` that it is made of."""

    def warn(self, diagnostic: Diagnostic) -> None:
        """Report a warning and continue."""

    def draw(self) -> int:
        """A new identity of a random draw per sample."""

    def encoded(self, value: Value, argument: str) -> Value:
        """A field as what its encoder yields; anything else unchanged."""

    def pooled(self, value: Value, argument: str, wanted_by: str) -> Node:
        """The pooled features of a field or encoded stream; Fault for anything else."""

    def tokens(self, value: Value, argument: str, wanted_by: str) -> Node:
        """The token features of a field or encoded stream; Fault (V0304) where they have been pooled."""

    def call(self, function: Value, arguments: tuple[Value, ...]) -> Value:
        """The result of calling a function value with positional arguments."""

    def view(self, view: Value, subject: Value) -> Value:
        """A view applied to a field."""


Meaning = Callable[[Builder, Mapping[str, Value], Parameters], Value]


@dataclass(frozen=True)
class Primitive:
    """One built-in function of the language.

    `meaning(builder, subjects, parameters)` is type rule and meaning at once: it raises `Fault` where the types disagree and
    else adds typed nodes. `formula` is the LaTeX of its documentation page; `example` a program that uses it.
    """

    name: str
    family: str
    summary: str
    meaning: Meaning
    subjects: tuple[Subject, ...] = ()
    parameters: type[Parameters] = Parameters
    laws: tuple[Law, ...] = ()
    formula: str = ""
    cost: str = ""
    example: str = ""
    positional_parameters: tuple[str, ...] = ()
    """Parameters that may be given without their name, where the field writes them so: `learned(0.07)`."""
    view_of: str = ""
    """The field kind this primitive is a view of (`Image`, `Text`); such a call may lack its subject."""
    maps_sets: bool = True
    """Whether a call with a set of views is made for each view; false for primitives that take the set itself."""
    origin: str = "vlmdsl"
    """The distribution that defines it."""

    @property
    def positional(self) -> tuple[Subject, ...]:
        return tuple(subject for subject in self.subjects if not subject.keyword)

    def argument_names(self) -> list[str]:
        """Every name a call may use, subjects first."""
        names = [subject.name for subject in self.subjects]
        return names + [info.alias or name for name, info in self.parameters.model_fields.items()]
