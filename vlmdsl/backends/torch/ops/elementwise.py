"""Arithmetic on numbers, scores, similarities and targets: whatever the type, the same operation on each of its tensors.

A similarity keeps its two directions apart (one matrix stays one matrix); candidates excluded from either operand stay
excluded. Sums of targets and multiples of them stay sums of parts; any other function of a target makes its matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmdsl.backends.torch.ops.targets import add_targets, dense_target, scale_target
from vlmdsl.backends.torch.values import Number, Products, Similarities, Target, TargetPart, precise

__all__ = [
    "add", "add_features", "clamp", "divide", "equal", "exp", "greater", "greater_equal", "less", "less_equal", "log",
    "logical_and", "logical_not", "logical_or", "maximum", "minimum", "multiply", "negate", "not_equal", "softplus",
    "subtract", "subtract_features", "where",
]  # fmt: skip

Value: TypeAlias = Number | Similarities | Products | Target
TensorFunction: TypeAlias = Callable[..., Tensor]


def negate(x: Value) -> Value:
    """-x."""
    if isinstance(x, Products):
        return x.times(-1.0)
    return scale_target(x, -1.0) if isinstance(x, Target) else _apply(torch.neg, x)


def exp(x: Value) -> Value:
    """e to the x."""
    return _apply(torch.exp, x)


def log(x: Value) -> Value:
    """The natural logarithm."""
    return _apply(torch.log, x)


def softplus(x: Value) -> Value:
    """log(1 + e^x), without overflow."""
    return _apply(lambda values: F.softplus(values, threshold=40.0), x)


def add(x: Value, y: Value) -> Value:
    """x + y."""
    if isinstance(x, Target) and isinstance(y, Target):
        return add_targets(x, y)
    if isinstance(x, Products) and isinstance(y, float | Tensor):
        return x.plus(y)
    return _apply(torch.add, x, y)


def subtract(x: Value, y: Value) -> Value:
    """x - y."""
    if isinstance(x, Products) and isinstance(y, float | Tensor):
        return x.plus(-y)
    return add(x, negate(y)) if isinstance(x, Target) else _apply(torch.sub, x, y)


def add_features(x: Tensor, y: Tensor) -> Tensor:
    """x + y of features [b, D], computed in float32 at least and given back in their dtype; one of them may be a vector [D],
    which is added to each sample's."""
    return (precise(x) + precise(y)).to(_features_dtype(x, y))


def subtract_features(x: Tensor, y: Tensor) -> Tensor:
    """x - y of features [b, D], as `add_features`."""
    return (precise(x) - precise(y)).to(_features_dtype(x, y))


def _features_dtype(x: Tensor, y: Tensor) -> torch.dtype:
    """Their common dtype; a vector of all samples, kept in float32 at least, does not make features wider."""
    features = [value.dtype for value in (x, y) if value.dim() > 1]
    return features[0] if len(features) == 1 else torch.promote_types(x.dtype, y.dtype)


def multiply(x: Value, y: Value) -> Value:
    """x times y."""
    if isinstance(x, Target) and isinstance(y, float | Tensor):
        return scale_target(x, y)
    if isinstance(y, Target) and isinstance(x, float | Tensor):
        return scale_target(y, x)
    if isinstance(x, Products) and isinstance(y, float | Tensor):
        return x.times(y)
    return _apply(torch.mul, x, y)


def divide(x: Value, y: Value) -> Value:
    """x divided by y."""
    if isinstance(x, Target) and isinstance(y, float | Tensor):
        return scale_target(x, 1.0 / y)
    return _apply(torch.div, x, y)


def minimum(x: Value, y: Value) -> Value:
    """The smaller of x and y, elementwise."""
    return _apply(torch.minimum, x, y)


def maximum(x: Value, y: Value) -> Value:
    """The larger of x and y, elementwise."""
    return _apply(torch.maximum, x, y)


def clamp(x: Value, lower: float | None, upper: float | None, gradient: str) -> Value:
    """x brought into [lower, upper]; beyond it the gradient is `zero`, or passes as if nothing had happened (`pass`)."""

    def bound(values: Tensor) -> Tensor:
        bounded = torch.clamp(values, lower, upper)
        return bounded if gradient == "zero" else bounded.detach() + (values - values.detach())

    return _apply(bound, x)


def less(x: Number, y: Number) -> Tensor:
    """Whether x < y."""
    return _compare(torch.lt, x, y)


def less_equal(x: Number, y: Number) -> Tensor:
    """Whether x <= y."""
    return _compare(torch.le, x, y)


def greater(x: Number, y: Number) -> Tensor:
    """Whether x > y."""
    return _compare(torch.gt, x, y)


def greater_equal(x: Number, y: Number) -> Tensor:
    """Whether x >= y."""
    return _compare(torch.ge, x, y)


def equal(x: Number, y: Number) -> Tensor:
    """Whether x = y."""
    return _compare(torch.eq, x, y)


def not_equal(x: Number, y: Number) -> Tensor:
    """Whether x and y differ."""
    return _compare(torch.ne, x, y)


def logical_not(condition: Tensor) -> Tensor:
    """Where the condition fails: [b]."""
    return ~condition


def logical_and(x: Tensor, y: Tensor) -> Tensor:
    """Where both conditions hold: [b]."""
    return x & y


def logical_or(x: Tensor, y: Tensor) -> Tensor:
    """Where one of the conditions holds: [b]."""
    return x | y


def where(condition: Tensor, x: Number, y: Number) -> Tensor:
    """x where the condition holds, else y: [b]. What is not chosen gets no gradient."""
    chosen, other = _tensors([x, y])
    return torch.where(condition, chosen, other)


def _apply(function: TensorFunction, *operands: Value) -> Value:
    kinds = {*map(type, operands)}
    if Target in kinds:
        return _apply_to_targets(function, operands)
    if Similarities in kinds:
        return _apply_to_similarities(function, operands)
    return function(*_tensors([operand for operand in operands if isinstance(operand, float | Tensor)]))


def _apply_to_similarities(function: TensorFunction, operands: tuple[Value, ...]) -> Similarities:
    matrices = [operand for operand in operands if isinstance(operand, Similarities)]
    rows = function(*_tensors([_matrix(operand, "rows") for operand in operands]))
    symmetric = all(matrix.symmetric for matrix in matrices)
    columns = rows if symmetric else function(*_tensors([_matrix(operand, "columns") for operand in operands]))
    return Similarities(
        rows,
        columns,
        _all_hold(matrix.candidates for matrix in matrices),
        _all_hold(matrix.allowed for matrix in matrices),
        _all_hold(matrix.filled for matrix in matrices),
    )


def _all_hold(conditions: Iterable[Tensor | None]) -> Tensor | None:
    """Where all the conditions hold; None for one that holds everywhere."""
    together: Tensor | None = None
    for condition in conditions:
        if condition is not None:
            together = condition if together is None else together & condition
    return together


def _matrix(operand: Value, direction: str) -> Number:
    assert not isinstance(operand, Target | Products), "similarities without a matrix can only be scaled and shifted"
    if isinstance(operand, Similarities):
        return operand.rows if direction == "rows" else operand.columns
    return operand


def _apply_to_targets(function: TensorFunction, operands: tuple[Value, ...]) -> Target:
    def matrices(like: Tensor) -> Similarities:
        dense = tuple(dense_target(operand, like) if isinstance(operand, Target) else operand for operand in operands)
        return _apply_to_similarities(function, dense)

    return Target((TargetPart("dense", matrices=matrices),))


def _compare(function: TensorFunction, x: Number, y: Number) -> Tensor:
    return function(*_tensors([x, y]))


def _tensors(operands: Sequence[Number]) -> list[Tensor]:
    """Operands as tensors, in float32 at least; plain numbers take place and precision of a tensor beside them."""
    tensors = [operand for operand in operands if isinstance(operand, Tensor)]
    if len(tensors) < len(operands):
        like = precise(tensors[0]) if tensors else torch.zeros(())
        tensors = [operand if isinstance(operand, Tensor) else like.new_full((), operand) for operand in operands]
    return [precise(tensor) if tensor.is_floating_point() else tensor for tensor in tensors]
