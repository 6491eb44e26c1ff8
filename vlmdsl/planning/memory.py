"""Memory of a step of the objective besides similarity matrices: features, and gradients of its inputs.

For compiled objectives. A matrix product reads its operands from memory, in the forward pass and again in the backward pass,
so that features that are not inputs themselves (unit vectors, mixed ones) are kept in between.
"""

from __future__ import annotations

from vlmdsl.ir import Node, Program, encoder_of, learns, module_outputs, reached
from vlmdsl.ir.operations.encoding import DISTRIBUTION, ENCODE, POOLED, TOKENS, VOCABULARY
from vlmdsl.ir.operations.modules import EMBEDDED, PIXELS, RECONSTRUCT, STATES, use_of
from vlmdsl.planning.linear import losses_of_logits, predictions, tokens_at_once
from vlmdsl.planning.workload import ITEM_BYTES, Workload, seen_by
from vlmdsl.types import TokensType, VecType

__all__ = ["features_kept", "gradients_of_inputs", "is_normalised", "leaves_of_chunks", "products_kept", "targets_made"]


def features_kept(program: Program, workload: Workload) -> int:
    """Bytes of all features that a product reads again in the backward pass, without the inputs of the objective, and of all
    distributions; on several processes also the gathered features."""
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
    """Bytes of the gradients of the inputs: features, logits, and pixels of decoders; for `chunked` token losses states and
    weight instead of logits."""
    samples = workload.batch // workload.world
    read = [node for node in reached(term.node for term in program.terms) if node.operation in (POOLED, TOKENS)]
    features = sum(
        _size(node, workload, samples)
        for node in read
        if node.inputs[0].operation is ENCODE and encoder_of(node.inputs[0]).learns
    )
    losses, weights, numbers = losses_of_logits(program), dict[str, int](), 0
    for owner, node, rows, entries in predictions(program, workload):
        if owner.learns and losses.get(node) not in chunked:
            numbers += rows * entries
        elif owner.learns:
            numbers += rows * workload.dim
            weights[owner.linear] = entries
    numbers += sum((workload.dim + 1) * entries for entries in weights.values())
    decoded = sum(output.patches and output.learns for output in module_outputs(program))
    numbers += samples * decoded * workload.image_tokens * workload.patch_numbers
    return features + numbers * ITEM_BYTES["float32"]


def products_kept(program: Program, workload: Workload, chunked: frozenset[Node]) -> tuple[int, int]:
    """Bytes that `chunked` token losses save for the backward pass (the gradients of states and weight), and the largest
    transient of one of them (the logits of a chunk)."""
    losses, kept, besides = losses_of_logits(program), 0, 0
    for owner, node, rows, entries in predictions(program, workload):
        if losses.get(node) in chunked:
            at_once = min(tokens_at_once(entries, workload.dim), rows)
            besides = max(besides, at_once * entries * ITEM_BYTES["float32"])
            kept += (rows * workload.dim + (workload.dim + 1) * entries) * owner.learns * ITEM_BYTES["float32"]
    return kept, besides


def targets_made(program: Program, workload: Workload) -> int:
    """Peak bytes of pixels to reconstruct in the forward pass: their patches, twice if each patch is normalised first."""
    patches = workload.batch // workload.world * workload.image_tokens * workload.patch_numbers * ITEM_BYTES["float32"]
    nodes = [node for node in program.nodes() if node.operation is RECONSTRUCT]
    return max(((1 + is_normalised(node)) * patches for node in nodes), default=0)


def is_normalised(reconstruct: Node) -> bool:
    """Whether each patch is normalised to mean 0 and variance 1 before the comparison."""
    target = reconstruct.inputs[1]
    return target.operation is PIXELS and target.string("normalised") == "patch"


def leaves_of_chunks(program: Program, workload: Workload) -> int:
    """Bytes that micro-batches keep for a whole batch: the outputs of all modules that run in chunks, as far as the step
    reads them, and the gradients of those that learn; 2 b (P + L) W numbers for an image and a text whose states are
    read."""
    numbers = 0
    for (module, _), tokens in _read_outputs(program, workload).items():
        learns = encoder_of(module).learns if module.operation is ENCODE else use_of(module).gradient
        numbers += (1 + learns) * tokens * workload.dim
    for output in module_outputs(program):
        if output.patches:
            numbers += (1 + output.learns) * workload.image_tokens * workload.patch_numbers
    return workload.batch // workload.world * numbers * workload.item


def _read_outputs(program: Program, workload: Workload) -> dict[tuple[Node, str], int]:
    """Tokens per sample of each output of a tower or a fusion module that is read, by the module's node and what reads
    it; logits are computed from states."""
    outputs: dict[tuple[Node, str], int] = {}
    for node in program.nodes():
        if node.operation in (POOLED, TOKENS, STATES, EMBEDDED):
            outputs[node.inputs[0], node.operation] = workload.tokens(node)
        elif node.operation is VOCABULARY:
            outputs[node.inputs[0], STATES] = workload.text_tokens
    return outputs
