"""Which samples of each value matter: an excluded sample is one that no term reads, in any role.

A set of samples is a union of clauses, each a set of conditions that all hold (or fail); it is at least as large as the true
one. Of a matrix and of a target there are several sets, one per role of a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

from vlmdsl.ir import Contrast, Direction, Node, Program
from vlmdsl.ir.operations.contrast import CONTRAST
from vlmdsl.ir.operations.matrices import EXCLUDE, EXCLUDE_OWN, SIMILARITY, TRANSPOSE
from vlmdsl.ir.operations.mining import FETCH, HARDEST, MINE
from vlmdsl.ir.operations.reductions import MEAN
from vlmdsl.ir.operations.rules import of_samples
from vlmdsl.ir.operations.scalars import AND, NOT, OR, WHERE
from vlmdsl.ir.operations.state import NEAREST
from vlmdsl.ir.operations.targets import SMOOTH, SOFTMAX
from vlmdsl.types import ConditionType, LossType, MemoryType, ScalarType, SimType, TargetType, Type, VectorType

__all__ = ["ALL", "NONE", "Relevance", "Samples", "relevant_samples"]

Samples: TypeAlias = frozenset[frozenset[tuple[Node, bool]]]
"""The samples that satisfy one of the clauses."""

ALL: Samples = frozenset({frozenset()})
NONE: Samples = frozenset()
_MOST_CLAUSES = 16
"""A union of more clauses than this counts as all samples."""


class Roles(NamedTuple):
    """The samples of a matrix that matter: queries and candidates, along its rows and along its columns.

    A target has queries only.
    """

    rows: Samples = NONE
    row_candidates: Samples = NONE
    columns: Samples = NONE
    column_candidates: Samples = NONE

    @property
    def transposed(self) -> Roles:
        return Roles(self.columns, self.column_candidates, self.rows, self.row_candidates)

    @property
    def left(self) -> Samples:
        """Those of the stream on the left of a similarity: queries of the rows, and candidates of the columns."""
        return _union(self.rows, self.column_candidates)

    @property
    def right(self) -> Samples:
        return _union(self.columns, self.row_candidates)


Relevance: TypeAlias = Samples | Roles
Read: TypeAlias = Iterable[tuple[Node, Relevance]]
"""What a node reads of its inputs."""


def relevant_samples(program: Program) -> dict[Node, Relevance]:
    """For each node, the samples that reach a term along a path with a gradient; unread nodes are left out.

    Conditions, the updates of state and metrics read values too, but pass no gradient on.
    """
    relevance: dict[Node, Relevance] = {term.node: ALL for term in program.terms}
    for node in reversed(program.nodes()):
        if node in relevance and not isinstance(node.type, ConditionType):
            for read, samples in _reads(node, relevance[node]):
                before = relevance.get(read)
                relevance[read] = samples if before is None else _joined(before, samples)
    return relevance


def holds(condition: Node, holding: bool = True) -> Samples:
    """The samples for which a condition holds, or fails; all for one that is the same for all samples."""
    while condition.operation is NOT:
        condition, holding = condition.inputs[0], not holding
    if condition.operation in (AND, OR):
        join = _both if (condition.operation is AND) == holding else _union
        return join(*(holds(part, holding) for part in condition.inputs))
    if condition.type == ConditionType(""):
        return ALL
    return frozenset({frozenset({(condition, holding)})})


def _union(left: Samples, right: Samples) -> Samples:
    clauses = left | right
    least = frozenset(clause for clause in clauses if not any(other < clause for other in clauses))
    return least if len(least) <= _MOST_CLAUSES else ALL


def _both(left: Samples, right: Samples) -> Samples:
    intersection = NONE
    for one in left:
        for other in right:
            clause = one | other
            if not any((condition, not holding) in clause for condition, holding in clause):
                intersection = _union(intersection, frozenset({clause}))
    return intersection


def _joined(left: Relevance, right: Relevance) -> Relevance:
    if isinstance(left, Roles) and isinstance(right, Roles):
        return Roles(*(_union(one, other) for one, other in zip(left, right, strict=True)))
    assert not isinstance(left, Roles)
    assert not isinstance(right, Roles)
    return _union(left, right)


def _everything(kind: Type) -> Relevance:
    return Roles(ALL, ALL, ALL, ALL) if isinstance(kind, SimType | TargetType) else ALL


def _reads(node: Node, relevance: Relevance) -> Read:
    """The inputs that a node reads, with the samples that it reads of each for its relevant samples."""
    rule = _RULES.get(node.operation)
    if rule is not None:
        return rule(node, relevance)
    if node.operation.samples_after:
        return _of_samples(node)
    if node.operation.criterion:
        return _criterion(node, relevance)
    if node.operation.elementwise or node.operation.per_sample:
        return _same_samples(node, relevance)
    return [(parent, _everything(parent.type)) for parent in node.inputs if not isinstance(parent.type, ConditionType)]


def _same_samples(node: Node, relevance: Relevance) -> Read:
    """Per-sample and elementwise operations; a number that all samples share is read as a whole."""
    per_step = isinstance(node.type, ScalarType | LossType)
    for parent in node.inputs:
        if isinstance(parent.type, ConditionType | MemoryType):
            continue
        shared = per_step or isinstance(parent.type, ScalarType | VectorType)
        yield parent, ALL if shared else relevance


def _where(node: Node, relevance: Relevance) -> Read:
    condition, chosen, other = node.inputs
    if isinstance(relevance, Roles) or isinstance(node.type, ScalarType):
        return _same_samples(node, relevance)
    sides = ((chosen, holds(condition)), (other, holds(condition, holding=False)))
    return [(side, ALL if isinstance(side.type, ScalarType) else _both(relevance, samples)) for side, samples in sides]


def _smooth(node: Node, relevance: Relevance) -> Read:
    """A target, and the mass that is spread of it, of the samples that ask."""
    assert isinstance(relevance, Roles)
    target, *epsilon = node.inputs
    queries = _union(relevance.rows, relevance.columns)
    return [(target, relevance), *((mass, ALL if mass.type == ScalarType() else queries) for mass in epsilon)]


def _of_samples(node: Node) -> Read:
    """A mean that can be restricted to some samples: of their weights those of these samples."""
    inputs, where, weight = of_samples(node)
    yield from ((parent, _everything(parent.type)) for parent in inputs if not isinstance(parent.type, ConditionType))
    if weight is not None:
        yield weight, ALL if where is None else holds(where)


def _mean(node: Node, relevance: Relevance) -> Read:
    return [(node.inputs[0], holds(node.inputs[1]) if len(node.inputs) == 2 else ALL)]


def _similarity(node: Node, relevance: Relevance) -> Read:
    assert isinstance(relevance, Roles)
    x, y = node.inputs
    return [(x, relevance.left)] if isinstance(y.type, MemoryType) else [(x, relevance.left), (y, relevance.right)]


def _exclude(node: Node, relevance: Relevance) -> Read:
    assert isinstance(relevance, Roles)
    kept = holds(node.inputs[1], holding=False)
    rows, columns = _both(relevance.row_candidates, kept), _both(relevance.column_candidates, kept)
    return [(node.inputs[0], Roles(relevance.rows, rows, relevance.columns, columns))]


def _exclude_own(node: Node, relevance: Relevance) -> Read:
    matrix, key, _ = node.inputs
    return [(matrix, relevance), (key, ALL)]


def _transpose(node: Node, relevance: Relevance) -> Read:
    assert isinstance(relevance, Roles)
    return [(node.inputs[0], relevance.transposed)]


def _asked(samples: Samples, along: str) -> Roles:
    return Roles(rows=samples, row_candidates=ALL) if along == "rows" else Roles(columns=samples, column_candidates=ALL)


def _criterion(node: Node, relevance: Relevance) -> Read:
    """A matrix along one direction, and its target in that direction."""
    assert not isinstance(relevance, Roles)
    roles = _asked(relevance, str(dict(node.attributes).get("along", "rows")))
    return [(parent, roles) for parent in node.inputs]


def _mined(node: Node, relevance: Relevance) -> Read:
    """The rows, or columns, of the samples that pick, and every candidate of theirs."""
    assert not isinstance(relevance, Roles)
    return [(node.inputs[0], _asked(relevance, node.string("along")))]


def _fetch(node: Node, relevance: Relevance) -> Read:
    """What may be picked, which is what is a candidate of the mined matrix; picks of the samples that read them."""
    values, picks, *_ = node.inputs
    return [(values, _candidates(picks.inputs[0])), (picks, relevance)]


def _candidates(matrix: Node) -> Samples:
    """The samples that are not excluded from a matrix everywhere."""
    kept = holds(matrix.inputs[1], holding=False) if matrix.operation is EXCLUDE else ALL
    for parent in matrix.inputs:
        kept = _both(kept, _candidates(parent)) if isinstance(parent.type, SimType) else kept
    return kept


def _nearest(node: Node, relevance: Relevance) -> Read:
    """Each sample's neighbour, of similarities to a memory or of vectors; of the memory every entry."""
    assert not isinstance(relevance, Roles)
    compared, _, own = node.inputs
    return [(compared, Roles(relevance, ALL) if isinstance(compared.type, SimType) else relevance), (own, relevance)]


def _softmax(node: Node, relevance: Relevance) -> Read:
    assert isinstance(relevance, Roles)
    return [(node.inputs[0], Roles(relevance.rows, ALL, relevance.columns, ALL))]


def _contrast(node: Node, relevance: Relevance) -> Read:
    region = node.attribute("contrast")
    assert isinstance(region, Contrast)
    roles = Roles()
    for direction, along in ((region.rows, "rows"), (region.columns, "columns")):
        if direction is None:
            continue
        over = ALL if direction.over is None else holds(node.inputs[direction.over])
        kept = ALL if direction.keep is None else holds(node.inputs[direction.keep])
        direction_roles = (
            Roles(rows=over, row_candidates=kept) if along == "rows" else Roles(columns=over, column_candidates=kept)
        )
        joined = _joined(roles, direction_roles)
        assert isinstance(joined, Roles)
        roles = joined
        yield from _of_direction(node, direction, over, along)
    if not region.fused:
        yield node.inputs[0], roles
    else:
        yield from ((node.inputs[0], roles.left), (node.inputs[1], roles.right))


def _of_direction(node: Node, direction: Direction, over: Samples, along: str) -> Read:
    for position in (direction.scale, direction.bias, direction.weight):
        if position is not None:
            yield node.inputs[position], ALL if isinstance(node.inputs[position].type, ScalarType) else over
    for part in direction.targets:
        if part.kind == "dense" and part.input is not None:
            yield node.inputs[part.input], _asked(over, along)


_RULES: dict[str, Callable[[Node, Relevance], Read]] = {
    WHERE: _where,
    MEAN: _mean,
    SIMILARITY: _similarity,
    EXCLUDE: _exclude,
    EXCLUDE_OWN: _exclude_own,
    SMOOTH: _smooth,
    TRANSPOSE: _transpose,
    SOFTMAX: _softmax,
    NEAREST: _nearest,
    MINE: _mined,
    HARDEST: _mined,
    FETCH: _fetch,
    CONTRAST: _contrast,
}
"""Operations that read only some samples of their inputs, each by a special rule; what others read follows from their
traits."""
