"""What a plan says: plain data, a text for people, JSON for machines."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from vlmdsl.diagnostics.cells import plain
from vlmdsl.ir.operations.mining import FETCH

__all__ = [
    "CallRow", "CollectiveRow", "ComputeRow", "LossRow", "PartRow", "Plan", "RegionRow", "ScheduleRow", "SharedRow",
    "StateRow",
]  # fmt: skip


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CallRow(_Row):
    """One call of a module: on which values, each with so many samples of this process and tokens of a sample.

    `family` is `tower`, `head`, `vocabulary`, `fusion` or `decoder`, `on` the module that a head or a vocabulary stands on.
    `tokens` are the patches and the tokens of a text that a tower or a decoder sees; None where that is not known before
    there is data.
    """

    module: str
    family: str
    on: str | None
    gradient: bool
    teacher: bool
    values: tuple[str, ...]
    samples: int
    tokens: int | None = None


class ComputeRow(_Row):
    """One emitted function: what it is called in the source, and what it gives to calls and functions after it."""

    name: str
    gives: tuple[str, ...]


class ScheduleRow(_Row):
    """What runs in a step, in order: what the batch brings, then calls of modules and emitted functions; the modules that
    teachers follow before the first of them, and after the optimiser step; the states that are updated after an epoch. What
    decoders of earlier stages have `written` of all samples before the first step: fields, each with its decoder."""

    load: tuple[str, ...]
    steps: tuple[CallRow | ComputeRow, ...]
    followed_before: tuple[str, ...] = ()
    followed_after: tuple[str, ...]
    after_epoch: tuple[str, ...] = ()
    written: tuple[str, ...] = ()


class SharedRow(_Row):
    """A value computed once for several readers, with the recipe lines that ask for it."""

    value: str
    readers: tuple[str, ...]
    lines: tuple[str, ...]


class LossRow(_Row):
    """How a token loss runs that can do without logits, and why."""

    name: str
    lowering: str
    reason: str


class CollectiveRow(_Row):
    """One exchange between processes; `received` is in bytes for each process and step."""

    kind: str
    what: str
    received: int


class StateRow(_Row):
    """What outlives the step: what it is, and its bytes on each process."""

    name: str
    kind: str
    size: int


class RegionRow(_Row):
    """One operation on similarity matrices: units and FLOPs of one process, memory and traffic in bytes, its lowering."""

    name: str
    operation: str
    terms: tuple[str, ...]
    units_forward: float
    units_backward: float
    flops_forward: int
    flops_backward: int
    stored: int
    transient: int
    moved: int
    lowering: str
    reason: str
    rejected: dict[str, str]
    collectives: tuple[CollectiveRow, ...]


class PartRow(_Row):
    """What runs beside the similarity matrices, on one process: its parameters, bytes, FLOP of its products, bytes saved."""

    name: str
    what: str
    parameters: int
    size: int
    forward: int
    backward: int
    kept: int


class Baseline(_Row):
    """The usual hand-written form of the whole objective, not compiled, by formula: totals as in `Plan`.

    Peaks of CLIP, SigLIP, FILIP, OTTER and DeCLIP are within 15 % of measured ones (`benchmarks/results/plan_memory.json`).
    """

    units: float
    flops: int
    stored: int
    peak: int
    moved: int
    received: int


class Plan(_Row):
    """What a program runs and what that costs, for one size of batch. All costs are one process's, for one step of the
    compiled objective. `features` are kept where products read them again, and counted in `stored`; `gradients` are those of
    its inputs. With `micro`, `leaves` are outputs of the modules that run in chunks, kept for the whole batch, and their
    gradients. `peak` is the peak memory beyond what is allocated before the step: inputs, state, towers and heads,
    whose weights and activations are not counted.
    """

    program: str
    batch: int
    world: int
    dim: int
    dtype: str
    schedule: ScheduleRow
    shared: tuple[SharedRow, ...]
    regions: tuple[RegionRow, ...]
    parts: tuple[PartRow, ...]
    losses: tuple[LossRow, ...]
    state: tuple[StateRow, ...]
    units: float
    flops: int
    features: int
    stored: int
    gradients: int
    micro: int | None
    leaves: int
    peak: int
    moved: int
    received: int
    hand_written: Baseline | None

    @property
    def calls(self) -> tuple[CallRow, ...]:
        """The calls of modules, in order."""
        return tuple(row for row in self.schedule.steps if isinstance(row, CallRow))

    def to_json(self) -> dict[str, object]:
        """The plan as plain data: numbers, strings, lists and dictionaries."""
        return self.model_dump(mode="json")

    def to_text(self) -> str:
        """The plan as tables."""
        per = f"{self.batch // self.world:,} per process" if self.world > 1 else "one process"
        lines = [f"{self.program}: batch {self.batch:,} ({per}), features of {self.dim:,} in {self.dtype}", ""]
        lines += _section("Schedule", ("", "", "on", "samples", "tokens each"), _steps(self.schedule))
        lines += _section("Computed once", ("value", "read by", "recipe"), [_shared(row) for row in self.shared])
        lines += _section(
            "Similarity matrices",
            ("", "products", "FLOP", "saved", "peak", "traffic"),
            [_region(row) for row in self.regions] + ([self._total()] if len(self.regions) > 1 else []),
        )
        lines += _section("Memory of the compiled objective, one step", ("", "size"), self._memory())
        header = ("", "what", "parameters", "size", "FLOP", "saved")
        lines += _section("Other computations", header, [_part(row) for row in self.parts])
        lines += _section("State", ("", "what", "size"), [(row.name, row.kind, _bytes(row.size)) for row in self.state])
        chosen = [(row.name, row.lowering, row.reason) for row in self.regions]
        chosen += [(row.name, row.lowering, row.reason) for row in self.losses]
        lines += _section("Lowerings", ("", "chosen", "reason"), chosen)
        lines += _section("Lowerings not chosen", ("", "reason", "for"), self._rejected())
        lines += _section("Communication", ("", "what", "received"), self._exchange())
        lines += self._comparison()
        return plain("\n".join(lines).rstrip() + "\n")

    def _total(self) -> tuple[str, ...]:
        kept = sum(row.stored for row in self.regions)
        peak = kept + max(row.transient for row in self.regions)
        return "all", f"{self.units:g}", _scaled(self.flops), _bytes(kept), _bytes(peak), _bytes(self.moved)

    def _memory(self) -> list[tuple[str, str]]:
        picked = " and picked samples" if any(row.operation == FETCH for row in self.regions) else ""
        rows = [
            (f"saved for the backward pass: similarity matrices{picked}", self.stored - self.features),
            ("saved for the backward pass: unit vectors and other features", self.features),
            ("gradients of the inputs", self.gradients),
            ("peak, without inputs, towers and heads", self.peak),
        ]
        if self.micro is not None:
            rows.append((f"in micro-batches of {self.micro:,}: outputs of all samples, and their gradients", self.leaves))
        return [(what, _bytes(size)) for what, size in rows]

    def _rejected(self) -> list[tuple[str, ...]]:
        """Each rejected lowering with its reason once, and the rows it concerns."""
        concerned: dict[tuple[str, str], list[str]] = {}
        for row in self.regions:
            for rejected in row.rejected.items():
                concerned.setdefault(rejected, []).append(row.name)
        every = len(self.regions)
        return [(*why, "all" if len(names) == every else ", ".join(names)) for why, names in concerned.items()]

    def _exchange(self) -> list[tuple[str, ...]]:
        return [
            (row.kind, f"{row.what} ({region.name})", _bytes(row.received))
            for region in self.regions
            for row in region.collectives
        ]

    def _comparison(self) -> list[str]:
        other = self.hand_written
        if other is None:
            return []
        rows = [
            ("products", f"{self.units:g}", f"{other.units:g}", _ratio(self.units, other.units)),
            ("saved activations", _bytes(self.stored), _bytes(other.stored), _ratio(self.stored, other.stored)),
            ("peak memory", _bytes(self.peak), _bytes(other.peak), _ratio(self.peak, other.peak)),
            ("memory traffic", _bytes(self.moved), _bytes(other.moved), _ratio(self.moved, other.moved)),
        ]
        if self.world > 1:
            rows.append(("received", _bytes(self.received), _bytes(other.received), _ratio(self.received, other.received)))
        title = "Compared with the usual hand-written loss, not compiled (also by formula)"
        return _section(title, ("", "vlmdsl", "hand-written", "ratio"), rows)


def _section(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A titled table with columns as wide as they need to be; nothing for no rows."""
    if not rows:
        return []
    table = [tuple(header), *map(tuple, rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    body = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return [title, *("  " + line for line in body), ""]


def _steps(schedule: ScheduleRow) -> list[tuple[str, ...]]:
    """A line per step, and one for what is done before or after all of them."""
    follow = [("write", name, "of all samples, before the first step", "", "") for name in schedule.written]
    follow += [("follow", name, "before the step", "", "") for name in schedule.followed_before]
    rows = [("load", "", ", ".join(schedule.load), "", ""), *map(_step, schedule.steps)]
    rows += [("follow", name, "after the optimizer step", "", "") for name in schedule.followed_after]
    rows += [("update", name, "after every epoch", "", "") for name in schedule.after_epoch]
    return [*follow, *rows]


def _step(row: CallRow | ComputeRow) -> tuple[str, ...]:
    if isinstance(row, ComputeRow):
        return "compute", row.name, ", ".join(row.gives), "", ""
    name = row.module if row.on is None else f"{row.module} of {row.on}"
    kind = " (teacher)" if row.teacher else "" if row.gradient else " (frozen)"
    tokens = "" if row.tokens is None else f"{row.tokens:,}"
    return "apply", name + kind, " + ".join(row.values), f"{row.samples:,}", tokens


def _shared(row: SharedRow) -> tuple[str, ...]:
    return row.value, ", ".join(row.readers), ", ".join(row.lines)


def _region(row: RegionRow) -> tuple[str, ...]:
    products = f"{row.units_forward:g} + {row.units_backward:g}"
    flops = _scaled(row.flops_forward + row.flops_backward)
    peak = _bytes(row.stored + row.transient)
    return row.name, products, flops, _bytes(row.stored), peak, _bytes(row.moved)


def _part(row: PartRow) -> tuple[str, ...]:
    flops = _scaled(row.forward + row.backward)
    return row.name, row.what, f"{row.parameters:,}", _bytes(row.size), flops, _bytes(row.kept)


def _ratio(ours: float, theirs: float) -> str:
    return f"{ours / theirs:.2f}" if theirs else "-"


def _scaled(number: float) -> str:
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {prefix}"
    return f"{number:.3g}"


def _bytes(number: float) -> str:
    for unit, size in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f} B"
