"""The cost of the chunked form of an operation: blocks of rows instead of a matrix, computed again in the backward pass.

    products   1 unit forward; backward 1 for the same block again, and 1 for each side that learns
    memory     a few blocks at one time, statistics of rows and columns, the gradient of y in float32, summed over blocks

By `tokenmax` the winners are kept instead, 2 bytes for each token of each pair, and no product is made again.
"""

from __future__ import annotations

from dataclasses import replace

from vlmdsl.ir import Node
from vlmdsl.ir.gradients import learns
from vlmdsl.ir.operations.reductions import SIGMOID_LOSS
from vlmdsl.planning.cost import Cost
from vlmdsl.planning.workload import Workload
from vlmdsl.types import TokensType

__all__ = ["BLOCK_NUMBERS", "chunked_cost"]

BLOCK_NUMBERS = {"cpu": 2**20, "cuda": 2**25}
"""Numbers of a block by device: 4 MiB of float32 stay in a processor's cache, 128 MiB make products that fill a GPU."""

_BLOCKS = 4
"""The blocks that exist at one time: the products, the gradients of rows and of columns, and what is summed of them."""
_TOKEN_BLOCKS = 2
"""By `tokenmax`: the products of tokens and those of candidates alone; in the backward pass the block of gradients."""
_FLOAT = 4
_WINNER = 2


def chunked_cost(node: Node, dense: Cost, world: Workload) -> Cost:
    """The cost of the chunked form of an operation whose dense form costs `dense`."""
    if node.operation is SIGMOID_LOSS:  # the similarity that it reads has the cost of the blocks
        return Cost(0.0, 0.0, 0, 0, 0)
    x, y = node.inputs[:2]
    if isinstance(x.type, TokensType):
        return _tokenmax(node, dense, world)
    learning = float(learns([x])) + float(learns([y]))
    backward = learning + 1.0 if learning else 0.0
    stored = max(dense.stored - world.entries * world.item, 0) + 4 * world.batch * _FLOAT
    transient = _transient(node, world.entries, _BLOCKS, world)
    return replace(dense, forward=1.0, backward=backward, stored=stored, transient=transient, moved=0)


def _tokenmax(node: Node, dense: Cost, world: Workload) -> Cost:
    x, y = node.inputs
    tokens = world.tokens(x), world.tokens(y)
    winners = world.entries * sum(tokens) * _WINNER
    stored = winners + 2 * world.entries * max(world.item, _FLOAT)
    transient = _transient(node, world.entries * tokens[0] * tokens[1], _TOKEN_BLOCKS, world)
    return replace(dense, stored=stored, transient=transient, moved=0)


def _transient(node: Node, numbers: int, blocks: int, world: Workload) -> int:
    """The gradients of both features, y's in float32 at least, summed block by block, and the blocks beside them."""
    x, y = node.inputs[:2]
    samples = world.batch // world.world
    gradients = samples * world.tokens(x) * world.dim * world.item if learns([x]) else 0
    gradients += world.batch * world.tokens(y) * world.dim * max(world.item, _FLOAT) if learns([y]) else 0
    return gradients + blocks * min(numbers, BLOCK_NUMBERS[world.device]) * max(world.item, _FLOAT)
