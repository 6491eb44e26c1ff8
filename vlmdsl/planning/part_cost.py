"""What an objective needs beside similarity matrices: heads on towers, logits over a vocabulary, the search of a reference
set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from vlmdsl.ir import Encoder, Head, Node, Program, Stream, encoder_of, masked_text, streams
from vlmdsl.ir.operations.reference import RETRIEVE
from vlmdsl.planning.cost import ITEM_BYTES, Workload
from vlmdsl.planning.masked import places_asked

__all__ = ["PartCost", "part_costs", "places"]

_FLOAT = ITEM_BYTES["float32"]


@dataclass(frozen=True, slots=True)
class PartCost:
    """One part on one process: learned or copied numbers, bytes of these and of running statistics (float32), FLOP of the
    matrix products of a step forward and backward, and bytes kept in between where they are more than features."""

    name: str
    what: str
    parameters: int
    size: int
    forward: int
    backward: int
    kept: int = 0


def part_costs(program: Program, workload: Workload) -> tuple[PartCost, ...]:
    """Every head, every tower's logits and every search, in this order; backward as if nothing were stopped after a head."""
    return (*_heads(program, workload), *_vocabularies(program, workload), *_searches(program, workload))


def _heads(program: Program, workload: Workload) -> Iterator[PartCost]:
    """Each module of heads once, and once more where a teacher copies it, with all views that go through it."""
    views: dict[tuple[Encoder, tuple[Head, ...]], set[Node]] = {}
    for stream in streams(program):
        for depth in range(len(stream.encoder.heads)):
            chain = stream.encoder.heads[: depth + 1]
            views.setdefault((stream.encoder.bare, chain), set()).add(stream.source)
    modules: dict[tuple[Encoder, tuple[Head, ...]], list[PartCost]] = {}
    for (tower, chain), sources in views.items():
        module = (replace(tower, frozen=False), tuple(head.learned for head in chain))
        modules.setdefault(module, []).append(_head(tower, chain, len(sources), workload))
    for costs in modules.values():
        forward, backward = sum(cost.forward for cost in costs), sum(cost.backward for cost in costs)
        yield replace(costs[0], forward=forward, backward=backward)


def _head(tower: Encoder, chain: tuple[Head, ...], views: int, workload: Workload) -> PartCost:
    head, below = chain[-1], replace(tower, heads=chain[:-1])
    widths = head.widths(below.dimension(workload.dim))
    parameters, statistics = _numbers(head, widths)
    rows = workload.batch // workload.world * views
    products = [2 * rows * inputs * outputs for inputs, outputs in pairwise(widths)]
    learns = tower.teacher is None and not head.frozen
    backward = (2 * sum(products) - (0 if below.learns else products[0])) if learns else 0
    name = tower.tower + (" (teacher)" if tower.teacher else "")
    what = f"{head.name} {'-'.join(map(str, widths))}"
    return PartCost(name, what, parameters, _FLOAT * (parameters + statistics), sum(products), backward)


def _numbers(head: Head, widths: tuple[int, ...]) -> tuple[int, int]:
    """The weights of a head, and the running statistics of its batch norms."""
    parameters = statistics = 0
    for layer, (inputs, outputs) in enumerate(pairwise(widths), start=1):
        last = layer == head.layers
        parameters += inputs * outputs + (outputs if head.bias in ("all", "last" if last else "hidden") else 0)
        norm = head.last_norm if last else head.norm
        parameters += outputs * {"none": 0, "plain": 0, "scaled": 1, "batch": 2}[norm]
        statistics += 0 if norm == "none" else 2 * outputs
    return parameters, statistics


def _vocabularies(program: Program, workload: Workload) -> Iterator[PartCost]:
    """A linear map for each tower whose tokens are asked for; its states are taken to be as long as its features."""
    predicted: dict[Encoder, list[Stream]] = {}
    for stream in streams(program):
        if stream.vocabulary:
            predicted.setdefault(replace(stream.encoder.bare, frozen=False), []).append(stream)
    samples, width, words = workload.batch // workload.world, workload.dim, workload.vocabulary
    for encoder, predicting in predicted.items():
        rows = [samples * places(stream, samples, workload) for stream in predicting]
        forward = 2 * sum(rows) * width * words
        learning = sum(count for count, stream in zip(rows, predicting, strict=True) if stream.encoder.learns)
        parameters = (width + 1) * words
        what = f"logits of {sum(rows):,} tokens over a vocabulary of {words:,}"
        kept = sum(rows) * words * _FLOAT
        yield PartCost(encoder.tower, what, parameters, parameters * _FLOAT, forward, 4 * learning * width * words, kept)


def places(stream: Stream, samples: int, workload: Workload) -> int:
    """The tokens per sample that get logits."""
    if not stream.asked_only:
        return workload.text_tokens
    masked = masked_text(stream.source)
    assert masked is not None, "`mlm` predicts what a mask selected"
    return places_asked(samples, workload.text_tokens, masked.number("share"))


def _searches(program: Program, workload: Workload) -> Iterator[PartCost]:
    """A product of this process's samples with every entry, for each search; what is found is kept, the cosines are not."""
    samples = workload.batch // workload.world
    for node in program.nodes():
        if node.operation is RETRIEVE:
            column, k = encoder_of(node.inputs[1]), int(node.number("k"))
            what = f"search of {workload.references:,} references for {k}"
            forward = 2 * samples * workload.references * workload.dim
            yield PartCost(column.tower, what, 0, 0, forward, 0, samples * k * (8 + 1))
