"""The memory of a step of the objective besides similarity matrices: features, and gradients of its inputs.

For compiled objectives. A matrix product reads its operands from memory, in the forward pass and again in the backward pass,
so that features that are not inputs themselves (unit vectors, mixed ones) are kept in between.
"""

from __future__ import annotations

from dataclasses import replace

from vlmdsl.ir import Node, Program, encoder_of, learns, streams, walk
from vlmdsl.ir.operations.encoding import DISTRIBUTION, ENCODE, POOLED, TOKENS
from vlmdsl.planning.cost import ITEM_BYTES, Workload
from vlmdsl.planning.part_cost import places
from vlmdsl.types import TokensType, VecType

__all__ = ["features_kept", "gradients_of_inputs", "seen_by"]


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


def gradients_of_inputs(program: Program, workload: Workload) -> int:
    """Bytes of the gradients that a step leaves at its inputs: features, and logits."""
    samples = workload.batch // workload.world
    read = [node for node in _differentiated(program) if node.operation in (POOLED, TOKENS)]
    features = sum(
        _size(node, workload, samples)
        for node in read
        if node.inputs[0].operation is ENCODE and encoder_of(node.inputs[0]).learns
    )
    predicted = [stream for stream in streams(program) if stream.vocabulary and stream.encoder.learns]
    logits = samples * sum(places(stream, samples, workload) for stream in predicted) * workload.vocabulary
    return features + logits * ITEM_BYTES["float32"]


def _differentiated(program: Program) -> dict[Node, None]:
    """The nodes that a gradient of the losses reaches."""
    stack, reached = [term.node for term in program.terms], dict[Node, None]()
    while stack:
        node = stack.pop()
        if node not in reached and not node.operation.stops_gradient:
            reached[node] = None
            stack.extend(node.operands)
    return reached
