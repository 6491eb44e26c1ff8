"""Scalars, per-sample scores and losses as mathematics: a rule per operation, for sample i.

An operation without a rule is written as a function of its inputs, so a formula never omits anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from vlmdsl.backends.latex.arithmetic import ARITHMETIC, scaled
from vlmdsl.backends.latex.criteria import (
    cross_entropy,
    hinge,
    log_sum_exp,
    row_mean,
    row_sum,
    sigmoid_loss,
    target_entropy,
)
from vlmdsl.backends.latex.draws import drawn, following, from_outside
from vlmdsl.backends.latex.fusion import matched, matching, own
from vlmdsl.backends.latex.grounding import GROUNDING
from vlmdsl.backends.latex.grouping import assignment, assignment_divergence, segment_mean
from vlmdsl.backends.latex.interface import Writer
from vlmdsl.backends.latex.mining import is_other, picks
from vlmdsl.backends.latex.notation import (
    SUM,
    Math,
    bracketed,
    call,
    log,
    negated,
    number,
    quotient,
)
from vlmdsl.backends.latex.per_sample import looked_up, running_means
from vlmdsl.backends.latex.prediction import distill, token_loss
from vlmdsl.backends.latex.reconstruction import reconstruct
from vlmdsl.ir import Node
from vlmdsl.ir.operations.contrast import CONTRAST
from vlmdsl.ir.operations.encoding import ENTROPY, ENTROPY_OF_MEAN
from vlmdsl.ir.operations.grouping import ASSIGNMENT, ASSIGNMENT_DIVERGENCE, SEGMENT_MEAN
from vlmdsl.ir.operations.matrices import LOG_SUM_EXP, ROW_MEAN, ROW_SUM, SCORE
from vlmdsl.ir.operations.mining import FETCH, HARDEST, MINE, PICKED
from vlmdsl.ir.operations.modules import MATCHED, MATCHING, OWN, RECONSTRUCT
from vlmdsl.ir.operations.per_sample import LOOKUP, RUNNING_MEANS
from vlmdsl.ir.operations.prediction import DISTILL, TOKEN_LOSS
from vlmdsl.ir.operations.reductions import CROSS_ENTROPY, HINGE, MEAN, SAMPLES, SIGMOID_LOSS, TARGET_ENTROPY
from vlmdsl.ir.operations.scalars import (
    CLAMP,
    CONSTANT,
    DRAW,
    EXP,
    MAXIMUM,
    MINIMUM,
    MULTIPLY,
    NEGATE,
    PARAMETER,
    RAMP,
    SCALAR,
    STOP,
    WHERE,
)
from vlmdsl.ir.operations.state import RUNNING_MEAN, STATE
from vlmdsl.ir.operations.views import FIELD

__all__ = ["EXPRESSIONS"]


def _parameter(writer: Writer, node: Node) -> Math:
    name = writer.names.learned.symbol(node)
    return negated(log(name)) if writer.names.learned.is_log_scale(node) else name


def _exp(writer: Writer, node: Node) -> Math:
    inner = node.inputs[0]
    if writer.names.learned.is_log_scale(inner):
        return quotient(number(1.0), writer.names.learned.symbol(inner))
    if inner.operation is NEGATE and writer.names.learned.is_log_scale(inner.inputs[0]):
        return writer.names.learned.symbol(inner.inputs[0])
    if inner.operation is CLAMP and writer.names.learned.is_log_scale(inner.inputs[0]):
        scale = quotient(number(1.0), writer.names.learned.symbol(inner.inputs[0]))
        ends = (None if end is None else float(f"{math.exp(end):.6g}") for end in _ends(inner))
        return _between(scale, *ends)
    return ARITHMETIC[EXP](writer.expression(inner))


def _multiply(writer: Writer, node: Node) -> Math:
    if node.inputs[1].operation is SAMPLES and writer.is_mean_over(*node.inputs):
        return writer.sum_of(node.inputs[0])
    if node.inputs[0].operation is MEAN and node.inputs[1].operation is CONSTANT:
        return _mean(writer, node.inputs[0], node.inputs[1].number("value"))
    return scaled(writer, writer.expression(node.inputs[0]), node.inputs[1])


def _where(writer: Writer, node: Node) -> Math:
    condition, chosen, otherwise = (writer.expression(parent) for parent in node.inputs)
    parts = (chosen.signed(), condition.signed(), otherwise.signed())
    latex = r"{} \ \mathrm{{if}}\ {} \ \mathrm{{else}}\ {}".format(*(part[0] for part in parts))
    return bracketed(Math(latex, "{} if {} else {}".format(*(part[1] for part in parts)), SUM))


def _clamp(writer: Writer, node: Node) -> Math:
    return _between(writer.expression(node.inputs[0]), *_ends(node))


def _ends(clamp: Node) -> tuple[float | None, float | None]:
    """The lower and upper bound of a clamp; None for no bound."""
    lower, upper = (clamp.attribute(name) for name in ("lower", "upper"))
    return (
        float(lower) if isinstance(lower, int | float) else None,
        float(upper) if isinstance(upper, int | float) else None,
    )


def _between(inner: Math, lower: float | None, upper: float | None) -> Math:
    """`inner`, clamped to these bounds."""
    if lower is not None and upper is not None:
        return call("clamp", inner, number(lower), number(upper))
    if upper is not None:
        return ARITHMETIC[MINIMUM](inner, number(upper))
    return inner if lower is None else ARITHMETIC[MAXIMUM](inner, number(lower))


def _field(writer: Writer, node: Node) -> Math:
    return writer.names.source(node)


def _distribution_of(writer: Writer, node: Node, index: str) -> Math:
    """The distribution of sample `index`, as the softmax of its features."""
    if node.operation is STOP:
        return call("sg", _distribution_of(writer, node.inputs[0], index))
    features, temperature = writer.names.feature(node.inputs[0], index), node.number("temperature")
    inner = features if temperature == 1.0 else quotient(features, number(temperature))
    return call("softmax", inner)


def _entropy(writer: Writer, node: Node) -> Math:
    writer.names.state("values", _CROSS_ENTROPY)
    return call("H", *(_distribution_of(writer, parent, "i") for parent in node.inputs), latex="H")


def _entropy_of_mean(writer: Writer, node: Node) -> Math:
    writer.names.state("values", _CROSS_ENTROPY)
    mean = writer.mean(_distribution_of(writer, node.inputs[0], "i"), 1.0, None)
    return call("H", mean, mean, latex="H")


_CROSS_ENTROPY = Math(r"H(p, q) = -\sum_k p_k \log q_k", "H(p, q) = -Σ_k p_k log q_k")


def _samples(writer: Writer, node: Node) -> Math:
    return writer.size(node.inputs[0] if node.inputs else None)


def _score(writer: Writer, node: Node) -> Math:
    return writer.entry(node, "i", "i", "rows")


def _running_mean(writer: Writer, node: Node) -> Math:
    return writer.running_mean(node)


def _mean(writer: Writer, node: Node, coefficient: float = 1.0) -> Math:
    over = node.inputs[1] if len(node.inputs) == 2 else None
    return writer.mean(writer.expression(node.inputs[0]), coefficient, over)


EXPRESSIONS: dict[str, Callable[[Writer, Node], Math]] = {
    CONSTANT: lambda writer, node: number(node.number("value")),
    PARAMETER: _parameter,
    EXP: _exp,
    MULTIPLY: _multiply,
    WHERE: _where,
    CLAMP: _clamp,
    SCALAR: lambda writer, node: from_outside(writer.names.state, node),
    DRAW: lambda writer, node: drawn(writer.names.state, node),
    RAMP: lambda writer, node: following(writer.names.state, node),
    FIELD: _field,
    SCORE: _score,
    MEAN: _mean,
    SAMPLES: _samples,
    RUNNING_MEAN: _running_mean,
    LOOKUP: looked_up,
    RUNNING_MEANS: running_means,
    STATE: lambda writer, node: writer.running_mean(writer.names.updated(node)),
    LOG_SUM_EXP: log_sum_exp,
    ROW_SUM: row_sum,
    ROW_MEAN: row_mean,
    CROSS_ENTROPY: cross_entropy,
    HINGE: hinge,
    ENTROPY: _entropy,
    ENTROPY_OF_MEAN: _entropy_of_mean,
    TOKEN_LOSS: token_loss,
    DISTILL: distill,
    TARGET_ENTROPY: target_entropy,
    SIGMOID_LOSS: sigmoid_loss,
    CONTRAST: lambda writer, node: writer.contrast(node),
    MINE: picks,
    HARDEST: picks,
    PICKED: is_other,
    MATCHED: matched,
    MATCHING: matching,
    OWN: own,
    RECONSTRUCT: reconstruct,
    ASSIGNMENT: assignment,
    SEGMENT_MEAN: segment_mean,
    ASSIGNMENT_DIVERGENCE: assignment_divergence,
    FETCH: lambda writer, node: call("take", *map(writer.expression, node.inputs)),
    **GROUNDING,
}
"""Operations whose formula needs more than those of their inputs."""
