"""Sharing: one orientation for each similarity, transposes on the outside, so that equal work becomes one node.

Hash-consing merges equal nodes; these rules give equal values the same form.
"""

from __future__ import annotations

from vlmdsl.ir import Node, Program
from vlmdsl.ir.operation import Operation
from vlmdsl.ir.operations import OPERATIONS
from vlmdsl.ir.operations.matrices import EXCLUDE, EXCLUDE_PAIRS, SCORE, SIMILARITY, TRANSPOSE, UNITE
from vlmdsl.passes.fold import RULES as ALGEBRA
from vlmdsl.passes.rewriting import Candidate, Maker, Rule, rewrite
from vlmdsl.primitives.registry import registered
from vlmdsl.types import SimType, TargetType

__all__ = ["RULES", "share"]

_ONE_MATRIX = frozenset({"dot", "euclidean", "tokenmean"})
"""Similarities with f(y, x) = transpose of f(x, y) whose two directions hold the same numbers."""


def share(program: Program) -> Program:
    """The program with one orientation for every similarity and score; idempotent."""
    return rewrite(program, (*ALGEBRA, *RULES))  # with the algebra, since columns side by side are simplified apart


def _swappable(operation: Operation, by: object) -> bool:
    """Whether f(y, x) is the transpose of f(x, y); `tokenmax` swaps its two matrices, so its pair scores are left."""
    if by in _ONE_MATRIX:
        return True
    plug_in = registered().get(str(by))
    return operation is SIMILARITY and (by == "tokenmax" or (plug_in is not None and "swap" in plug_in.laws))


def _orient(make: Maker, node: Candidate) -> Node | None:
    """Keep the orientation that a recipe uses first."""
    x, y = node.inputs
    if x is y or not _swappable(node.operation, node.attributes["by"]):
        return None
    existing = make.graph.find(node.operation, y, x, **node.attributes)
    if existing is None or node.operation is SCORE:
        return existing
    return make.add("transpose", existing)


def _transpose_transpose(make: Maker, node: Candidate) -> Node | None:
    return node.inputs[0].inputs[0] if node.inputs[0].operation is TRANSPOSE else None


def _hoist(make: Maker, node: Candidate) -> Node | None:
    """f(x transposed, ...) = f(x, ...) transposed, where every matrix among the inputs is transposed."""
    matrices = [parent for parent in node.inputs if isinstance(parent.type, SimType)]
    if not isinstance(node.type, SimType) or not all(matrix.operation is TRANSPOSE for matrix in matrices):
        return None
    inputs = [parent.inputs[0] if parent in matrices else parent for parent in node.inputs]
    inner = make.copy(node, *inputs)
    return make.add("transpose", inner)


def _hoist_exclude(make: Maker, node: Candidate) -> Node | None:
    """f(exclude(x, c), ...) = exclude(f(x, ...), c): exclusion does not depend on the values."""
    for position, parent in enumerate(node.inputs):
        if parent.operation is EXCLUDE:
            inputs = [*node.inputs[:position], parent.inputs[0], *node.inputs[position + 1 :]]
            inner = make.copy(node, *inputs)
            return make.add("exclude", inner, parent.inputs[1])
    return None


def _hoist_pairs(make: Maker, node: Candidate) -> Node | None:
    """f(exclude_pairs(x), ...) = exclude_pairs(f(x, ...)), as for samples."""
    for position, parent in enumerate(node.inputs):
        if parent.operation is EXCLUDE_PAIRS:
            inputs = [*node.inputs[:position], parent.inputs[0], *node.inputs[position + 1 :]]
            return make.add("exclude_pairs", make.copy(node, *inputs))
    return None


def _pairs_once(make: Maker, node: Candidate) -> Node | None:
    return node.inputs[0] if node.inputs[0].operation is EXCLUDE_PAIRS else None


def _hoist_unite(make: Maker, node: Candidate) -> Node | None:
    """f(unite(a, b), unite(c, d)) = unite(f(a, c), f(b, d)): columns side by side do not meet."""
    united = [parent for parent in node.inputs if isinstance(parent.type, SimType | TargetType)]
    if not united or any(parent.operation is not UNITE for parent in united):
        return None
    halves = []
    for half in (0, 1):
        parts = [parent.inputs[half] if parent in united else parent for parent in node.inputs]
        kinds = {part.type for part, parent in zip(parts, node.inputs, strict=True) if parent in united}
        if len(kinds) > 1:
            return None
        halves.append(make.copy(node, *parts))
    return make.add("unite", *halves)


def _unite_left(make: Maker, node: Candidate) -> Node | None:
    """So that those of one type are of the same halves."""
    first, rest = node.inputs
    if rest.operation is not UNITE:
        return None
    middle, last = rest.inputs
    return make.add("unite", make.add("unite", first, middle), last)


def _exclude_of_memory(make: Maker, node: Candidate) -> Node | None:
    """The entries of a memory are not samples of the batch."""
    matrix = node.inputs[0]
    assert isinstance(matrix.type, SimType)
    return matrix if matrix.type.columns != matrix.type.rows and "+" not in matrix.type.columns else None


def _reuse(make: Maker, node: Candidate) -> Node | None:
    """Both directions of a similarity that has one matrix read it anyway; a transpose moves outward."""
    matrix = node.inputs[0]
    if matrix.operation is SIMILARITY and matrix.string("by") in _ONE_MATRIX:
        return matrix
    if matrix.operation is not TRANSPOSE:
        return None
    inner, which = matrix.inputs[0], "columns" if node.attributes["matrix"] == "rows" else "rows"
    return make.add("transpose", make.add("reuse", inner, matrix=which))


def _turn_cross_entropy(make: Maker, node: Candidate) -> Node | None:
    logits, target = node.inputs
    if logits.operation is not TRANSPOSE:
        return None
    turned = _turned_target(make, target)
    if turned is None:
        return None
    along = "columns" if node.attributes["along"] == "rows" else "rows"
    return make.copy(node, logits.inputs[0], turned, along=along)


def _turned_target(make: Maker, target: Node) -> Node | None:
    """The target whose rows are the columns of this one; None where it has none."""
    if not isinstance(target.type, TargetType) or target.operation.symmetric:
        return target
    if target.operation.of_matrix:
        affinity = target.inputs[0]
        turned = make.add("transpose", affinity)
        return make.copy(target, turned)
    if target.operation is UNITE or not target.inputs or target.operation.materialised:
        return None
    inputs = [_turned_target(make, parent) for parent in target.inputs]
    if any(parent is None for parent in inputs):
        return None
    parents = [parent for parent in inputs if parent is not None]
    return make.copy(target, *parents)


_ELEMENTWISE = tuple(operation for operation in OPERATIONS.values() if operation.elementwise)

RULES: tuple[Rule, ...] = (
    Rule(
        "orient",
        ("similarity", "score"),
        "similarity(y, x) = transpose(similarity(x, y)), score(y, x) = score(x, y)",
        _orient,
    ),
    Rule("unite-left", ("unite",), "unite(a, unite(b, c)) = unite(unite(a, b), c)", _unite_left),
    Rule("exclude-of-memory", ("exclude",), "a sample of the batch is not an entry of a memory", _exclude_of_memory),
    Rule("transpose-twice", ("transpose",), "transpose(transpose(x)) = x", _transpose_transpose),
    Rule(
        "hoist-unite",
        (*_ELEMENTWISE, "reuse", "exclude"),
        "f(unite(a, b)) = unite(f(a), f(b)) for elementwise f",
        _hoist_unite,
    ),
    Rule(
        "hoist-exclude",
        (*_ELEMENTWISE, "reuse", "exclude_pairs"),
        "f(exclude(x, c)) = exclude(f(x), c) for elementwise f",
        _hoist_exclude,
    ),
    Rule(
        "hoist-exclude-pairs",
        (*_ELEMENTWISE, "reuse"),
        "f(exclude_pairs(x)) = exclude_pairs(f(x)) for elementwise f",
        _hoist_pairs,
    ),
    Rule("reuse", ("reuse",), "reuse(transpose(x)) = transpose(reuse(x)), of one matrix both directions read it", _reuse),
    Rule("exclude-pairs-once", ("exclude_pairs",), "a pair that is excluded stays so", _pairs_once),
    Rule(
        "hoist-transpose",
        (*_ELEMENTWISE, "exclude", "exclude_pairs"),
        "f(transpose(x)) = transpose(f(x)) for elementwise f",
        _hoist,
    ),
    Rule(
        "turn-cross-entropy",
        ("cross_entropy", "target_entropy"),
        "along the rows of transpose(x) for T = along the columns of x for T transposed",
        _turn_cross_entropy,
    ),
)
"""The table of this pass."""
