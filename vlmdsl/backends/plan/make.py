"""From a planned program to its plan."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace

from vlmdsl.backends.plan.report import (
    Baseline,
    CallRow,
    CollectiveRow,
    ComputeRow,
    LossRow,
    PartRow,
    Plan,
    RegionRow,
    ScheduleRow,
    SharedRow,
    StateRow,
)
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.lowering import ImpossiblePlan, UnknownDtype
from vlmdsl.ir import (
    Head,
    Node,
    Program,
    Use,
    columns,
    module_outputs,
    root_field,
    source_names,
    streams,
    walk,
    writings,
)
from vlmdsl.ir.operations.encoding import ENCODE
from vlmdsl.ir.operations.grounding import CONCEPTS
from vlmdsl.ir.operations.grouping import PATCH_SEGMENTS
from vlmdsl.ir.operations.matrices import SIMILARITY
from vlmdsl.ir.operations.modules import APPLY, DROPPED, PIXELS, REPLACED, use_of
from vlmdsl.ir.operations.prediction import TOKEN_LOSS
from vlmdsl.ir.operations.state import MEMORY
from vlmdsl.ir.operations.views import FIELD
from vlmdsl.ir.schedule import Applied, Apply, Compute, Mode, Schedule, Value
from vlmdsl.planning import schedule_of
from vlmdsl.planning.cost import Cost
from vlmdsl.planning.hand_written import hand_written
from vlmdsl.planning.linear import planned_losses
from vlmdsl.planning.lowering import Lowered, LoweringRequest, lowered
from vlmdsl.planning.memory import (
    features_kept,
    gradients_of_inputs,
    leaves_of_chunks,
    products_kept,
    targets_made,
)
from vlmdsl.planning.part_cost import PartCost, part_costs
from vlmdsl.planning.workload import ITEM_BYTES, Workload, entry_bytes, seen_by
from vlmdsl.source import SourceMap, Span
from vlmdsl.types import JOINED, PerSampleType, VectorType

__all__ = ["make_plan"]

_INTEGER = 8
_NOWHERE = Span("<command line>", 0, 0)


def make_plan(
    program: Program,
    *,
    batch: int = 1024,
    world: int = 1,
    dim: int = 512,
    dtype: str = "float32",
    image_tokens: int = 49,
    text_tokens: int = 32,
    vocabulary: int = 49_408,
    references: int = 65_536,
    samples: int = 1_000_000,
    image_size: int = 224,
    micro: int | None = None,
    lowering: str | Mapping[str, str] | LoweringRequest = "auto",
    sources: SourceMap | None = None,
) -> Plan:
    """The plan of an optimised program for `batch` samples on `world` processes, features of `dim` numbers of `dtype`.

    `image_tokens` and `text_tokens` are tokens per sample where tokens are compared, `vocabulary` the number of vocabulary
    entries where tokens are predicted, `references` the samples of a reference set, `samples` those of the data set,
    `image_size` the side of an image in pixels, `micro` the samples of a process that go through the towers at once.
    `lowering` is that of `vlmdsl.compile`. With `sources`, shared values name recipe lines. DiagnosticError (V0602, V0603)
    if the batch cannot be split equally or the data type is unknown, (V0604, V0605) if the lowering asked for does not
    exist.
    """
    _check(batch, world, dtype)
    workload = Workload(batch, world, dim, dtype, image_tokens, text_tokens, vocabulary, references)
    workload = replace(workload, image_size=image_size, micro=micro)
    losses = planned_losses(program, workload, LoweringRequest.of(lowering))
    schedule = schedule_of(program, workload, LoweringRequest.of(lowering), losses)
    chunked = schedule.chunked_losses
    regions = lowered(program, workload, schedule.lowerings)
    costs = [region.cost for region in regions]
    names = _names(program, regions)
    rows = tuple(_region(program, region, workload, names[region.node]) for region in regions)
    states = _states(program, workload, samples)
    parts = [*part_costs(program, workload, chunked), *_module_costs(program, workload)]
    by_hand = hand_written(program, workload)
    return Plan(
        program=program.name,
        batch=batch,
        world=world,
        dim=dim,
        dtype=dtype,
        schedule=_schedule(program, schedule, workload),
        shared=_shared(program, names, sources),
        regions=rows,
        parts=tuple(PartRow(**asdict(part)) for part in parts),
        losses=_losses(program, schedule),
        state=(*states, *_references(program, workload)),
        units=sum(cost.forward + cost.backward for cost in costs),
        flops=sum(row.flops_forward + row.flops_backward for row in rows),
        **_memory(program, workload, chunked, costs, [row.size for row in states]),
        micro=micro,
        moved=sum(cost.moved for cost in costs),
        received=sum(collective.received for cost in costs for collective in cost.collectives),
        hand_written=None if by_hand is None else Baseline(**by_hand._asdict()),
    )


def _module_costs(program: Program, workload: Workload) -> Iterable[PartCost]:
    """The costs of modules that are applied to features, and of what is computed from their outputs."""
    if not module_outputs(program) and all(stream.encoder.decoder is None for stream in streams(program)):
        return ()
    from vlmdsl.planning.module_cost import module_costs  # few recipes apply modules, and classes take time to make

    return module_costs(program, workload)


def _memory(
    program: Program, workload: Workload, chunked: frozenset[Node], costs: Sequence[Cost], states: Sequence[int]
) -> dict[str, int]:
    """What a step keeps and its peak, in bytes; `states` are the sizes of states, of which the new one is beside the old."""
    features, gradients = features_kept(program, workload), gradients_of_inputs(program, workload, chunked)
    products, chunk = products_kept(program, workload, chunked)
    stored = features + products + sum(cost.stored for cost in costs)
    searched = features + max((cost.before for cost in costs), default=0)
    at_one_time = [*(cost.transient for cost in costs), *states, gradients, chunk, targets_made(program, workload)]
    return {
        "features": features + products,
        "stored": stored,
        "gradients": gradients,
        "leaves": 0 if workload.micro is None else leaves_of_chunks(program, workload),
        "peak": max(searched, stored + max(at_one_time)),
    }


def _check(batch: int, world: int, dtype: str) -> None:
    diagnostic = None
    if batch < 1 or world < 1:
        diagnostic = ImpossiblePlan.at(_NOWHERE, batch=batch, world=world, reason="both must be at least 1")
    elif batch % world:
        help = (f"take {batch // world * world} or {(batch // world + 1) * world} samples",)
        diagnostic = ImpossiblePlan.at(
            _NOWHERE, batch=batch, world=world, reason="every process needs the same number", help=help
        )
    elif dtype not in ITEM_BYTES:
        diagnostic = UnknownDtype.at(_NOWHERE, dtype=dtype, help=(f"possible: {', '.join(ITEM_BYTES)}",))
    if diagnostic is not None:
        raise DiagnosticError((diagnostic,))


def _names(program: Program, regions: Sequence[Lowered]) -> dict[Node, str]:
    """A name for each row: the term where it serves one, else what it computes; numbered where names repeat."""
    names: dict[Node, str] = {}
    for node in (region.node for region in regions):
        terms = _terms_of(program, node)
        title = _title(node)
        name = f"{terms[0]}: {title}" if len(terms) == 1 and terms[0] != title else title
        unique, copy = name, 2
        while unique in names.values():
            unique, copy = f"{name} ({copy})", copy + 1
        names[node] = unique
    return names


def _title(node: Node) -> str:
    if node.operation is SIMILARITY:
        return f"{node.string('by')} of {_stream(node.inputs[0])} and {_stream(node.inputs[1])}"
    return use_of(node).module.name if node.operation is APPLY else node.operation.replace("_", " ")


def _stream(features: Node) -> str:
    """The field that features come from, as far as there is one."""
    if features.operation is MEMORY:
        return features.string("name")
    fields = [node.string("name") for node in walk([features]) if node.operation is FIELD]
    return fields[0] if len(fields) == 1 else "features"


def _terms_of(program: Program, target: Node) -> tuple[str, ...]:
    return tuple(term.name for term in program.terms if any(node is target for node in walk([term.node])))


def _region(program: Program, region: Lowered, workload: Workload, name: str) -> RegionRow:
    node, cost, lowering = region.node, region.cost, region.lowering
    unit = seen_by(node, workload).unit
    return RegionRow(
        name=name,
        operation=node.operation,
        terms=_terms_of(program, node),
        units_forward=cost.forward,
        units_backward=cost.backward,
        flops_forward=round(cost.forward * unit),
        flops_backward=round(cost.backward * unit),
        stored=cost.stored,
        transient=max(cost.transient, cost.before),
        moved=cost.moved,
        lowering=lowering.name,
        reason=lowering.reason,
        rejected=dict(lowering.rejected),
        collectives=tuple(CollectiveRow(kind=c.kind, what=c.what, received=c.received) for c in cost.collectives),
    )


def _losses(program: Program, schedule: Schedule) -> tuple[LossRow, ...]:
    return tuple(
        LossRow(name=f"{', '.join(_terms_of(program, loss))}: {_title(loss)}", lowering=chosen.name, reason=chosen.reason)
        for loss, chosen in schedule.lowerings.items()
        if loss.operation is TOKEN_LOSS
    )


def _schedule(program: Program, schedule: Schedule, workload: Workload) -> ScheduleRow:
    """The schedule of a step, as the model executes it."""
    names = source_names(stream.source for stream in streams(program))
    names |= {stream.encode: names[stream.source] for stream in streams(program)}
    names |= {output.node: output.name for output in module_outputs(program)}

    def name(value: Value) -> str:
        node = value.source if isinstance(value, Applied) else value
        return names[node] if node in names else str(dict(node.attributes).get("name", node.operation))

    return ScheduleRow(
        load=tuple(map(name, schedule.load.values)),
        steps=tuple(
            _call(step, name, workload) if isinstance(step, Apply) else _compute(step, name) for step in schedule.steps
        ),
        followed_before=tuple(use.module.name for use in schedule.before),
        followed_after=tuple(use.module.name for use in schedule.after["step"] if isinstance(use, Use)),
        after_epoch=tuple(update.state.string("name") for update in program.updates_after("epoch")),
        written=tuple(f"{writing.text} by {writing.by}" for writing in writings(program)),
    )


def _call(call: Apply, name: Callable[[Value], str], workload: Workload) -> CallRow:
    module = call.use.module
    return CallRow(
        module=f"{module.name} {_lengths(module.settings)}" if isinstance(module.settings, Head) else module.name,
        family=module.family,
        on=None if module.on is None else module.on.name,
        gradient=call.use.gradient,
        teacher=call.use.follows is not None,
        values=tuple(map(name, call.values)),
        samples=workload.batch // workload.world * sum(map(_texts, call.values)),
        tokens=_tokens_of(call, workload),
    )


def _texts(value: Value) -> int:
    """How often a module encodes a value of one sample: each of several concepts by itself."""
    return int(value.number("count")) if isinstance(value, Node) and value.operation is CONCEPTS else 1


def _compute(compute: Compute, name: Callable[[Value], str]) -> ComputeRow:
    return ComputeRow(name=compute.name, gives=tuple(map(name, compute.gives)))


def _lengths(head: Head) -> str:
    """The lengths of a head's features; D is that of the tower's."""
    return "-".join(str(length) if length else "D" for length in head.widths(0))


def _tokens_of(call: Apply, workload: Workload) -> int | None:
    """What a module sees of a sample: a decoder all patches; fusion the text, and its image where both are one sequence;
    None for modules of vectors."""
    family, settings = call.use.module.family, call.use.module.settings
    if family == "decoder":
        return _tokens(replace(call.mode, dropped=()), workload)
    if family == "fusion" and call.mode.context is not None:
        from vlmdsl.ir.modules import FusionSettings

        if isinstance(settings, FusionSettings) and settings.attention == "merged":
            image = _tokens(call.mode.context[1], workload)
            return None if image is None else workload.text_tokens + image
    return _tokens(call.mode, workload) if family in ("tower", "fusion") else None


def _tokens(mode: Mode, workload: Workload) -> int | None:
    """What a tower sees of a sample: patches of an image, tokens of a text, or both; None for other kinds."""
    if mode.split is not None:
        return workload.text_tokens * (1 + (mode.split.prefix == "prompt")) - (not mode.split.whole)
    if mode.kind in ("Text", "Concepts"):
        return workload.text_tokens
    if mode.kind not in ("Image", JOINED):  # how many there are is not known
        return None
    grid = math.isqrt(workload.image_tokens)
    whole = grid**2 == workload.image_tokens
    patches = max(round(mode.side * grid), 1) ** 2 if whole else round(mode.side**2 * workload.image_tokens)
    for share in mode.dropped:
        patches = int(patches * (1 - share))
    if mode.kind == "Image":
        return patches
    return max(patches, workload.text_tokens) if mode.blended else patches + workload.text_tokens


def _states(program: Program, workload: Workload, samples: int) -> list[StateRow]:
    """Every state with its size; numbers are kept in float32, and how many entries a queue has had as an integer."""
    rows, item = [], ITEM_BYTES["float32"]
    for update in program.updates:
        node, kind, size = update.state, update.node.operation.replace("_", " "), item
        if node.operation is MEMORY:
            entries = int(node.number("size"))
            kind = f"queue of {entries:,}, starts {node.string('start')}"
            size = entries * entry_bytes(update, workload) + _INTEGER
        if isinstance(node.type, VectorType):
            size = seen_by(update.node, workload).dim * item
        if isinstance(node.type, PerSampleType):
            kind, size = f"a number per sample of {samples:,}, updated after every {update.when}", samples * item
        rows.append(StateRow(name=node.string("name"), kind=kind, size=size))
    return rows


def _references(program: Program, workload: Workload) -> list[StateRow]:
    """The columns of the reference set and the keys of its samples, as every process holds them."""
    held, kind = columns(program), f"of {workload.references:,} references"
    size = workload.references * workload.dim * ITEM_BYTES["float32"]
    rows = [StateRow(name=column.name, kind=f"column {kind}", size=size) for column in held]
    return rows + [StateRow(name="keys", kind=kind, size=workload.references * _INTEGER)] * bool(held)


def _shared(program: Program, regions: Mapping[Node, str], sources: SourceMap | None) -> tuple[SharedRow, ...]:
    """Encoded streams and similarity matrices with more than one reader."""
    readers: dict[Node, list[Node]] = defaultdict(list)
    for node in program.nodes():
        for parent in dict.fromkeys(node.inputs):
            readers[parent].append(node)
    names = {stream.encode: stream.name for stream in streams(program)}
    rows = []
    for node in program.nodes():
        reading = _readers(node, readers)
        if node.operation in (ENCODE, SIMILARITY) and len(reading) > 1:
            value = (
                f"{names.get(node) or root_field(node.inputs[0]).string('name')}, encoded"
                if node.operation is ENCODE
                else _title(node)
            )
            named = dict.fromkeys(regions.get(reader) or _title(reader) for reader in reading)
            rows.append(SharedRow(value=value, readers=tuple(named), lines=_lines(program, reading, sources)))
    return tuple(rows)


def _readers(node: Node, readers: dict[Node, list[Node]]) -> list[Node]:
    reading: dict[Node, None] = {}
    stack = list(reversed(readers[node]))
    while stack:
        reader = stack.pop()
        # What is part of making features is not a reader of its own: those of what it makes are.
        if reader.operation in (
            PIXELS,
            DROPPED,
            REPLACED,
            PATCH_SEGMENTS,
        ):  # of what the tower was given, not of what it gave
            continue
        if reader.operation.reads_encoder_output or reader.operation.passes_features:
            stack.extend(reversed(readers[reader]))
        else:
            reading[reader] = None
    return list(reading)


def _lines(program: Program, nodes: list[Node], sources: SourceMap | None) -> tuple[str, ...]:
    """The lines of the readers in the file that made them (not those of the library); without sources only the file."""
    lines: dict[str, None] = {}
    for node in nodes:
        spans = program.graph.spans_of(node)
        for span in (span for span in spans if span.file == spans[0].file):
            row = "" if sources is None else f":{sources.get(span.file).position(span.start)[0]}"
            lines[span.file + row] = None
    return tuple(lines)
