"""The memory of a step of the objective besides similarity matrices: features, and gradients of its inputs.

For compiled objectives. A matrix product reads its operands from memory, in the forward pass and again in the backward pass,
so that features that are not inputs themselves (unit vectors, mixed ones) are kept in between.
"""

from __future__ import annotations

from dataclasses import replace

from vlmdsl.ir import Node, Program, encoder_of, learns, walk
from vlmdsl.ir.operations.encoding import DISTRIBUTION, ENCODE, POOLED, TOKENS
from vlmdsl.planning.cost import ITEM_BYTES, Workload
from vlmdsl.planning.linear import losses_of_logits, predicted_texts, tokens_at_once
from vlmdsl.types import TokensType, VecType

__all__ = ["features_kept", "gradients_of_inputs", "products_kept", "seen_by"]


def seen_by(node: Node, workload: Workload) -> Workload:
    """The workload with the dimension of the features of a node: that of a head, if they come from one."""
    encodes = (feature.inputs[0] for feature in walk([node]) if feature.operation is POOLED)
    lengths = (encoder_of(encode).dimension(workload.dim) for encode in encodes if encode.operation is ENCODE)
    return replace(workload, dim=next(lengths, workload.dim))


def features_kept(program: Program, workload: Workload) -> int:
    """Bytes of all features that a product reads again in the backward pass, inputs of the objective left out, and of all
    distributions; of several processes also what they gathered of each other."""
    own, gathered = dict[Node, None](), dict[Node, None]()
    for node in program.nodes():
        if node.operation.multiplies and learns([node]):
            operands = [parent for parent in node.inputs[:2] if isinstance(parent.type, VecType | TokensType)]
            own |= dict.fromkeys(operand for operand in operands if not operand.operation.reads_encoder_output)
            gathered |= dict.fromkeys(operands[1:])
        elif node.operation is DISTRIBUTION and learns([node]):
            own[node] = None
    whole = sum(_size(node, workload, workload.batch) for node in gathered) if workload.world > 1 else 0
    return sum(_size(node, workload, workload.batch // workload.world) for node in own) + whole


def _size(features: Node, workload: Workload, samples: int) -> int:
    seen = seen_by(features, workload)
    return samples * seen.tokens(features) * seen.dim * seen.item


def gradients_of_inputs(program: Program, workload: Workload, chunked: frozenset[Node] = frozenset()) -> int:
    """Bytes of the gradients that a step leaves at its inputs: features, and logits; for `chunked` token losses what logits
    are a product of, states and the weight."""
    samples = workload.batch // workload.world
    read = [node for node in _differentiated(program) if node.operation in (POOLED, TOKENS)]
    features = sum(
        _size(node, workload, samples)
        for node in read
        if node.inputs[0].operation is ENCODE and encoder_of(node.inputs[0]).learns
    )
    losses, weights, numbers = losses_of_logits(program), set[str](), 0
    for owner, encoded, rows in predicted_texts(program, workload):
        if owner.learns and losses.get(encoded) not in chunked:
            numbers += rows * workload.vocabulary
        elif owner.learns:
            numbers += rows * workload.dim
            weights.add(owner.linear)
    numbers += len(weights) * (workload.dim + 1) * workload.vocabulary
    return features + numbers * ITEM_BYTES["float32"]


def products_kept(program: Program, workload: Workload, chunked: frozenset[Node]) -> tuple[int, int]:
    """Bytes that `chunked` token losses keep for the backward pass, the gradients of states and weight, and the most that
    one of them holds besides, the logits of a chunk."""
    losses, kept, besides = losses_of_logits(program), 0, 0
    for owner, encoded, rows in predicted_texts(program, workload):
        if losses.get(encoded) in chunked:
            at_once = min(tokens_at_once(workload.vocabulary, workload.dim), rows)
            besides = max(besides, at_once * workload.vocabulary * ITEM_BYTES["float32"])
            kept += (rows * workload.dim + (workload.dim + 1) * workload.vocabulary) * owner.learns * ITEM_BYTES["float32"]
    return kept, besides


def _differentiated(program: Program) -> dict[Node, None]:
    """The nodes that a gradient of the losses reaches."""
    stack, reached = [term.node for term in program.terms], dict[Node, None]()
    while stack:
        node = stack.pop()
        if node not in reached and not node.operation.stops_gradient:
            reached[node] = None
            stack.extend(node.operands)
    return reached
