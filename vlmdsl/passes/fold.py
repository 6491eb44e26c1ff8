"""Algebra: constants are folded, divisions become products, and products are ordered so that equal values become equal
nodes.

The order of a product is: matrix, score or loss first, then learned numbers, then the constant. Scalars are multiplied with
each other before anything larger.
"""

from __future__ import annotations

import math

from vlmdsl.ir import Node, Program, walk
from vlmdsl.ir.operations import OPERATIONS
from vlmdsl.ir.operations.scalars import ADD, CONSTANT, DIVIDE, EXP, MULTIPLY, NEGATE, NOT
from vlmdsl.passes.rewriting import Candidate, Maker, Rule, constant_value, rewrite
from vlmdsl.types import LossType, ScalarType, SimType

__all__ = ["RULES", "fold"]


def fold(program: Program) -> Program:
    """The program after constant folding and algebra; idempotent."""
    return rewrite(program, RULES)


def _is_scalar(node: Node) -> bool:
    return isinstance(node.type, ScalarType)


def _is_constant(node: Node, value: float) -> bool:
    return constant_value(node) == value


def _is_zero(node: Node) -> bool:
    """A constant 0, or something multiplied by one."""
    return _is_constant(node, 0.0) or (
        node.operation is MULTIPLY and _is_constant(node.inputs[1], 0.0) and not _excludes(node.inputs[0])
    )


def _excludes(matrix: Node) -> bool:
    """Whether some entries of a matrix are not candidates, as slots that are not written yet: they stay so whatever it is
    multiplied by."""
    return isinstance(matrix.type, SimType) and any(node.operation.excludes for node in walk([matrix]))


def _evaluate(make: Maker, node: Candidate) -> Node | None:
    values = [constant_value(parent) for parent in node.inputs]
    if any(value is None for value in values):
        return None
    try:
        assert node.operation.number is not None
        result = float(node.operation.number(*values))
    except (ArithmeticError, ValueError):
        return None  # 1/0, log(-1), exp(1000): left as written, and reported by `problems`
    return make.constant(result) if math.isfinite(result) else None


def _clamp_constant(make: Maker, node: Candidate) -> Node | None:
    value = constant_value(node.inputs[0])
    if value is None:
        return None
    lower, upper = node.attributes["lower"], node.attributes["upper"]
    value = value if not isinstance(lower, int | float) else max(value, float(lower))
    return make.constant(value if not isinstance(upper, int | float) else min(value, float(upper)))


def _order(make: Maker, node: Candidate) -> Node | None:
    """Larger operands first; of equals, the order that a recipe uses first stays."""
    x, y = node.inputs
    if _rank(x) != _rank(y):
        return make.add(node.operation, y, x) if _rank(x) > _rank(y) else None
    return make.graph.find(node.operation, y, x)


def _rank(node: Node) -> int:
    return 2 if node.operation is CONSTANT else 1 if _is_scalar(node) else 0


def _times_one(make: Maker, node: Candidate) -> Node | None:
    return node.inputs[0] if _is_constant(node.inputs[1], 1.0) else None


def _times_zero(make: Maker, node: Candidate) -> Node | None:
    reducible = isinstance(node.type, ScalarType | LossType)
    return make.constant(0.0) if reducible and _is_constant(node.inputs[1], 0.0) else None


def _plus_zero(make: Maker, node: Candidate) -> Node | None:
    x, y = node.inputs
    if _is_zero(y) and x.type == node.type:
        return x
    return y if _is_zero(x) and y.type == node.type else None


def _minus_zero(make: Maker, node: Candidate) -> Node | None:
    x, y = node.inputs
    if _is_zero(y) and x.type == node.type:
        return x
    return make.add("negate", y) if _is_zero(x) and y.type == node.type else None


def _scaled(node: Node) -> tuple[Node, Node] | None:
    """Base and factor of something larger multiplied by a scalar, or of a scalar multiplied by a constant."""
    if node.operation is not MULTIPLY:
        return None
    x, factor = node.inputs
    return (x, factor) if (_is_scalar(factor) if not _is_scalar(x) else factor.operation is CONSTANT) else None


def _gather_scalars(make: Maker, node: Candidate) -> Node | None:
    x, y = node.inputs
    left, right = _scaled(x), _scaled(y)
    if left is not None and (constant_value(y) is not None or (_is_scalar(y) and not _is_scalar(x))):
        return make.add("multiply", left[0], make.add("multiply", left[1], y))
    if left is not None:
        return make.add("multiply", make.add("multiply", left[0], y), left[1])
    if right is not None and _is_scalar(x) == _is_scalar(y):
        return make.add("multiply", make.add("multiply", x, right[0]), right[1])
    return None


def _gather_addends(make: Maker, node: Candidate) -> Node | None:
    total, addend = node.inputs
    if total.operation is not ADD or constant_value(addend) is None or constant_value(total.inputs[1]) is None:
        return None
    return make.add("add", total.inputs[0], make.add("add", total.inputs[1], addend))


def _negate_negate(make: Maker, node: Candidate) -> Node | None:
    return node.inputs[0].inputs[0] if node.inputs[0].operation is NEGATE else None


def _negate_product(make: Maker, node: Candidate) -> Node | None:
    product = node.inputs[0]
    if product.operation is not MULTIPLY or constant_value(product.inputs[1]) is None:
        return None
    return make.add("multiply", product.inputs[0], make.add("negate", product.inputs[1]))


def _add_negated(make: Maker, node: Candidate) -> Node | None:
    x, y = node.inputs
    if y.operation is NEGATE:
        return make.add("subtract", x, y.inputs[0])
    return make.add("subtract", y, x.inputs[0]) if x.operation is NEGATE else None


def _subtract_negated(make: Maker, node: Candidate) -> Node | None:
    x, y = node.inputs
    return make.add("add", x, y.inputs[0]) if y.operation is NEGATE else None


def _subtract_constant(make: Maker, node: Candidate) -> Node | None:
    x, y = node.inputs
    return None if constant_value(y) is None else make.add("add", x, make.add("negate", y))


def _log_exp(make: Maker, node: Candidate) -> Node | None:
    return node.inputs[0].inputs[0] if node.inputs[0].operation is EXP else None


def _divide_exp(make: Maker, node: Candidate) -> Node | None:
    x, y = node.inputs
    if y.operation is not EXP or not _is_scalar(y):
        return None
    return make.add("multiply", x, make.add("exp", make.add("negate", y.inputs[0])))


def _divide_constant(make: Maker, node: Candidate) -> Node | None:
    x, y = node.inputs
    value = constant_value(y)
    if value is None or value == 0.0 or not math.isfinite(1.0 / value):
        return None
    return make.add("multiply", x, make.constant(1.0 / value))


def _divide_reciprocal(make: Maker, node: Candidate) -> Node | None:
    x, y = node.inputs
    if y.operation is not DIVIDE or not _is_scalar(y) or constant_value(y.inputs[0]) in (None, 0.0):
        return None
    return make.add("multiply", make.add("divide", x, y.inputs[0]), y.inputs[1])


def _divide_scalar(make: Maker, node: Candidate) -> Node | None:
    x, y = node.inputs
    if _is_scalar(x) or not _is_scalar(y) or constant_value(y) == 0.0:
        return None
    return make.add("multiply", x, make.add("divide", make.constant(1.0), y))


def _mean_of_product(make: Maker, node: Candidate) -> Node | None:
    product = node.inputs[0]
    if product.operation is not MULTIPLY or not _is_scalar(product.inputs[1]):
        return None
    mean = make.add("mean", product.inputs[0], *node.inputs[1:])
    return make.add("multiply", mean, product.inputs[1])


def _not_not(make: Maker, node: Candidate) -> Node | None:
    return node.inputs[0].inputs[0] if node.inputs[0].operation is NOT else None


def _smooth_nothing(make: Maker, node: Candidate) -> Node | None:
    return node.inputs[0] if node.attributes.get("epsilon") == 0 else None


RULES: tuple[Rule, ...] = (
    Rule(
        "evaluate",
        tuple(operation for operation in OPERATIONS.values() if operation.number),
        "an operation on constants is a constant",
        _evaluate,
    ),
    Rule("clamp-constant", ("clamp",), "a clamped constant is a constant", _clamp_constant),
    Rule(
        "order",
        tuple(operation for operation in OPERATIONS.values() if operation.elementwise and operation.commutative),
        "x y = y x, x + y = y + x",
        _order,
    ),
    Rule("times-one", ("multiply",), "x 1 = x", _times_one),
    Rule("times-zero", ("multiply",), "x 0 = 0 for a loss or scalar x", _times_zero),
    Rule("plus-zero", ("add",), "x + 0 = x, x + 0 y = x", _plus_zero),
    Rule("minus-zero", ("subtract",), "x - 0 = x, 0 - x = -x", _minus_zero),
    Rule(
        "gather-scalars",
        ("multiply",),
        "(x s) t = x (s t), (x s) y = (x y) s for scalars s, t",
        _gather_scalars,
        exact=False,
    ),
    Rule("gather-addends", ("add",), "(x + a) + b = x + (a + b) for constants a, b", _gather_addends, exact=False),
    Rule("negate-negate", ("negate",), "-(-x) = x", _negate_negate),
    Rule("negate-product", ("negate",), "-(x c) = x (-c)", _negate_product),
    Rule("add-negated", ("add",), "x + (-y) = x - y", _add_negated),
    Rule("subtract-negated", ("subtract",), "x - (-y) = x + y", _subtract_negated),
    Rule("subtract-constant", ("subtract",), "x - c = x + (-c)", _subtract_constant),
    Rule("log-exp", ("log",), "log exp x = x", _log_exp, exact=False),
    Rule("divide-exp", ("divide",), "x / exp y = x exp(-y)", _divide_exp, exact=False),
    Rule("divide-constant", ("divide",), "x / c = x (1/c)", _divide_constant, exact=False),
    Rule("divide-reciprocal", ("divide",), "x / (c / s) = (x / c) s for a constant c", _divide_reciprocal, exact=False),
    Rule("divide-scalar", ("divide",), "x / s = x (1/s) where x is larger than s", _divide_scalar, exact=False),
    Rule("mean-of-product", ("mean",), "mean(x s) = mean(x) s for a scalar s", _mean_of_product, exact=False),
    Rule("not-not", ("not",), "not not c = c", _not_not),
    Rule("smooth-nothing", ("smooth",), "smoothing by 0 changes nothing", _smooth_nothing),
)
"""The table of this pass; for one operation the rules are tried in this order."""
