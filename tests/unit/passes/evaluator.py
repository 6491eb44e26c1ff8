"""A plain float64 evaluator of programs, written from the table of operations and the formula of `ir/contrast.py`.

What stands behind `stop` is computed in a second environment of its own, so two programs that agree on all pairs of
environments have the same value and the same gradient.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from vlmdsl.ir import OUTPUTS, Contrast, Direction, Node, Program, TargetPart, encoder_of, root_field, walk
from vlmdsl.ir.operations.rules import of_samples
from vlmdsl.types import ConditionType, FieldType, SimType

Array = np.ndarray
SAMPLES, DIMENSION, TOKENS = 6, 5, 4


@dataclass(frozen=True)
class Matrices:
    """A similarity in both directions: `rows[i, j]` of row i, `columns[j, i]` of column j; who is a candidate in them.

    `allowed` is of the rows. Of columns side by side there is no column direction.
    """

    rows: Array
    columns: Array
    candidates: Array = field(default_factory=lambda: np.ones(SAMPLES, dtype=bool))
    allowed: Array = field(default_factory=lambda: np.ones((SAMPLES, SAMPLES), dtype=bool))

    def candidates_along(self, along: str) -> Array:
        """Which entries are candidates of a row, or of a column."""
        samples = self.candidates if self.allowed.shape[1] == SAMPLES else True  # else they are left out of `allowed`
        return samples & (self.allowed if along == "rows" else self.allowed.T)


def term_values(program: Program, seed: int) -> dict[str, float]:
    """The value of every term for random inputs; equal names, fields and towers get equal inputs in every program."""
    return {term.name: float(_evaluate(term.node, seed)) for term in program.terms}


def _evaluate(root: Node, seed: int, outer: int | None = None) -> object:
    """The value of a node; `outer` is the environment outside of every `stop`. Conditions have no gradient to stop."""
    outer = seed if outer is None else outer
    values: dict[int, object] = {}
    for node in walk([root]):
        if node.operation == "stop":
            values[node.index] = _evaluate(node.inputs[0], seed + 7919, outer)
        elif isinstance(node.type, ConditionType) and node is not root and seed != outer:
            values[node.index] = _evaluate(node, outer)
        else:
            values[node.index] = _operation(node, [values[parent.index] for parent in node.inputs], seed)
    return values[root.index]


def _random(seed: int, *key: object) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(repr(key).encode())])


def _operation(node: Node, inputs: list, seed: int) -> object:
    name = node.operation
    if name in _ELEMENTWISE:
        return _elementwise(_ELEMENTWISE[name], inputs)
    if name in ("field", "encode", "parameter", "constant", "memory", *OUTPUTS):
        return _leaf(node, inputs, seed)
    if name == "contrast":
        return _contrast(node.attribute("contrast"), inputs)
    return _OPERATIONS[name](node, *inputs)


def _number(node: Node, seed: int) -> np.float64:
    if node.operation == "constant":
        return np.float64(node.number("value"))
    return np.float64(node.number("initial")) + _random(seed, "parameter", node.string("name")).uniform(0.1, 0.3)


def _leaf(node: Node, inputs: list, seed: int) -> object:
    if node.operation in ("constant", "parameter"):
        return _number(node, seed)
    if node.operation == "encode":
        return (root_field(node.inputs[0]).string("name"), node.inputs[0].operation, encoder_of(node))
    if node.operation in OUTPUTS:
        shape = (SAMPLES, DIMENSION) if node.operation == "pooled" else (SAMPLES, TOKENS, DIMENSION)
        return _random(seed, node.operation, inputs[0]).normal(size=shape)
    if node.operation == "memory":
        return _memory(node, seed)
    generator = _random(0 if node.type != FieldType("Number") else seed, "field", node.string("name"))
    if node.type == FieldType("Label"):
        return generator.integers(-1, 3, SAMPLES)
    return generator.uniform(size=SAMPLES) < 0.6 if node.type == FieldType("Flag") else generator.normal(size=SAMPLES)


_ELEMENTWISE: dict[str, Callable[..., Array]] = {
    "negate": np.negative, "exp": np.exp, "log": np.log, "add": np.add, "subtract": np.subtract, "multiply": np.multiply,
    "divide": np.divide, "minimum": np.minimum, "maximum": np.maximum, "less": np.less, "less_equal": np.less_equal,
    "greater": np.greater, "greater_equal": np.greater_equal, "equal": np.equal, "not_equal": np.not_equal,
    "not": np.logical_not, "and": np.logical_and, "or": np.logical_or,
}  # fmt: skip


def _elementwise(function: Callable[..., Array], inputs: list) -> object:
    if any(isinstance(value, Matrices) for value in inputs):
        rows = [value.rows if isinstance(value, Matrices) else value for value in inputs]
        columns = [value.columns if isinstance(value, Matrices) else value for value in inputs]
        candidates = np.logical_and.reduce([value.candidates for value in inputs if isinstance(value, Matrices)])
        allowed = np.logical_and.reduce([value.allowed for value in inputs if isinstance(value, Matrices)])
        return Matrices(function(*rows), function(*columns), candidates, allowed)
    if any(isinstance(value, Shares) for value in inputs):
        return Shares(*(function(*(_of(value, along) for value in inputs)) for along in ("rows", "columns")))
    return function(*inputs)


def _pair(by: str, x: Array, y: Array) -> Matrices:
    if by == "dot":
        return Matrices(x @ y.T, (x @ y.T).T)
    if by == "euclidean":
        distance = ((x[:, None] - y[None]) ** 2).sum(-1)
        return Matrices(-distance, -distance.T)
    tokens = np.einsum("ikd,jrd->ijkr", x, y)
    return Matrices(tokens.max(3).mean(2), tokens.max(2).mean(2).T)


@dataclass(frozen=True)
class Memory:
    """Entries of a memory, and which of them have been written."""

    values: Array
    written: Array


@dataclass(frozen=True)
class Shares:
    """A target whose directions differ, each with the axes of its asking samples first."""

    rows: Array
    columns: Array


def _of(target: Shares | Array, along: str) -> Array:
    return (target.rows if along == "rows" else target.columns) if isinstance(target, Shares) else target


def _plan(affinity: Matrices, epsilon: float, iterations: int) -> Shares:
    """Sinkhorn's scaling as defined: queries first, candidates last, then queries."""

    def one(logits: Array, along: str) -> Array:
        candidates = affinity.candidates_along(along)
        plan = np.where(candidates, np.exp((logits - np.nanmax(np.where(candidates, logits, -np.inf))) / epsilon), 0.0)
        for _ in range(iterations):
            plan = _scaled(_scaled(plan, 1), 0)
        return _scaled(plan, 1)

    rows = one(affinity.rows, "rows")
    square = rows.shape[1] == SAMPLES  # else columns stand side by side
    return Shares(rows, one(affinity.columns, "columns") if square else rows)


def _scaled(plan: Array, axis: int) -> Array:
    total = plan.sum(axis, keepdims=True)
    return np.divide(plan, total, out=np.zeros_like(plan), where=total > 0)


def _log_softmax(x: Array) -> Array:
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def _target_entropy(node: Node, logits: Matrices, target: Shares | Array) -> Array:
    candidates = logits.candidates_along(node.string("along"))
    shares = _among(_of(target, node.string("along")), candidates)
    return -np.where(shares > 0, shares * np.log(np.where(shares > 0, shares, 1.0)), 0.0).sum(1)


def _same(labels: Array, missing: int) -> Array:
    equal = (labels[:, None] == labels[None]) & (labels != missing)[:, None] | np.eye(SAMPLES, dtype=bool)
    return equal / equal.sum(1, keepdims=True)


def _smooth(target: Shares | Array, epsilon: float | Array, over: str) -> Shares | Array:
    if isinstance(target, Shares):
        return Shares(_smooth(target.rows, epsilon, over), _smooth(target.columns, epsilon, over))
    spread = np.ones((SAMPLES, SAMPLES)) / SAMPLES if over == "all" else (1 - np.eye(SAMPLES)) / (SAMPLES - 1)
    epsilon = np.reshape(epsilon, (-1, 1))  # each row is a sample's own distribution
    return (1 - epsilon) * target + epsilon * spread


def _mean(score: Array, over: Array | None = None) -> Array:
    chosen = score if over is None else score[over]
    return chosen.mean() if chosen.size else np.float64(0.0)


def _among(target: Array, candidates: Array) -> Array:
    """The target as a distribution over the candidates, as wide as they: zeros where nothing of it is left."""
    target = np.pad(target, ((0, 0), (0, candidates.shape[1] - target.shape[1])))
    kept = np.where(candidates, target, 0.0)
    whole, rest = target.sum(1, keepdims=True), kept.sum(1, keepdims=True)
    return np.divide(kept * whole, rest, out=np.zeros_like(kept), where=rest != 0)


def _losses(logits: Array, target: Array, candidates: Array, without_positive: bool) -> Array:
    """p_i r_i - sum_j P_ij A_ij over the candidates j of i; 0 for a sample without any."""
    target = _among(target, candidates)
    counted = candidates & ~np.eye(*logits.shape, dtype=bool) if without_positive else candidates
    some = counted.any(1)
    marked = np.where(counted, logits, -np.inf)
    top = np.where(some, marked.max(1), 0.0)
    normaliser = np.log(np.where(counted, np.exp(marked - top[:, None]), 0.0).sum(1) + ~some) + top
    return np.where(some, np.where(candidates, target * (normaliser[:, None] - logits), 0.0).sum(1), 0.0)


def _cross_entropy(node: Node, logits: Matrices, target: Array) -> Array:
    matrix = logits.rows if node.string("along") == "rows" else logits.columns
    target = _of(target, node.string("along"))
    return _losses(matrix, target, logits.candidates_along(node.string("along")), node.string("denominator") == "negatives")


def _unite(node: Node, x: Matrices | Array, y: Matrices | Array) -> Matrices | Array:
    if isinstance(x, Matrices):
        rows = np.hstack([x.rows, y.rows])
        return Matrices(rows, rows, allowed=np.hstack([x.candidates_along("rows"), y.candidates_along("rows")]))
    return np.hstack([_of(x, "rows"), _of(y, "rows")])


def _exclude(node: Node, x: Matrices, out: Array) -> Matrices:
    """Samples are columns of those that are the batch's, not of those that are a memory's entries."""
    if x.rows.shape[1] == SAMPLES:
        return replace(x, candidates=x.candidates & ~out)
    assert isinstance(node.type, SimType)
    kept = [~out if part == "B" else np.ones(int(part[1:]), dtype=bool) for part in node.type.columns.split("+")]
    return replace(x, allowed=x.allowed & np.concatenate(kept))


def _memory(node: Node, seed: int) -> Memory:
    """Entries of a memory; those that are not written are NaN, since nothing may read them."""
    values = _random(seed, "memory", node.string("name")).normal(size=(int(node.number("size")), DIMENSION))
    written = np.arange(len(values)) < len(values) - 2
    return Memory(np.where(written[:, None], values, np.nan), written)


def _similarity(node: Node, x: Array, y: Array | Memory) -> Matrices:
    if not isinstance(y, Memory):
        return _pair(node.string("by"), x, y)
    matrix = x @ y.values.T
    return Matrices(matrix, matrix, allowed=np.tile(y.written, (SAMPLES, 1)))


def _log_sum_exp(node: Node, logits: Matrices) -> Array:
    marked = np.where(logits.candidates_along("rows"), logits.rows, -np.inf)
    top = np.maximum(marked.max(1), -1e300)
    return np.log(np.exp(marked - top[:, None]).sum(1)) + top


def _sigmoid(node: Node, logits: Matrices, target: Array) -> Array:
    target = _of(target, "rows")
    target = np.pad(target, ((0, 0), (0, logits.rows.shape[1] - target.shape[1])))
    losses = np.logaddexp(0.0, -np.where(target > 0, 1.0, -1.0) * logits.rows)
    return np.where(logits.candidates_along("rows"), losses, 0.0).sum(1)


def _hinge(node: Node, logits: Matrices) -> Array:
    """Sample by sample: over the candidates but the pair, the mean or the largest of what they have in excess."""
    matrix = logits.rows if node.string("along") == "rows" else logits.columns
    candidates = logits.candidates_along(node.string("along"))
    reduce = np.mean if node.string("negatives") == "mean" else np.max
    losses = np.zeros(SAMPLES)
    for i in range(SAMPLES):
        others = [j for j in range(matrix.shape[1]) if j != i and candidates[i, j] and candidates[i, i]]
        if others:
            losses[i] = reduce([max(0.0, node.number("margin") + matrix[i, j] - matrix[i, i]) for j in others])
    return losses


def _partners(node: Node) -> list[int]:
    """Each block of consecutive samples backwards, the last one with those that are left."""
    size = int(dict(node.attributes).get("block", SAMPLES))
    blocks = [range(SAMPLES)[start : start + size] for start in range(0, SAMPLES, size)]
    return [sample for block in blocks for sample in reversed(block)]


def _retain(node: Node, x: Array, condition: Array) -> Array:
    """What is left out is NaN here, which shows that nothing reads it."""
    return np.where(condition.reshape(-1, *[1] * (x.ndim - 1)), x, np.nan if node.number("value") == 0.0 else 1.0)


def _weighted(node: Node, losses: Array, inputs: tuple[Array, ...]) -> Array:
    """The mean of the losses of the first two tokens of each text over the samples that count, by their weights."""
    chosen, weights = list(inputs), np.ones(SAMPLES)
    counts = chosen.pop(0) if of_samples(node).where is not None else np.ones(SAMPLES, dtype=bool)
    weights = np.where(counts, chosen.pop(0) if chosen else weights, 0.0)
    total = 2 * weights.sum()
    return np.where(counts[:, None], losses * weights[:, None], 0.0).sum() / total if total else np.float64(0.0)


def _mlm(node: Node, logits: Array, ids: None, *chosen: Array) -> Array:
    """The first two tokens of each text have been chosen; they were the first word."""
    return _weighted(node, -_log_softmax(logits[:, :2].reshape(-1, logits.shape[-1]))[:, 0].reshape(SAMPLES, 2), chosen)


def _distill(node: Node, logits: Array, teacher: Array, ids: None, *chosen: Array) -> Array:
    """Of the same tokens."""
    losses = -(np.exp(_log_softmax(teacher[:, :2])) * _log_softmax(logits[:, :2])).sum(-1)
    return _weighted(node, losses, chosen)


_OPERATIONS: dict[str, Callable[..., object]] = {
    "normalize": lambda node, x: x / (np.linalg.norm(x, axis=-1, keepdims=True) + node.number("epsilon")),
    "similarity": _similarity,
    "log_sum_exp": _log_sum_exp,
    "enqueue": lambda node, memory, *values: memory,
    "retain": _retain,
    "score": lambda node, x, y: np.diagonal(_pair(node.string("by"), x, y).rows).copy(),
    "where": lambda node, condition, x, y: np.where(condition, x, y),
    "scalar": lambda node: np.float64(_random(0, "scalar", node.string("name")).uniform(0.5, 2.0)),
    "draw": lambda node: np.float64(_random(0, "draw", node.string("name")).uniform(*sorted(node.attribute("arguments")))),
    "mix": lambda node, x, share: share * x + (1 - share) * x[_partners(node)],
    "transpose": lambda node, x: Matrices(x.columns, x.rows, x.candidates, x.allowed.T),
    "exclude_pairs": lambda node, x: replace(x, allowed=x.allowed & ~np.eye(SAMPLES, dtype=bool)),
    "unite": _unite,
    "mask": lambda node, text: text,
    "join": lambda node, image, text: image,
    "blend": lambda node, image, text, share: image,
    "token_ids": lambda node, encoded: None,
    "token_loss": _mlm,
    "distill": _distill,
    "flipped": lambda node: np.eye(SAMPLES)[_partners(node)],
    "distribution": lambda node, x: _log_softmax(x / node.number("temperature")),
    "entropy": lambda node, p, q: -(np.exp(p) * q).sum(1),
    "entropy_of_mean": lambda node, p: -(np.exp(p).mean(0) * np.log(np.exp(p).mean(0))).sum(),
    "softmax": lambda node, x: _plan(x, 1.0, 0),
    "transport": lambda node, x: _plan(x, node.number("epsilon"), int(node.number("iterations"))),
    "target_entropy": _target_entropy,
    "reuse": lambda node, x: (
        replace(x, columns=x.rows.T) if node.string("matrix") == "rows" else replace(x, rows=x.columns.T)
    ),
    "paired": lambda node: np.eye(SAMPLES),
    "same": lambda node, labels: _same(labels, int(node.number("missing"))),
    "smooth": lambda node, target, *epsilon: _smooth(target, *(epsilon or [node.number("epsilon")]), node.string("over")),
    "exclude": _exclude,
    "cross_entropy": _cross_entropy,
    "sigmoid_loss": _sigmoid,
    "hinge": _hinge,
    "row_sum": lambda node, x: np.where(x.candidates_along("rows"), x.rows, 0.0).sum(1),
    "row_mean": lambda node, x: (
        np.where(x.candidates_along("rows"), x.rows, 0.0).sum(1) / np.maximum(x.candidates_along("rows").sum(1), 1)
    ),
    "reduce_tokens": lambda node, x: x.max(1) if node.string("by") == "max" else x.mean(1),
    "gate": lambda node, x, gate: gate[:, None] * x,
    "samples": lambda node, over=None: np.float64(SAMPLES if over is None else over.sum()),
    "mean": lambda node, score, over=None: _mean(score, over),
}


def _target(part: TargetPart, inputs: list) -> Array:
    if part.kind == "paired":
        return np.eye(SAMPLES)
    if part.kind == "uniform":
        return np.ones((SAMPLES, SAMPLES)) / SAMPLES
    if part.kind == "others":
        return (1 - np.eye(SAMPLES)) / (SAMPLES - 1)
    assert part.input is not None
    return inputs[part.input] if part.kind == "dense" else _same(inputs[part.input], part.missing)


def _contrast(contrast: Contrast, inputs: list) -> Array:
    matrices = _pair("dot", inputs[0], inputs[1]) if contrast.fused else inputs[0]
    rows = _direction(contrast.rows, matrices.rows, inputs, "rows")
    return rows + _direction(contrast.columns, matrices.columns, inputs, "columns")


def _direction(direction: Direction | None, matrix: Array, inputs: list, along: str) -> Array:
    if direction is None:
        return np.float64(0.0)

    def read(position: int | None, default: float) -> Array:
        return np.float64(default) if position is None else inputs[position]

    logits = read(direction.scale, 1.0) * matrix + read(direction.bias, 0.0)
    kept = np.ones(SAMPLES, dtype=bool) if direction.keep is None else inputs[direction.keep]
    target = sum(part.coefficient * _of(_target(part, inputs), along) for part in direction.targets)
    losses = read(direction.weight, 1.0) * _losses(logits, target, np.tile(kept, (SAMPLES, 1)), direction.without_positive)
    return direction.coefficient * _mean(losses, None if direction.over is None else inputs[direction.over])
