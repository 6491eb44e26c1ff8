"""`verify`: does a recipe give the same on several processes and in micro-batches? Torch is imported when it runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmdsl.api.driver import build_flows, given_hyper_parameters
from vlmdsl.api.runs import course, load_settings, parts_of, settings_of_call
from vlmdsl.api.tables import table_text
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.cells import displayed
from vlmdsl.schema import DataSources, RunConfig

if TYPE_CHECKING:
    from rich.table import Table

    from vlmdsl.runtime.training.verification import Traces

__all__ = ["Difference", "Verification", "verify"]

TOLERANCE = 1e-7
"""The largest relative difference that the order of sums in float64 explains."""
_BATCH = 16
_TERM = "terms/"
_FIXED = {"train.device": "cpu", "train.precision": "float32", "train.micro": None}
_PATIENCE = 1800.0
"""Seconds after which processes that have not finished are ended."""


@dataclass(frozen=True)
class Difference:
    """How far a row of the table differs from one process with the whole batch.

    `largest` is relative; it is that of the tensor `tensor` among those of the row.
    """

    stage: str
    row: str
    way: str
    largest: float
    tensor: str

    @property
    def equal(self) -> bool:
        """Whether rounding explains it."""
        return self.largest <= TOLERANCE


@dataclass(frozen=True)
class Verification:
    """What the first steps leave on one process, and how far other ways to compute them differ."""

    recipe: str
    batch: int
    ways: tuple[str, ...]
    """`4 processes` and `4 micro-batches`."""
    differences: tuple[Difference, ...]
    losses: Mapping[tuple[str, str], float]
    """(stage, row) -> the loss of the first step that has the term."""
    stopped: Mapping[str, str]
    """Way -> the error that ended it."""

    @property
    def equal(self) -> bool:
        """Whether every way ran and all rows are equal."""
        return not self.stopped and all(difference.equal for difference in self.differences)

    def to_json(self) -> dict[str, Any]:
        """The same, as plain data."""
        rows = [{**vars(difference), "equal": difference.equal} for difference in self.differences]
        head = {"recipe": self.recipe, "batch": self.batch, "tolerance": TOLERANCE, "equal": self.equal}
        return {**head, "stopped": dict(self.stopped), "differences": rows}

    def to_text(self) -> str:
        """A table with a line per term, and what differs below it."""
        lines = [table_text(self._table())]
        lines += [f"{way} stopped: {reason}" for way, reason in self.stopped.items()]
        differing = [own for own in self.differences if not own.equal]
        for own in differing:
            place = f"{own.row} of the stage {own.stage}" if own.stage else own.row
            lines.append(f"differs: {place} with {own.way}, most in {own.tensor}")
        if differing:
            lines.append("A tower with dropout or with statistics of the batch differs by itself.")
        return "\n".join(lines)

    def _table(self) -> Table:
        from rich.table import Table

        title = f"{displayed(self.recipe)}, {self.batch} samples per step in float64: largest relative differences"
        table = Table(title=title)
        staged = any(own.stage for own in self.differences)
        for heading in ("stage", "") if staged else ("",):
            table.add_column(heading)
        for heading in ("one process", *self.ways):
            table.add_column(heading, justify="right")
        cells = {(own.stage, own.row, own.way): own for own in self.differences}
        for stage, row in dict.fromkeys((own.stage, own.row) for own in self.differences):
            loss = self.losses.get((stage, row))
            ways = (_cell(cells.get((stage, row, way))) for way in self.ways)
            table.add_row(*((stage, row) if staged else (row,)), "" if loss is None else f"{loss:.6g}", *ways)
        return table


def _cell(difference: Difference | None) -> str:
    if difference is None:
        return "stopped"
    return f"{difference.largest:.1e}" + ("" if difference.equal else " DIFFERS")


def verify(
    recipe: str | Path,
    *,
    world: int = 2,
    micro: int = 2,
    expression: bool = False,
    knobs: Mapping[str, object] | None = None,
    data: DataSources = (),
    val: DataSources = (),
    map: Mapping[str, str] | None = None,
    config: str | Path | None = None,
    overrides: Iterable[str] = (),
    settings: Mapping[str, object] | None = None,
) -> Verification:
    """Train a recipe for its first steps on one process, on `world` processes (gloo, on the CPU) and in `micro`
    micro-batches, and compare losses, gradients, weights and state.

    The objective runs uncompiled, in float64. Every stage begins with new weights. Processes are spawned, so a script calls
    this below `if __name__ == "__main__":`. Raises `DiagnosticError` with the errors of the recipe, the configuration and
    the data.

    Args:
        recipe, expression, knobs, data, val, map, config, overrides, settings: as for `vlmdsl.train`, but that `val` is
            only set aside; `train.batch` is 16, or the smallest larger number that can be split, unless a setting says
            otherwise.
        world: number of processes; 1 leaves this comparison out.
        micro: number of micro-batches; 1 leaves this comparison out.

    >>> verification = verify("clip", world=1, micro=4, data=["shapes:samples=32,size=16"], settings={"train.batch": 8})
    >>> verification.equal, verification.ways
    (True, ('4 micro-batches',))
    """
    if world < 1 or micro < 1:
        raise ValueError("`world` and `micro` are at least 1")
    built = build_flows(recipe, expression=expression, knobs=knobs)
    unit = world * micro
    flags = settings_of_call(data, val, map, settings)
    resolved = load_settings(config, overrides, flags, parts_of(built), _FIXED)
    if "batch" not in resolved.train.model_fields_set:
        resolved = _with_train(resolved, batch=unit * -(-_BATCH // unit))
    job = str(recipe), expression, dict(given_hyper_parameters(knobs))
    alone = _share(*job, resolved, None)
    ways: dict[str, tuple[int, int | None]] = {f"{world} processes": (world, None)} if world > 1 else {}
    ways |= {f"{micro} micro-batches": (1, -(-resolved.train.batch // micro))} if micro > 1 else {}
    differences: list[Difference] = []
    stopped: dict[str, str] = {}
    for way, (processes, chunk) in ways.items():
        try:
            shares = _run(processes, *job, resolved, chunk)
        except DiagnosticError as error:
            stopped[way] = f"{error.diagnostics[0].code}: {error.diagnostics[0].message}"
            continue
        except RuntimeError as error:  # what one of several processes raised, with its traceback
            stopped[way] = str(error).strip().rpartition("\n")[2]
            continue
        differences += _differences(way, alone, shares)
    return Verification(
        built[0].written.name, resolved.train.batch, tuple(ways), tuple(differences), _first_losses(alone), stopped
    )


def _run(
    processes: int, recipe: str, expression: bool, knobs: Mapping[str, object], config: RunConfig, micro: int | None
) -> list[Traces]:
    """What the first steps leave on each process."""
    job = recipe, expression, knobs, config, micro
    if processes == 1:
        return [_share(*job)]
    quiet = os.environ.get("TORCH_CPP_LOG_LEVEL")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else DDP warns where a step uses all parameters
    try:
        run_processes = import_module("vlmdsl.testing.distributed").run_processes
        shares: list[Traces] = run_processes(_share, processes, *job, timeout=_PATIENCE)
    finally:
        if quiet is None:
            del os.environ["TORCH_CPP_LOG_LEVEL"]
    return shares


def _share(recipe: str, expression: bool, knobs: Mapping[str, object], config: RunConfig, micro: int | None) -> Traces:
    """What this process has after the first steps; each of several runs this."""
    flows = build_flows(recipe, expression=expression, knobs=knobs)
    stages = course(flows, _with_train(config, micro=micro), compiled=False)
    processes = import_module("vlmdsl.runtime.training.processes")
    with processes.join_processes("cpu") as world:
        traces: Traces = import_module("vlmdsl.runtime.training.verification").first_steps(stages, world)
    return traces


def _with_train(config: RunConfig, **settings: int | None) -> RunConfig:
    return config.model_copy(update={"train": config.train.model_copy(update=settings)})


def _differences(way: str, alone: Traces, shares: Sequence[Traces]) -> list[Difference]:
    """A row for each term, and one for each kind of tensor, of every stage."""
    differences = []
    relative = import_module("vlmdsl.runtime.training.verification").relative_difference
    for stage, kinds in alone.items():
        for kind, tensors in kinds.items():
            rows: dict[str, list[str]] = {}
            for name in tensors:
                rows.setdefault(_row(kind, name), []).append(name)
            for row, names in rows.items():
                by_name = {
                    name: max(relative(share[stage][kind].get(name), tensors[name]) for share in shares) for name in names
                }
                worst = max(by_name, key=by_name.__getitem__)
                differences.append(Difference(stage, row, way, by_name[worst], worst))
    return differences


def _row(kind: str, name: str) -> str:
    """The row of a tensor: losses of terms have their own."""
    if kind != "losses" or name == "loss":
        return kind if kind != "losses" else "loss"
    return name.removeprefix(_TERM) if name.startswith(_TERM) else "measures"


def _first_losses(alone: Traces) -> dict[tuple[str, str], float]:
    return {
        (stage, _row("losses", name)): float(values[0])
        for stage, kinds in alone.items()
        for name, values in kinds["losses"].items()
        if name == "loss" or name.startswith(_TERM)
    }
