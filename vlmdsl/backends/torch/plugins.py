"""Functions of plug-ins are run on a few random samples before compilation, to check their results."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlmdsl.backends.torch.ops.plugins import Rows
from vlmdsl.backends.torch.values import TokenFeatures
from vlmdsl.ir import Node, Program
from vlmdsl.ir.operations.matrices import SCORE, SIMILARITY
from vlmdsl.primitives.plugins.function import IMPLEMENTATIONS, Implementation, described, implementation, unfit
from vlmdsl.types import CodesType, FieldType, LogitsType, LossType, SimType, TargetType, TokensType, Type, VecType

__all__ = ["try_plugins"]

_SAMPLES, _TOKENS, _FEATURES = 3, 2, 4


def try_plugins(program: Program) -> None:
    """Call the function of every similarity, criterion and target of plug-ins; DiagnosticError V0216 for one that fails or
    returns a wrong result."""
    for node in program.nodes():
        if node.operation.module:
            _try_operation(node)
        elif node.operation in (SIMILARITY, SCORE) and node.string("by") in IMPLEMENTATIONS:
            _try_similarity(node)


def _result(function: Implementation, samples: Sequence[object], arguments: object) -> object:
    """What a function returns for these samples."""
    assert isinstance(arguments, tuple)
    try:
        with torch.no_grad():
            return function(*samples, **dict(arguments))
    except Exception as error:  # third-party code: it may raise anything
        problem = f"fails on random samples: {type(error).__name__}: {error}"
        raise unfit(function, problem, "the traceback of the function is above this error in Python") from error


def _try_similarity(node: Node) -> None:
    function, samples = implementation(node.string("by")), [_sample(parent.type) for parent in node.inputs[:1] * 2]
    result = _result(function, samples, node.attribute("arguments"))
    for matrix in result if isinstance(result, tuple) else (result,):
        if not isinstance(matrix, Tensor) or matrix.shape != (_SAMPLES, _SAMPLES) or not matrix.is_floating_point():
            problem = f"returns {described(matrix)} for {_SAMPLES} samples instead of a matrix [rows, columns]"
            raise unfit(function, problem)


def _try_operation(node: Node) -> None:
    function, samples = implementation(node.operation), [_sample(parent.type) for parent in node.inputs]
    is_target = isinstance(node.type, TargetType)
    shape = (_SAMPLES, _SAMPLES) if is_target else (_SAMPLES,)
    result = _result(function, samples * 2 if is_target else samples, node.attributes)
    if not isinstance(result, Tensor) or result.shape != shape or not (result.is_floating_point() or is_target):
        one = "one number per token" if isinstance(node.type, LossType) else "one number per sample"
        expected = "weights [rows, columns]" if is_target else one
        raise unfit(function, f"returns {described(result)} for {_SAMPLES} samples instead of {expected}")
    if is_target and bool((result < 0).any()):
        raise unfit(function, "returns negative weights")


def _sample(kind: Type) -> object:
    """Random values of a type, as a function of a plug-in gets them."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(kind, VecType | LogitsType):
        return torch.randn(_SAMPLES, _FEATURES, generator=generator)
    if isinstance(kind, TokensType):
        return TokenFeatures(torch.randn(_SAMPLES, _TOKENS, _FEATURES, generator=generator), None)
    if isinstance(kind, SimType):
        values, pairs = torch.randn(_SAMPLES, _SAMPLES, generator=generator), torch.eye(_SAMPLES, dtype=torch.bool)
        return Rows(values, torch.ones_like(pairs), pairs)
    if isinstance(kind, TargetType):
        return torch.eye(_SAMPLES)
    if kind == FieldType("Label") or isinstance(kind, CodesType):
        return torch.arange(_SAMPLES)
    return torch.rand(_SAMPLES, generator=generator)
