"""Criteria and targets of plug-ins: each is a separate operation, whose record says everything that passes and back ends
need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args, get_origin

from vlmdsl.ir import Node
from vlmdsl.ir.operation import OPERATIONS, Operation, Yields, define
from vlmdsl.ir.operations.rules import take
from vlmdsl.primitives.plugins.function import (
    IMPLEMENTATIONS,
    Implementation,
    origin_of,
    parameters_of,
    positional_of,
    summary_of,
    unfit,
)
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Law, Parameters, Primitive, Subject
from vlmdsl.primitives.values import Value
from vlmdsl.types import FieldType, ScoreType, SimType, TargetType, TokensType, Type, VecType

__all__ = ["CRITERION_SUBJECTS", "TARGET_SUBJECTS", "Declaration", "criterion", "target"]


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of argument: the type of its node, what a recipe may write for it, and how that becomes the node."""

    type: type[Type]
    accepts: tuple[str, ...]
    description: str
    node: Callable[[Builder, Value, str, str], Node]


def _as_it_is(builder: Builder, value: Value, argument: str, name: str) -> Node:
    assert isinstance(value, Node)
    return value


_STREAM = ("Encoded", "Vec", "Tokens", "Image", "Text")
_KINDS = {
    "Vec": _Kind(
        VecType, _STREAM, "pooled features", lambda builder, value, argument, name: builder.pooled(value, argument, name)
    ),
    "Tokens": _Kind(
        TokensType, _STREAM, "token features", lambda builder, value, argument, name: builder.tokens(value, argument, name)
    ),
    "Sim": _Kind(SimType, ("Sim",), "a matrix of scaled similarities", _as_it_is),
    "Target": _Kind(TargetType, ("Target",), "what each row should choose", _as_it_is),
    "Score": _Kind(ScoreType, ("Score",), "one number per sample", _as_it_is),
    "Label": _Kind(FieldType, ("Label",), "a class per sample", _as_it_is),
}
CRITERION_SUBJECTS = ("Vec", "Tokens", "Sim", "Target", "Score", "Label")
TARGET_SUBJECTS = ("Label", "Score", "Vec")


@dataclass(frozen=True, slots=True)
class Declaration:
    """The arguments of the decorator."""

    takes: tuple[str, ...]
    normalized: bool
    formula: str
    laws: tuple[Law, ...]
    cost: str
    example: str


def criterion(function: Implementation, declared: Declaration) -> Primitive:
    """The criterion that a function computes: one number per sample."""
    takes, names = declared.takes, positional_of(function)
    if not takes or len(names) != len(takes):
        problem = f"has {len(names)} positional parameters, and `takes` names {len(takes)} kinds"
        raise unfit(function, problem, "`takes` names the kind of each positional parameter, in turn")
    _check_kinds(function, takes, CRITERION_SUBJECTS)
    of_matrix = "Sim" in takes
    if of_matrix and (takes[0] != "Sim" or not set(takes[1:]) <= {"Target"}):
        help = 'write `takes=("Sim",)` or `takes=("Sim", "Target")`'
        raise unfit(function, "takes a matrix with something else than its target", help)
    if "Target" in takes and not of_matrix:
        raise unfit(function, "takes a target without the matrix that it belongs to")

    def yields(node: Node, types: tuple[Type, ...]) -> Type:
        take(types, *(_KINDS[kind].type for kind in takes))
        return ScoreType(types[0].rows) if isinstance(types[0], SimType) else ScoreType()

    parameters = parameters_of_operation(function)
    word = _registered(function, declared, names, parameters, "criteria")
    several = sum(kind in ("Vec", "Tokens") for kind in takes) > 1
    define(
        replace(operation_of(function, yields, parameters), criterion=of_matrix, per_sample=not of_matrix, compares=several)
    )
    return word


def target(function: Implementation, declared: Declaration) -> Primitive:
    """The target that a function computes: how much each row should choose each column."""
    takes = declared.takes
    if len(takes) != 1 or len(positional_of(function)) != 2:
        help = "the first is what the rows have, the second what the columns have; `takes` names what it is"
        raise unfit(function, "must take two positional parameters of one kind", help)
    _check_kinds(function, takes, TARGET_SUBJECTS)

    def yields(node: Node, types: tuple[Type, ...]) -> Type:
        take(types, _KINDS[takes[0]].type)
        return TargetType()

    parameters = parameters_of_operation(function)
    word = _registered(function, declared, [takes[0].lower()], parameters, "targets")
    define(
        replace(
            operation_of(function, yields, parameters),
            sums_to_one=True,
            symmetric="swap" in declared.laws,
            stops_gradient=True,
            materialised=True,
        )
    )
    return word


def _check_kinds(function: Implementation, takes: tuple[str, ...], possible: tuple[str, ...]) -> None:
    for kind in takes:
        if kind not in possible:
            raise unfit(function, f"takes `{kind}`", f"possible: {', '.join(possible)}")


def parameters_of_operation(function: Implementation) -> type[Parameters]:
    """The function's arguments; V0216 if another distribution has an operation with its name."""
    defined = OPERATIONS.get(function.__name__)
    if defined is not None and defined.origin != origin_of(function):
        raise unfit(function, f"has the name of an operation of {defined.origin}", "give the function another name")
    return parameters_of(function, Parameters)


def operation_of(function: Implementation, yields: Yields, parameters: type[Parameters]) -> Operation:
    """The record of a function, without its traits: an argument that has its default is left out."""
    fields = parameters.model_fields
    return Operation(
        function.__name__,
        yields,
        {key: _python_types(field.annotation) for key, field in fields.items()},
        {key: field.default for key, field in fields.items()},
        origin=origin_of(function),
        module=function.__module__,
    )


def _registered(
    function: Implementation, declared: Declaration, names: list[str], parameters: type[Parameters], family: str
) -> Primitive:
    """The primitive that adds the operation with its name."""
    name, subjects = function.__name__, dict(zip(names, declared.takes, strict=True))

    def meaning(builder: Builder, values: Mapping[str, Value], bound: Parameters) -> Value:
        nodes = [_KINDS[kind].node(builder, values[subject], subject, name) for subject, kind in subjects.items()]
        for position, node in enumerate(nodes):
            if declared.normalized and isinstance(node.type, VecType | TokensType):
                nodes[position] = node = builder.add("normalize", node, epsilon=0.0)
            if family == "targets" and not isinstance(node.type, FieldType):
                nodes[position] = builder.add("stop", node)
        return builder.add(name, *nodes, **bound.model_dump(exclude_defaults=True))

    word = register(
        Primitive(
            name=name,
            family=family,
            summary=summary_of(function),
            meaning=meaning,
            subjects=tuple(
                Subject(subject, _KINDS[kind].accepts, _KINDS[kind].description) for subject, kind in subjects.items()
            ),
            parameters=parameters,
            laws=declared.laws,
            formula=declared.formula,
            cost=declared.cost,
            example=declared.example or _example(name, family, declared.takes),
            origin=origin_of(function),
        )
    )
    IMPLEMENTATIONS[name] = function
    return word


def _python_types(annotation: Any) -> tuple[type, ...]:
    """The Python types of the values of an annotated parameter."""
    if annotation is float:
        return (int, float)
    if get_origin(annotation) is None:
        return (annotation,) if isinstance(annotation, type) else (object,)
    return tuple({type(value) for value in get_args(annotation)}) or (object,)


_EXAMPLES = {
    "Vec": ("image", "text"),
    "Tokens": ("image", "text"),
    "Sim": ("similarity(image, text)",),
    "Target": ("paired()",),
    "Score": ("score(image, text)",),
}


def _example(name: str, family: str, takes: tuple[str, ...]) -> str:
    """An example program with the default fields; with labels it needs a signature."""
    if "Label" in takes:
        return ""
    # No gradient passes a target; `stop` says so to the test of its derivatives.
    arguments = [_EXAMPLES[kind][takes[:place].count(kind) % len(_EXAMPLES[kind])] for place, kind in enumerate(takes)]
    arguments = [f"stop({argument})" for argument in arguments] if family == "targets" else arguments
    call = f"{name}({', '.join(arguments)})"
    return f"contrast(image, text, targets={call})" if family == "targets" else f"mean({call})"
