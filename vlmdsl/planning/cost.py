"""Costs of the operations of an objective: matrix products, memory, communication. By formula, not measured.

One *unit* is one product over this process's part of the similarity matrix, 2 b B D FLOP for b = B / world rows. The
matrices of the objective have b B entries of s bytes. Lowered densely, a region costs

    products   1 unit forward, and 1 unit backward for each side that learns
    memory     Z, b B s bytes, kept from forward to backward; H = dL/dZ, made backward in float32, while Z is there, and with
               it the first gradient of features (what else is kept: `memory.py`)
    traffic    6 b B s bytes: write Z, read it for the statistics, read it for H, write H, read H for dX and for dY
    exchange   gather Y (B D s), scatter dY (B D s), join the statistics of the columns (4 vectors of B floats)

The bytes of an exchange are what one process receives: (W-1)/W of a gathered or scattered whole, twice that of a reduced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vlmdsl.ir import Contrast, Node, TargetPart, block_of, exchange_counts, learns, whole_blocks
from vlmdsl.ir.operations.contrast import CONTRAST
from vlmdsl.ir.operations.encoding import MIX
from vlmdsl.ir.operations.matrices import SIMILARITY, TRANSPOSE, UNITE
from vlmdsl.ir.operations.mining import FETCH, HARDEST, MINE, fetches_input
from vlmdsl.ir.operations.scalars import MULTIPLY
from vlmdsl.ir.operations.state import ENQUEUE, MEMORY, NEAREST
from vlmdsl.ir.operations.targets import SOFTMAX, TRANSPORT
from vlmdsl.passes.fuse import contrast_of
from vlmdsl.planning.workload import Workload, picks_per_sample
from vlmdsl.types import FieldType, InputsType, SimType, TokensType, VecType

__all__ = ["ITS_GRADIENT", "SECOND_STREAM", "Collective", "Cost", "cost_of"]

_FLOAT = 4
_INDEX = 8
_WORKING = 4
"""Matrices that computing two soft targets takes besides them: the affinity, its logarithm, and that of the previous
iteration."""
SECOND_STREAM, ITS_GRADIENT = "the second stream", "its gradient"
"""The communication of an operation that compares with the features of all processes; once per set of features."""
_CHUNK_NUMBERS = 2**24
"""The maximum number of similarities to a memory that a neighbour search holds at a time."""


@dataclass(frozen=True, slots=True)
class Collective:
    """One exchange: what kind, of what, and the bytes that each process receives."""

    kind: str
    what: str
    received: int


@dataclass(frozen=True, slots=True)
class Cost:
    """Costs on one process: `forward` and `backward` in units; `stored` lives from forward to backward, `transient` is the
    most that is needed besides at one time, `moved` the traffic of matrices of the size of the similarity matrix. Bytes.

    `before` is what a search needs, which reads features only: the compiler moves it before everything that is saved.
    """

    forward: float
    backward: float
    stored: int
    transient: int
    moved: int
    collectives: tuple[Collective, ...] = ()
    before: int = 0


def cost_of(node: Node, workload: Workload) -> Cost | None:
    """The cost of a node that works on similarity matrices; None for other nodes."""
    rule = _COSTS.get(node.operation)
    if rule is None and node.operation.criterion:
        rule = _criterion
    elif rule is None and node.operation.materialised:
        rule = _materialised
    return None if rule is None else rule(node, workload)


def _similarity(node: Node, world: Workload) -> Cost:
    """One product, and one more for each side that learns; for tokens see `_tokenmax`."""
    x, y = node.inputs
    by = node.string("by")
    if y.operation is MEMORY:
        return _against_memory(x, y, world)
    if by == "tokenmax":
        return _tokenmax(node, world)
    # `tokenmean` is the product of mean tokens, so it is one unit like any product of pooled features.
    gathered = world.tokens(y) if by == "tokenmean" else 1
    backward = float(learns([x])) + float(learns([y]))
    matrix = world.entries * world.item
    stored, transient = (matrix, 0) if backward else (0, matrix)
    return Cost(1.0, backward, stored, transient, round((1 + backward) * matrix), _gather(y, gathered, world))


def _against_memory(x: Node, memory: Node, world: Workload) -> Cost:
    """This process's samples against the entries of a memory, which every process holds: Q/B units, nothing exchanged."""
    size = memory.number("size")
    matrix = round(world.batch // world.world * size) * world.item
    if not learns([x]):
        return Cost(size / world.batch, 0.0, 0, matrix, matrix)
    return Cost(size / world.batch, size / world.batch, matrix, 0, 2 * matrix)


def _nearest(node: Node, world: Workload) -> Cost | None:
    """A search that compares by products makes the similarities to a memory a few at a time: nothing is kept."""
    vectors, memory = node.inputs[:2]
    if not isinstance(vectors.type, VecType):
        return None
    matrix = round(world.batch // world.world * memory.number("size")) * world.item
    searched = min(matrix, _CHUNK_NUMBERS * world.item)
    return Cost(memory.number("size") / world.batch, 0.0, 0, 0, 2 * matrix, before=searched)


def _tokenmax(node: Node, world: Workload) -> Cost:
    """All pairs of tokens: P L units forward and as many for each side that learns. The similarities of all pairs of tokens
    are made, masked and forgotten, those of the gradient made for each direction and added; the winners (an index for each
    token of each pair) and both matrices stay. To choose tokens by their best match the products are made once more."""
    x, y = node.inputs
    p, q = world.tokens(x), world.tokens(y)
    arguments = node.attribute("arguments")
    assert isinstance(arguments, tuple)
    chosen_by = dict(arguments).get("rank", "best") if arguments else "none"
    choosing = {"none": 0.0, "partner": p * q / world.batch, "best": p * q}[chosen_by]
    pairs = world.entries * p * q * world.item
    stored = world.entries * ((p + q) * _INDEX + 2 * max(world.item, _FLOAT))
    backward = p * q * (float(learns([x])) + float(learns([y])))
    return Cost(p * q + choosing, backward, stored, 3 * pairs, 8 * pairs, _gather(y, q, world))


def _gather(y: Node, tokens: int, world: Workload) -> tuple[Collective, ...]:
    if world.world == 1:
        return ()
    whole = world.batch * tokens * world.dim * world.item
    gather = Collective("all-gather", SECOND_STREAM, world.received(whole))
    if not learns([y]):
        return (gather,)
    return gather, Collective("reduce-scatter", ITS_GRADIENT, world.received(whole))


def _contrast(node: Node, world: Workload) -> Cost:
    """A region: its own product if it is fused, statistics of both directions, targets from sums of features."""
    contrast = contrast_of(node)
    matrix = world.entries * world.item
    gradient = world.entries * max(world.item, _FLOAT)
    collectives = _statistics(contrast, world) + _targets(node, contrast, world)
    if not contrast.fused:
        return Cost(0.0, 0.0, 0, gradient, 3 * matrix, collectives)
    x, y = node.inputs[:2]
    backward = float(learns([x])) + float(learns([y]))
    features = world.batch // world.world * world.dim * max(world.item, _FLOAT)
    directions = [direction for direction in (contrast.rows, contrast.columns) if direction is not None]
    classes = sum(part.kind == "same" for direction in directions for part in direction.targets)
    return Cost(
        1.0,
        backward,
        matrix + 2 * classes * features,  # the sums of classes, and each sample's own
        gradient + (features if backward > 1 else 0),
        round((4 + backward) * matrix),
        _gather(y, 1, world) + collectives,
    )


def _statistics(contrast: Contrast, world: Workload) -> tuple[Collective, ...]:
    if contrast.columns is None or world.world == 1:
        return ()
    return (Collective("all-reduce", "statistics of the columns", world.received(4 * world.batch * _FLOAT, reduced=True)),)


def _targets(node: Node, contrast: Contrast, world: Workload) -> tuple[Collective, ...]:
    """Sums of features over the batch or over classes, one way forward and one backward."""
    if world.world == 1:
        return ()
    collectives: list[Collective] = []
    for direction in (contrast.rows, contrast.columns):
        for part in () if direction is None else direction.targets:
            collectives.extend(_target(part, contrast.fused, world))
    return tuple(collectives)


def _target(part: TargetPart, fused: bool, world: Workload) -> list[Collective]:
    row = world.dim * _FLOAT
    if part.kind == "same":
        labels = Collective("all-gather", "labels", world.received(world.batch * _INDEX))
        sums = Collective("all-reduce", "sums of classes", world.received(2 * (world.batch + 1) * row, reduced=True))
        return [labels, sums] if fused else [labels]
    if part.kind in ("uniform", "others") and fused:
        return [Collective("all-reduce", "sums of features", world.received(2 * row, reduced=True))]
    return []


def _criterion(node: Node, world: Workload) -> Cost:
    """A criterion that is not part of a region, differentiated as it stands: compiled, it makes the gradient of its logits
    from the matrix that they are made of."""
    matrix = node.inputs[0].type
    assert isinstance(matrix, SimType)
    kept = world.entries_of(matrix) * max(world.item, _FLOAT)
    return Cost(0.0, 0.0, 0, kept, 3 * kept)


def _product(node: Node, world: Workload) -> Cost | None:
    """Both matrices are kept for the gradient of the other."""
    if not isinstance(node.type, SimType) or not all(parent.type == node.type for parent in node.inputs):
        return None
    kept = world.entries_of(node.type) * max(world.item, _FLOAT)
    return Cost(0.0, 0.0, kept, kept, 5 * kept)


def _unite(node: Node, world: Workload) -> Cost | None:
    """A copy of both matrices, and their gradients out of that of the copy; targets are made where they are needed."""
    if not isinstance(node.type, SimType):
        return None
    kept = world.entries_of(node.type) * max(world.item, _FLOAT)
    return Cost(0.0, 0.0, kept, 0, 4 * kept)


def _transpose(node: Node, world: Workload) -> Cost | None:
    """Free on one process; on several they exchange the blocks that they hold of each other's columns."""
    if world.world == 1:
        return None
    own = world.entries * world.item
    collectives = [Collective("all-to-all", "the matrix, transposed", world.received(own))]
    if learns([node]):
        collectives.append(Collective("all-to-all", "its gradient", world.received(own)))
    return Cost(0.0, 0.0, own, own, 4 * own, tuple(collectives))


def _mix(node: Node, world: Workload) -> Cost | None:
    """Features change places with those of other processes; images too, but their size is not known here."""
    share, block = world.batch // world.world, block_of(node)
    if whole_blocks(share, world.world, block) or not isinstance(node.type, VecType):
        return None
    leaving = max(share - exchange_counts(process, world.world, share, block)[process] for process in range(world.world))
    exchanged, own = (number * world.dim * world.item for number in (leaving, share))
    collectives = [Collective("all-to-all", "the partners' features", exchanged)]
    if learns([node.inputs[0]]):
        collectives.append(Collective("all-to-all", "their gradient", exchanged))
    return Cost(0.0, 0.0, own, 0, 0, tuple(collectives))


def _mined(node: Node, world: Workload) -> Cost:
    """Passes over the matrix, a few more for each pick; along columns processes exchange the blocks that they hold of each
    other's. Nothing is kept."""
    matrix = node.inputs[0].type
    assert isinstance(matrix, SimType)
    kept = world.entries_of(matrix) * max(world.item, _FLOAT)
    exchanged = world.world > 1 and node.string("along") == "columns"
    collectives = (Collective("all-to-all", "the matrix, transposed", world.received(kept)),) if exchanged else ()
    return Cost(0.0, 0.0, 0, 3 * kept, (4 + 4 * picks_per_sample(node)) * kept, collectives)


def _fetch(node: Node, world: Workload) -> Cost | None:
    """Features of the picked samples, which come from the process that holds them, and their gradients go back there: so
    much of them as other processes hold, if all are as likely."""
    share, picks = world.batch // world.world, node.inputs[1]
    if fetches_input(node):
        assert isinstance(node.type, FieldType)
        fetched = share * world.input_bytes(node.type.kind)
    elif isinstance(node.type, VecType | TokensType):
        fetched = share * world.tokens(node) * world.dim * world.item
    else:
        return None
    if world.world == 1:
        return Cost(0.0, 0.0, fetched, 0, 2 * fetched)
    indices = world.batch * picks_per_sample(picks) * _INDEX
    requests = Collective("all-gather", "which samples are picked", world.received(indices))
    collectives = [requests, Collective("all-to-all", "the picked samples", world.received(fetched))]
    if learns([node.inputs[0]]):
        collectives += [requests, Collective("all-to-all", "their gradient", world.received(fetched))]
    return Cost(0.0, 0.0, fetched, fetched, 4 * fetched, tuple(collectives))


def _enqueue(node: Node, world: Workload) -> Cost | None:
    """Kept inputs, which all processes exchange."""
    kept = node.type
    if not isinstance(kept, InputsType):
        return None
    entering = world.batch * world.input_bytes(kept.kind)
    exchanged = (Collective("all-gather", "what enters the queue", world.received(entering)),) if world.world > 1 else ()
    return Cost(0.0, 0.0, 0, entering, 2 * entering, exchanged)


def _softmax(node: Node, world: Workload) -> Cost:
    """The target of each direction, and the statistics of its columns joined over processes; nothing is differentiated."""
    return _soft_target(1, node, world)


def _transport(node: Node, world: Workload) -> Cost:
    """As a softmax along rows and along columns in each iteration, and a last one."""
    return _soft_target(2 * int(node.number("iterations")) + 1, node, world)


def _materialised(node: Node, world: Workload) -> Cost:
    """A target of a plug-in: weights of all pairs, and a matrix for each direction, which needs the sums of columns."""
    received = world.received(world.batch * _FLOAT, reduced=True)
    collectives = (Collective("all-reduce", "sums of the columns", received),) if world.world > 1 else ()
    matrix = world.entries * _FLOAT
    return Cost(0.0, 0.0, 2 * matrix, matrix, 4 * matrix, collectives)


def _soft_target(steps: int, node: Node, world: Workload) -> Cost:
    """Two targets of so many steps each, half of which exchange two vectors: the largest entries and the sums."""
    affinity = node.inputs[0].type
    assert isinstance(affinity, SimType)
    kept = world.entries_of(affinity) * _FLOAT
    received = world.received(steps * 2 * world.batch * _FLOAT, reduced=True)
    collectives = (Collective("all-reduce", "statistics of the columns", received),) if world.world > 1 else ()
    return Cost(0.0, 0.0, 2 * kept, _WORKING * kept, 2 * steps * 3 * kept, collectives)


_COSTS: dict[str, Callable[[Node, Workload], Cost | None]] = {
    MIX: _mix,
    NEAREST: _nearest,
    MINE: _mined,
    HARDEST: _mined,
    FETCH: _fetch,
    ENQUEUE: _enqueue,
    MULTIPLY: _product,
    UNITE: _unite,
    TRANSPOSE: _transpose,
    SOFTMAX: _softmax,
    TRANSPORT: _transport,
    SIMILARITY: _similarity,
    CONTRAST: _contrast,
}
"""Costs of operations that work on similarity matrices. Others follow from traits (`cost_of`) or cost nothing."""
