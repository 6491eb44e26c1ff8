"""Cost of the same objective as usually written by hand in plain torch, not compiled. By formula, not measured.

Every matrix is computed where it is read, and torch saves what each operation needs for its backward pass. Such losses are
in `benchmarks/hand_written.py`; `benchmarks/plan_memory.py` measures their peaks, which a test compares with these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from vlmdsl.ir import Node, Program, learns, walk
from vlmdsl.ir.operations.contrast import CONTRAST
from vlmdsl.ir.operations.matrices import SCORE, SIMILARITY
from vlmdsl.ir.operations.reductions import SIGMOID_LOSS, TARGET_ENTROPY
from vlmdsl.ir.operations.state import MEMORY, NEAREST
from vlmdsl.ir.operations.targets import PAIRED, SOFTMAX, TRANSPORT
from vlmdsl.passes.fuse import contrast_of
from vlmdsl.planning.cost import Collective, Cost, cost_of
from vlmdsl.planning.linear import predictions
from vlmdsl.planning.memory import features_kept
from vlmdsl.planning.workload import ITEM_BYTES, Workload, seen_by
from vlmdsl.types import VecType

__all__ = ["HandWritten", "hand_written"]

_FLOAT = ITEM_BYTES["float32"]
_INDEX = 8
_NOTHING = Cost(0.0, 0.0, 0, 0, 0)


class HandWritten(NamedTuple):
    """Totals of one process: products in units and FLOP; saved activations, peak, traffic and exchange in bytes."""

    units: float
    flops: int
    stored: int
    peak: int
    moved: int
    received: int


def hand_written(program: Program, workload: Workload) -> HandWritten | None:
    """The cost of the usual hand-written form of a program; None if an operation has no such form."""
    costs: list[tuple[Cost, int]] = []
    for node in program.nodes():
        if cost_of(node, workload) is not None:
            seen, rule = seen_by(node, workload), _RULES.get(node.operation)
            cost = None if rule is None else rule(node, seen)
            if cost is None:
                return None
            costs.append((cost, seen.unit))
    if not costs:
        return None
    logits, kept = _logits(program, workload), features_kept(program, workload) + _scored(program, workload)
    peak = 0
    for cost, _ in costs:  # forward in this order, backward in reverse: later tensors are freed by then
        kept += cost.stored
        peak = max(peak, kept + cost.transient)
    return HandWritten(
        units=sum(cost.forward + cost.backward for cost, _ in costs),
        flops=sum(round((cost.forward + cost.backward) * unit) for cost, unit in costs),
        stored=kept + logits,
        peak=max(peak, kept + 3 * logits),
        moved=sum(cost.moved for cost, _ in costs),
        received=sum(exchange.received for cost, _ in costs for exchange in cost.collectives),
    )


def _logits(program: Program, workload: Workload) -> int:
    """The log-softmax of all predicted tokens; the backward pass adds its gradient and that of the logits."""
    return sum(rows * entries for _, _, rows, entries in predictions(program, workload)) * _FLOAT


def _scored(program: Program, workload: Workload) -> int:
    """Saved activations of scores per sample: both vectors or their product."""
    size = 0
    for node in program.nodes():
        if node.operation is SCORE and learns([node]):
            seen = seen_by(node, workload)
            size += seen.batch // seen.world * seen.tokens(node.inputs[0]) * seen.dim * seen.item
    return size


def _contrast(node: Node, world: Workload) -> Cost | None:
    """Each direction computes its logits and a cross-entropy, which saves a log-softmax in float32.

    A product keeps the scaled features too where the other side learns; both feature matrices are gathered, both
    gradients scattered. A target that is a matrix is multiplied by the log-softmax, and by its own logarithm.
    """
    region, matrices = contrast_of(node), world.entries * world.item
    directions = [direction for direction in (region.rows, region.columns) if direction is not None]
    kinds = {part.kind for direction in directions for part in direction.targets}
    if "same" in kinds:
        return None
    count = len(directions)
    stored, moved = count * world.entries * _FLOAT, count * (6 * matrices + 4 * world.entries * _FLOAT)
    transient = max(2 * matrices, 3 * world.entries * _FLOAT if "dense" in kinds else 0)
    if not region.fused and not _is_product(node.inputs[0]):
        return Cost(0.0, 0.0, stored, transient, moved)
    x, y = node.inputs[:2] if region.fused else node.inputs[0].inputs
    learning, whole = [learns([side]) for side in (x, y)], world.batch * world.dim * world.item
    scaled = sum(learning) if count > 1 else learning[1]
    stored += scaled * whole // world.world + (whole if world.world > 1 and count > 1 else 0)
    return Cost(float(count), float(count * sum(learning)), stored, transient, moved, _exchange(whole, world))


def _is_product(matrix: Node) -> bool:
    """Whether a matrix is a product of pooled features of the batch."""
    if matrix.operation is not SIMILARITY or matrix.inputs[1].operation is MEMORY:
        return False
    return matrix.string("by") == "dot" and isinstance(matrix.inputs[0].type, VecType)


def _exchange(whole: int, world: Workload) -> tuple[Collective, ...]:
    if world.world == 1:
        return ()
    return (
        Collective("all-gather", "both features", world.received(2 * whole)),
        Collective("reduce-scatter", "both gradients", world.received(2 * whole)),
    )


def _similarity(node: Node, world: Workload) -> Cost | None:
    """Each reader computes the product, unless nothing is differentiated; all pairs of tokens by `einsum`.

    The result is masked; the maxima of rows and columns save their indices, and the backward pass adds both gradients.
    """
    if node.string("by") == "tokenmax":
        x, y = node.inputs
        p, q = world.tokens(x), world.tokens(y)
        if node.attribute("arguments") or not learns([x]) or not learns([y]):
            return None
        pairs = world.entries * p * q
        stored = world.entries * (p + q) * _INDEX
        exchange = _exchange(world.batch * q * world.dim * world.item, world)
        return Cost(p * q, 2.0 * p * q, stored, 2 * pairs * world.item, 15 * pairs * world.item, exchange)
    if not _is_product(node):
        return None
    matrix = world.entries * world.item
    return _NOTHING if learns([node]) else Cost(1.0, 0.0, 0, matrix, 2 * matrix)


def _sigmoid_loss(node: Node, world: Workload) -> Cost | None:
    """A product, scaled and shifted; a matrix of labels of 1 and -1, its product with the logits, and what the logarithm of
    the sigmoid keeps. Everything is a pass over a matrix of its own."""
    product = next((matrix for matrix in walk([node.inputs[0]]) if matrix.operation is SIMILARITY), None)
    if product is None or not _is_product(product) or node.inputs[1].operation is not PAIRED:
        return None
    size, whole = world.entries * world.item, world.batch * world.dim * world.item
    learning = [learns([side]) for side in product.inputs]
    stored = 3 * size + learning[1] * whole // world.world
    return Cost(1.0, float(sum(learning)), stored, 2 * size, 27 * size, _exchange(whole, world))


def _transport(node: Node, world: Workload) -> Cost:
    """Sinkhorn's algorithm on a kernel, by products of it with vectors, for each direction."""
    matrix, iterations = world.entries * _FLOAT, int(node.number("iterations"))
    return Cost(0.0, 0.0, 2 * matrix, 4 * matrix, 2 * (9 + 2 * iterations) * matrix)


def _softmax(node: Node, world: Workload) -> Cost:
    """One for each direction."""
    matrix = world.entries * _FLOAT
    return Cost(0.0, 0.0, 2 * matrix, matrix, 4 * matrix)


def _nearest(node: Node, world: Workload) -> Cost | None:
    """The whole matrix of similarities to the queue, and the largest of each row."""
    vectors, memory = node.inputs[:2]
    if not isinstance(vectors.type, VecType):
        return None
    matrix = round(world.batch // world.world * memory.number("size")) * world.item
    return Cost(memory.number("size") / world.batch, 0.0, 0, matrix, 2 * matrix)


_RULES: dict[str, Callable[[Node, Workload], Cost | None]] = {
    CONTRAST: _contrast,
    SIMILARITY: _similarity,
    SIGMOID_LOSS: _sigmoid_loss,
    TRANSPORT: _transport,
    SOFTMAX: _softmax,
    TARGET_ENTROPY: lambda node, world: _NOTHING,  # part of the divergence that the cross-entropy is of
    NEAREST: _nearest,
}
"""Operations that have a usual hand-written form."""
