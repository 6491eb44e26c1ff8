"""Criteria of plug-ins over the logits of tokens: each becomes an operation whose result is a loss, like `token_loss`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace

from vlmdsl.ir import Node
from vlmdsl.ir.operation import define
from vlmdsl.ir.operations.rules import take, with_samples
from vlmdsl.primitives.plugins.function import (
    IMPLEMENTATIONS,
    Implementation,
    origin_of,
    positional_of,
    summary_of,
    unfit,
)
from vlmdsl.primitives.plugins.operations import Declaration, operation_of, parameters_of_operation
from vlmdsl.primitives.prediction import AT, TARGETS, loss_of_tokens
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.samples import SAMPLES
from vlmdsl.primitives.spec import Builder, Parameters, Primitive, Subject
from vlmdsl.primitives.values import Value
from vlmdsl.types import CodesType, LogitsType, LossType, Type

__all__ = ["TOKEN_KINDS", "token_criterion"]

TOKEN_KINDS = ("Logits", "Codes")
"""The kinds of values that such a criterion takes."""


def token_criterion(function: Implementation, declared: Declaration) -> Primitive:
    """The criterion of a function that returns one number per token; the loss is their mean."""
    names = positional_of(function)
    if declared.takes != TOKEN_KINDS or len(names) != len(TOKEN_KINDS):
        help = 'write `takes=("Logits", "Codes")`: the logits [N, V] of N tokens, and their ids [N]'
        raise unfit(function, "takes logits without the ids of the tokens", help)

    taken = {each.name for each in (AT, *SAMPLES)} | {"sample_weight"}
    for parameter in inspect.signature(function).parameters:
        if parameter in taken:
            help = "give it another name: `at`, `where` and `weight` say which tokens count and how much, as in `token_loss`"
            raise unfit(function, f"has a parameter `{parameter}`, a name that every criterion of tokens uses", help)

    def yields(node: Node, types: tuple[Type, ...]) -> Type:
        take(types, LogitsType, CodesType)
        return LossType()

    def meaning(builder: Builder, values: Mapping[str, Value], bound: Parameters) -> Value:
        return loss_of_tokens(builder, values, function.__name__, bound.model_dump(exclude_defaults=True))

    parameters = parameters_of_operation(function)
    name = function.__name__
    word = register(
        Primitive(
            name=name,
            family="prediction",
            summary=summary_of(function),
            meaning=meaning,
            subjects=(
                Subject(names[0], ("Logits",), "the logits of each token"),
                replace(TARGETS, name=names[1]),
                AT,
                *SAMPLES,
            ),
            parameters=parameters,
            laws=declared.laws,
            formula=declared.formula,
            cost=declared.cost,
            example=declared.example or f"let m = random(15%)\nminimize {name}(linear(mask(text, m)), text, at=m)",
            origin=origin_of(function),
        )
    )
    IMPLEMENTATIONS[name] = function
    define(replace(operation_of(function, with_samples(yields), parameters), samples_after=2))
    return word
