"""The choice of how each operation on the pair grid runs, with its reason and what was rejected."""

from __future__ import annotations

from dataclasses import dataclass

from vlmdsl.ir import Node, block_of
from vlmdsl.ir.operations.contrast import CONTRAST
from vlmdsl.ir.operations.encoding import MIX
from vlmdsl.ir.operations.matrices import SIMILARITY, TRANSPOSE, UNITE
from vlmdsl.ir.operations.mining import FETCH, HARDEST, MINE
from vlmdsl.ir.operations.state import NEAREST
from vlmdsl.ir.operations.targets import SOFTMAX, TRANSPORT
from vlmdsl.passes.cost import Cost
from vlmdsl.passes.fuse import contrast_of

__all__ = ["DENSE_BUDGET", "Lowering", "lowering_of"]

DENSE_BUDGET = 2**30
"""Bytes that matrices of the size of the pair grid may take before a form that never makes them would be preferred."""

_NOT_BUILT = "not built in this version"


@dataclass(frozen=True, slots=True)
class Lowering:
    """How an operation runs: `name`, `reason`, and the rejected alternatives with theirs."""

    name: str
    reason: str
    rejected: tuple[tuple[str, str], ...]


def lowering_of(node: Node, cost: Cost) -> Lowering:
    """The lowering of a node on the pair grid: `dense`, its similarity matrix is made, or `chunked`, a part at a time."""
    if node.operation is NEAREST:
        return Lowering("chunked", "only the largest product of a row is wanted", (("kernel", _NOT_BUILT),))
    size = cost.stored + cost.transient
    fits = size <= DENSE_BUDGET
    rejected = [("tiled", f"{_NOT_BUILT}; {'no need, the matrix fits the budget' if fits else 'it would need no matrix'}")]
    rejected.append(("kernel", _NOT_BUILT))
    return Lowering("dense", _reason(node, fits), tuple(rejected))


def _reason(node: Node, fits: bool) -> str:
    if node.operation is CONTRAST:
        how = (
            "one product, both directions' log-sum-exp from it" if contrast_of(node).fused else "reads the matrix made above"
        )
    elif node.operation is SIMILARITY:
        how = "the matrix is made once for all its readers"
    elif node.operation in (SOFTMAX, TRANSPORT):
        how = "a target: made once for each direction, without gradient"
    elif node.operation is MIX:
        how = (
            "processes exchange the samples of blocks that two of them share"
            if block_of(node)
            else "each process exchanges its samples with one other"
        )
    elif node.operation in (MINE, HARDEST):
        how = "picks are made from a copy of the matrix, without gradient"
    elif node.operation is FETCH:
        how = "the picked samples are exchanged, not the batch"
    elif node.operation in (UNITE, TRANSPOSE):
        how = "a copy, made once for all its readers"
    else:
        how = "not a contrastive region: differentiated as written"
    return how if fits else f"{how}; over the budget of {DENSE_BUDGET // 2**20} MiB, but there is no other form yet"
