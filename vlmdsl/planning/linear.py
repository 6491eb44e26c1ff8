"""Which token losses are computed without logits, from the states of the predicted tokens and the weight of the vocabulary.

`dense` calls the module that computes the logits of all predicted tokens; `chunked` calls `ops.linear_cross_entropy`, which
holds the logits of one chunk of tokens at a time (ADR 0014). Both take three products. Logits with another reader are always
computed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from vlmdsl.ir import ModuleOutput, Node, Program, Stream, masked_text, module_outputs, parts_of, streams, walk
from vlmdsl.ir.modules import LinearSettings
from vlmdsl.ir.operations.encoding import source_of
from vlmdsl.ir.operations.modules import use_of
from vlmdsl.ir.operations.prediction import TOKEN_LOSS, predicted_by
from vlmdsl.ir.schedule import Lowering
from vlmdsl.planning.masked import places_asked
from vlmdsl.planning.workload import Workload
from vlmdsl.types import LogitsType

if TYPE_CHECKING:
    from vlmdsl.planning.lowering import LoweringRequest

__all__ = [
    "CHUNK_ENTRIES",
    "LOGITS_BUDGET",
    "Predicted",
    "chunked_losses",
    "in_chunks",
    "loss_lowerings",
    "losses_of_logits",
    "planned_losses",
    "predictions",
    "tokens_at_once",
]

_FLOAT = 4
CHUNK_ENTRIES = 1 << 24
"""Number of logits that the chunked form holds at a time, unless the weight has more entries: 64 MiB in float32."""
LOGITS_BUDGET = 2**25
"""Budget for logits in bytes; above it the chunked form takes less memory and time (`benchmarks/predicted_tokens.py`)."""


def tokens_at_once(entries: int, width: int, chunk: int = CHUNK_ENTRIES) -> int:
    """Number of tokens per chunk for a weight [entries, width]: at least the width, so that a chunk has at least as many
    logits as the gradient of the weight, which is read and written once per chunk."""
    return max(chunk // entries, width)


class Predicted(NamedTuple):
    """What is predicted of an encoded text, or by a linear map of patches (`node`): of `rows` tokens or patches of this
    process one of `entries` each."""

    owner: Stream | ModuleOutput
    node: Node
    rows: int
    entries: int


def predictions(program: Program, workload: Workload) -> Iterator[Predicted]:
    """The encoded texts and the linear maps of patches that predict something, with its size."""
    samples = workload.batch // workload.world
    owners: list[tuple[Stream | ModuleOutput, Node]] = [(stream, stream.encode) for stream in streams(program)]
    owners += [(output, output.node) for output in module_outputs(program)]
    for owner, encoded in owners:
        if owner.vocabulary:
            masked = masked_text(parts_of(source_of(encoded))[-1]) if owner.asked_only else None
            share = 1.0 if masked is None else masked.number("share")
            rows = samples * places_asked(samples, workload.text_tokens, share)
            yield Predicted(owner, encoded, rows, workload.vocabulary)
        elif isinstance(owner, ModuleOutput) and owner.logits:
            settings = use_of(owner.node).module.settings
            assert isinstance(settings, LinearSettings)
            yield Predicted(owner, owner.node, samples * workload.image_tokens, settings.size)


def planned_losses(program: Program, workload: Workload, request: LoweringRequest) -> dict[Node, Lowering]:
    """The lowering of each token loss that has both forms, for batches of these sizes."""
    item = max(workload.item, _FLOAT)
    sizes = {node: rows * entries * item for _, node, rows, entries in predictions(program, workload)}
    return loss_lowerings(program, sizes, request)


def losses_of_logits(program: Program) -> dict[Node, Node]:
    """The token losses that do not need logits, because nothing else reads these; by encoded text or linear map."""
    readers: dict[Node, list[Node]] = defaultdict(list)
    for node in program.nodes():
        for parent in dict.fromkeys(node.inputs):
            readers[parent].append(node)
    return {
        predicted_by(logits): reading[0]
        for logits, reading in readers.items()
        if isinstance(logits.type, LogitsType) and len(reading) == 1 and reading[0].operation is TOKEN_LOSS
    }


def chunked_losses(program: Program, sizes: Mapping[Node, int], request: LoweringRequest) -> frozenset[Node]:
    """The token losses that run in chunks: those for which it is set, and those whose logits exceed the budget.

    `sizes` are the sizes of the logits in bytes, by encoded text; a text may be missing.
    """
    return frozenset(loss for loss, chosen in loss_lowerings(program, sizes, request).items() if chosen.name == "chunked")


def loss_lowerings(program: Program, sizes: Mapping[Node, int], request: LoweringRequest) -> dict[Node, Lowering]:
    """The lowering of each token loss that has both forms, with its reason; `sizes` as for `chunked_losses`."""
    lowerings = {}
    for encoded, loss in losses_of_logits(program).items():
        terms = tuple(term.name for term in program.terms if any(node is loss for node in walk([term.node])))
        named, size, budget = request.of_terms(terms), sizes.get(encoded, 0), min(request.budget, LOGITS_BUDGET)
        name = named if named != "auto" else ("dense" if size <= budget else "chunked")
        verb = "fit" if size <= budget else "exceed"
        why = "asked for" if named != "auto" else f"{size / 2**20:,.0f} MiB of logits {verb} {budget / 2**20:,.0f} MiB"
        lowerings[loss] = Lowering(name, f"{_HOW[name]}; {why}")
    return lowerings


def in_chunks(losses: Iterable[Node]) -> dict[Node, Lowering]:
    """The lowering of token losses that run in chunks."""
    return dict.fromkeys(losses, Lowering("chunked", _HOW["chunked"]))


_HOW = {
    "dense": "computes the logits of all predicted tokens",
    "chunked": "computes the logits of one chunk of tokens at a time, with their gradients",
}
