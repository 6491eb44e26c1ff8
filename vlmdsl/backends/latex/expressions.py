"""Scalars, per-sample scores and losses as mathematics: a rule an operation, for sample i.

An operation that has no rule is written as a function of its inputs, so a formula is never wrong by leaving something out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from vlmdsl.backends.latex.draws import drawn
from vlmdsl.backends.latex.notation import (
    PRODUCT,
    SUM,
    Math,
    bracketed,
    call,
    fraction,
    infix,
    log,
    negated,
    number,
    product,
    quotient,
    sum_over,
    total,
    under,
    words,
)
from vlmdsl.ir import Node, encoder_of
from vlmdsl.types import SimType

if TYPE_CHECKING:
    from vlmdsl.backends.latex.writer import Writer

__all__ = ["ARITHMETIC", "EXPRESSIONS", "scaled"]


_NUMBER = re.compile(r"[0-9./]+")


def _times(left: Math, right: Math) -> Math:
    """Numbers stand first."""
    return product(right, left) if _NUMBER.fullmatch(right.text) else product(left, right)


def _over(left: Math, right: Math) -> Math:
    return fraction(left, right) if left.level == SUM or right.level == SUM else quotient(left, right)


ARITHMETIC: dict[str, Callable[..., Math]] = {
    "add": total,
    "subtract": lambda left, right: total(left, negated(right)),
    "multiply": _times,
    "divide": _over,
    "negate": negated,
    "exp": lambda inner: call("exp", inner, latex=r"\exp"),
    "log": log,
    "softplus": lambda inner: log(total(number(1.0), call("exp", inner, latex=r"\exp"))),
    "minimum": lambda left, right: call("min", left, right, latex=r"\min"),
    "maximum": lambda left, right: call("max", left, right, latex=r"\max"),
    "stop": lambda inner: call("sg", inner),
    "less": lambda left, right: infix("<", "<", left, right),
    "less_equal": lambda left, right: infix(r"\leq", "≤", left, right),
    "greater": lambda left, right: infix(">", ">", left, right),
    "greater_equal": lambda left, right: infix(r"\geq", "≥", left, right),
    "equal": lambda left, right: infix("=", "=", left, right),
    "not_equal": lambda left, right: infix(r"\neq", "≠", left, right),
    "not": lambda inner: call("not", inner),
}
"""Operations whose formula follows from those of their inputs; of matrices they are meant entry by entry."""


def _parameter(writer: Writer, node: Node) -> Math:
    name = writer.names.parameter(node)
    return negated(log(name)) if writer.names.is_log_scale(node) else name


def _exp(writer: Writer, node: Node) -> Math:
    inner = node.inputs[0]
    if writer.names.is_log_scale(inner):
        return quotient(number(1.0), writer.names.parameter(inner))
    if inner.operation == "negate" and writer.names.is_log_scale(inner.inputs[0]):
        return writer.names.parameter(inner.inputs[0])
    if inner.operation == "clamp" and writer.names.is_log_scale(inner.inputs[0]):
        scale = quotient(number(1.0), writer.names.parameter(inner.inputs[0]))
        ends = (None if end is None else float(f"{math.exp(end):.6g}") for end in _ends(inner))
        return _between(scale, *ends)
    return ARITHMETIC["exp"](writer.expression(inner))


def _multiply(writer: Writer, node: Node) -> Math:
    if node.inputs[1].operation == "samples" and writer.is_mean_over(*node.inputs):
        return writer.sum_of(node.inputs[0])
    if node.inputs[0].operation == "mean" and node.inputs[1].operation == "constant":
        return _mean(writer, node.inputs[0], node.inputs[1].number("value"))
    return scaled(writer, writer.expression(node.inputs[0]), node.inputs[1])


def scaled(writer: Writer, inner: Math, scale: Node) -> Math:
    """`inner` times a factor; a temperature divides, as papers write it."""
    if scale.operation == "multiply":
        return scaled(writer, scaled(writer, inner, scale.inputs[0]), scale.inputs[1])
    if scale.operation == "constant":
        value = scale.number("value")
        if value and len(f"{1 / value:.10g}") < len(f"{value:.10g}") and abs(value) > 1:
            return quotient(inner, number(1 / value))
        return ARITHMETIC["multiply"](inner, number(value))
    if scale.operation == "exp" and writer.names.is_log_scale(scale.inputs[0]):
        return quotient(inner, writer.names.parameter(scale.inputs[0]))
    if scale.operation == "divide" and scale.inputs[0].operation == "constant" and scale.inputs[0].number("value") == 1.0:
        return quotient(inner, writer.expression(scale.inputs[1]))
    return ARITHMETIC["multiply"](inner, writer.expression(scale))


def _where(writer: Writer, node: Node) -> Math:
    condition, chosen, otherwise = (writer.expression(parent) for parent in node.inputs)
    parts = (chosen.signed(), condition.signed(), otherwise.signed())
    latex = r"{} \ \mathrm{{if}}\ {} \ \mathrm{{else}}\ {}".format(*(part[0] for part in parts))
    return bracketed(Math(latex, "{} if {} else {}".format(*(part[1] for part in parts)), SUM))


def _clamp(writer: Writer, node: Node) -> Math:
    return _between(writer.expression(node.inputs[0]), *_ends(node))


def _ends(clamp: Node) -> tuple[float | None, float | None]:
    """Where a clamp cuts, below and above; None for nowhere."""
    lower, upper = (clamp.attribute(name) for name in ("lower", "upper"))
    return (
        float(lower) if isinstance(lower, int | float) else None,
        float(upper) if isinstance(upper, int | float) else None,
    )


def _between(inner: Math, lower: float | None, upper: float | None) -> Math:
    """`inner`, cut at these ends."""
    if lower is not None and upper is not None:
        return call("clamp", inner, number(lower), number(upper))
    if upper is not None:
        return ARITHMETIC["minimum"](inner, number(upper))
    return inner if lower is None else ARITHMETIC["maximum"](inner, number(lower))


def _field(writer: Writer, node: Node) -> Math:
    return writer.names.source(node)


def _distribution_of(writer: Writer, node: Node, index: str) -> Math:
    """The distribution of sample `index`, as the softmax of its features."""
    if node.operation == "stop":
        return call("sg", _distribution_of(writer, node.inputs[0], index))
    features, temperature = writer.names.feature(node.inputs[0], index), node.number("temperature")
    inner = features if temperature == 1.0 else quotient(features, number(temperature))
    return call("softmax", inner)


def _entropy(writer: Writer, node: Node) -> Math:
    writer.names.state("values", _CROSS_ENTROPY)
    return call("H", *(_distribution_of(writer, parent, "i") for parent in node.inputs), latex="H")


def _mlm(writer: Writer, node: Node) -> Math:
    """The mean over the chosen tokens; what they are is stated."""
    encode = node.inputs[0].inputs[0]
    view = encode.inputs[0]
    text, masked = writer.names.source(view.inputs[0]), writer.names.source(view)
    chosen = "the tokens that the mask chose, of all samples"
    writer.names.state("values", Math(rf"M\ {words(chosen).latex}", f"M: {chosen}"))
    tower = words(encoder_of(encode).tower)
    latex = rf"\frac{{1}}{{|M|}} \sum_{{(i,k) \in M}} -\log p_{{{tower.latex}}}({text.latex}[k] \mid {masked.latex})"
    plain = f"1/|M| Σ_(i,k)∈M -log p_{tower.text}({text.text}[k] | {masked.text})"
    return Math(latex, plain, PRODUCT)


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


def _log_sum_exp(writer: Writer, node: Node) -> Math:
    matrix = node.inputs[0]
    entry = writer.entry(matrix, "i", "j", "rows")
    among = "" if matrix.type == SimType() else "j"
    return log(sum_over("j", call("exp", entry, latex=r"\exp"), among))


def _mean(writer: Writer, node: Node, coefficient: float = 1.0) -> Math:
    over = node.inputs[1] if len(node.inputs) == 2 else None
    return writer.mean(writer.expression(node.inputs[0]), coefficient, over)


def _hinge(writer: Writer, node: Node) -> Math:
    """The mean, or the largest, of what the negatives have in excess."""
    matrix, side = node.inputs[0], node.string("along")

    def at(candidate: str) -> Math:
        row, column = ("i", candidate) if side == "rows" else (candidate, "i")
        return writer.entry(matrix, row, column, side)

    excess = call("max", number(0.0), total(number(node.number("margin")), at("j"), negated(at("i"))), latex=r"\max")
    name = {"mean": words("mean"), "hardest": Math(r"\max", "max")}[node.string("negatives")]
    return under(name, writer.candidates(matrix, but_pairs=True), excess)


EXPRESSIONS: dict[str, Callable[[Writer, Node], Math]] = {
    "constant": lambda writer, node: number(node.number("value")),
    "parameter": _parameter,
    "exp": _exp,
    "multiply": _multiply,
    "where": _where,
    "clamp": _clamp,
    "draw": lambda writer, node: drawn(writer.names, node),
    "field": _field,
    "score": _score,
    "mean": _mean,
    "samples": _samples,
    "running_mean": _running_mean,
    "log_sum_exp": _log_sum_exp,
    "cross_entropy": lambda writer, node: writer.cross_entropy(node),
    "hinge": _hinge,
    "entropy": _entropy,
    "entropy_of_mean": _entropy_of_mean,
    "mlm": _mlm,
    "target_entropy": lambda writer, node: writer.target_entropy(node),
    "sigmoid_loss": lambda writer, node: writer.sigmoid_loss(node),
    "contrast": lambda writer, node: writer.contrast(node),
}
"""Operations whose formula needs more than those of their inputs."""
