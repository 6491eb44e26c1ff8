"""`plan` with settings of a run: the sizes of its towers and data, and what its weights take, frozen parts and adapters too.
Torch is imported when it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from vlmdsl.api.driver import Built
from vlmdsl.api.runs import course
from vlmdsl.api.tables import table_text
from vlmdsl.schema import RunConfig, config_of

if TYPE_CHECKING:
    from vlmdsl.runtime.training.weights import ModuleWeights

__all__ = ["PlannedRun", "PlannedWeights", "planned_run"]

_MIB = 2**20


@dataclass(frozen=True)
class PlannedWeights:
    """The weights of each stage of a run, by module, on each of `world` processes; `sharded` among them or not."""

    stages: Mapping[str, tuple[ModuleWeights, ...]]
    world: int
    sharded: bool

    def to_json(self) -> dict[str, Any]:
        """The same, for a machine; sizes in bytes."""
        stages = {name: [row._asdict() for row in rows] for name, rows in self.stages.items()}
        return {"world": self.world, "sharded": self.sharded, "stages": stages}

    def to_text(self) -> str:
        """A table for each stage, with a sum."""
        return "\n".join(self._table(name, rows) for name, rows in self.stages.items())

    def _table(self, stage: str, rows: Sequence[ModuleWeights]) -> str:
        from rich.table import Table

        spread = f", spread over {self.world} processes" if self.sharded else ""
        title = f"weights on each process{spread}" + (f", stage {stage}" if stage else "")
        table = Table(title=title, title_justify="left")
        table.add_column("module")
        for heading in ("weights", "trained", "adapters", "MiB", "gradients", "moments"):
            table.add_column(heading, justify="right")
        numbers = {row.name: [int(number) for number in row[1:]] for row in rows}
        numbers["together"] = [sum(column) for column in zip(*numbers.values(), strict=True)]
        for name, own in numbers.items():
            counts, sizes = own[:3], own[3:]
            table.add_row(name, *(f"{count:,}" for count in counts), *(f"{size / _MIB:,.1f}" for size in sizes))
        return table_text(table)


@dataclass(frozen=True)
class PlannedRun:
    """What the settings of a run say of its plan: `sizes`, those of each flow by its stage and name, and its weights."""

    sizes: Mapping[tuple[str, str], Mapping[str, Any]]
    weights: PlannedWeights


def planned_run(built: Sequence[Built], resolved: RunConfig, world: int = 1) -> PlannedRun:
    """Build the model of each stage of a run, untrained: take its sizes, and count its weights.

    Frozen parts (`frozen` of the recipe, `model.freeze`) have neither gradient nor moments, adapters (`model.lora`) have
    both; with `train.parallel=sharded` each of `world` processes has its part. No weights are read: of a tower of a hub only
    its settings are. The data of the settings is opened, for its tokenizer. Raises `DiagnosticError` for data or towers that
    cannot be used.
    """
    resolved = resolved.model_copy(
        update={
            "model": resolved.model.model_copy(update={"pretrained": False}),
            "train": resolved.train.model_copy(update={"device": "cpu"}),
        }
    )
    stages = course(built, resolved, compiled=False)
    parts = import_module("vlmdsl.runtime.training.course")
    counted = import_module("vlmdsl.runtime.training.weights").module_weights
    sizes_of = import_module("vlmdsl.runtime.training.planned_sizes").planned_sizes
    opened = parts.open_course(stages)
    tokenizers = parts.tokenizers_of_course(stages, opened)
    sharded = resolved.train.parallel == "sharded" and world > 1
    one = import_module("vlmdsl.runtime.training.processes").World(0, 1, import_module("torch").device("cpu"))
    rows, sizes = {}, {}
    for stage in stages:
        data = opened.stages[stage.name]
        model = stage.build(tokenizers, one, parts.DataFacts.of(data))
        rows[stage.name] = tuple(counted(model, shards=world if sharded else 1))
        for flow, own in parts.models_of(model, stage).items():
            train = config_of(resolved, stage.name, flow).train
            sizes[stage.name, flow] = {"batch": train.batch, "micro": train.micro, **sizes_of(own, data[flow])}
    return PlannedRun(sizes, PlannedWeights(rows, world, sharded))
