"""Costs of an objective besides similarity matrices: heads on towers, logits over a vocabulary, searches of a reference
set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from vlmdsl.ir import Encoder, Head, ModuleOutput, Node, Program, Stream, encoder_of, streams
from vlmdsl.ir.modules import LinearSettings
from vlmdsl.ir.operations.modules import use_of
from vlmdsl.ir.operations.reference import RETRIEVE
from vlmdsl.planning.linear import Predicted, losses_of_logits, predictions, tokens_at_once
from vlmdsl.planning.workload import ITEM_BYTES, Workload

__all__ = ["PartCost", "numbers_of", "part_costs"]

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


def part_costs(program: Program, workload: Workload, chunked: frozenset[Node] = frozenset()) -> tuple[PartCost, ...]:
    """Every head, all logits and every search, in this order; backward as if nothing were stopped after a head.

    `chunked` are the token losses that make logits themselves, in chunks of tokens.
    """
    return (*_heads(program, workload), *_vocabularies(program, workload, chunked), *_searches(program, workload))


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
    parameters, statistics = numbers_of(head, widths)
    rows = workload.batch // workload.world * views
    products = [2 * rows * inputs * outputs for inputs, outputs in pairwise(widths)]
    learns = tower.teacher is None and not head.frozen
    backward = (2 * sum(products) - (0 if below.learns else products[0])) if learns else 0
    name = tower.tower + (" (teacher)" if tower.teacher else "")
    what = f"{head.name} {'-'.join(map(str, widths))}"
    return PartCost(name, what, parameters, _FLOAT * (parameters + statistics), sum(products), backward)


def numbers_of(head: Head, widths: tuple[int, ...]) -> tuple[int, int]:
    """Number of weights of a head, and of running statistics of its batch norms."""
    parameters = statistics = 0
    for layer, (inputs, outputs) in enumerate(pairwise(widths), start=1):
        last = layer == head.layers
        parameters += inputs * outputs + (outputs if head.bias in ("all", "last" if last else "hidden") else 0)
        norm = head.last_norm if last else head.norm
        parameters += outputs * {"none": 0, "plain": 0, "scaled": 1, "batch": 2}[norm]
        statistics += 0 if norm == "none" else 2 * outputs
    return parameters, statistics


def _vocabularies(program: Program, workload: Workload, chunked: frozenset[Node]) -> Iterator[PartCost]:
    """The linear map of each tower and fusion module whose tokens or patches are predicted, and what follows it; states are
    assumed to be as wide as the features of the tower. Where the loss computes the product in chunks they have a separate
    row."""
    losses, listed = losses_of_logits(program), set[str]()
    groups: dict[tuple[str, bool], list[Predicted]] = {}
    for predicted in predictions(program, workload):
        groups.setdefault((predicted.owner.linear, losses.get(predicted.node) in chunked), []).append(predicted)
    for (linear, in_chunks), texts in groups.items():
        owner, words = texts[0].owner, texts[0].entries
        name, width, transform = _linear(owner, workload)
        rows, learning = (sum(text.rows for text in texts if text.owner.learns or whole) for whole in (True, False))
        product, own = width * words, width**2 if transform else 0
        parameters = 0 if linear in listed else product + words + (own + 3 * width if transform else 0)
        listed.add(linear)
        at_once = min(tokens_at_once(words, width), rows)
        patches = isinstance(owner, ModuleOutput) and owner.logits
        over = "patches over a codebook" if patches else "tokens over a vocabulary"
        what = f"logits of {rows:,} {over} of {words:,}"
        what += f", {at_once:,} at a time: {at_once * words * _FLOAT / 2**20:,.0f} MiB" if in_chunks else ""
        kept = (rows * width + product + words if in_chunks else rows * words) * _FLOAT
        forward, backward = 2 * rows * (product + own), 4 * learning * (product + own)
        yield PartCost(name, what, parameters, parameters * _FLOAT, forward, backward, kept)


def _linear(owner: Stream | ModuleOutput, workload: Workload) -> tuple[str, int, bool]:
    """The module whose states the linear map takes, their width, and whether a transform precedes the map."""
    if isinstance(owner, Stream):
        return owner.encoder.tower, workload.dim, owner.transform
    module = use_of(owner.node).module
    if isinstance(module.settings, LinearSettings):
        teacher = " (teacher)" if use_of(owner.node).follows else ""
        return f"{module.base.name}{teacher}", workload.dim, module.settings.transform
    return module.name, getattr(module.settings, "width", 0) or workload.dim, True


def _searches(program: Program, workload: Workload) -> Iterator[PartCost]:
    """For each search a product of this process's samples with every entry; the neighbours are kept, the cosines are not."""
    samples = workload.batch // workload.world
    for node in program.nodes():
        if node.operation is RETRIEVE:
            column, k = encoder_of(node.inputs[1]), int(node.number("k"))
            what = f"search of {workload.references:,} references for {k}"
            forward = 2 * samples * workload.references * workload.dim
            yield PartCost(column.tower, what, 0, 0, forward, 0, samples * k * (8 + 1))
