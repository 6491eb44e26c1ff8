"""`plan` with settings: what the weights of a run take, frozen parts and adapters too. Torch is imported when it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmdsl.api.driver import build_flows
from vlmdsl.api.runs import course, load_settings, parts_of
from vlmdsl.api.tables import table_text

if TYPE_CHECKING:
    from vlmdsl.runtime.training.weights import ModuleWeights

__all__ = ["PlannedWeights", "planned_weights"]

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


def planned_weights(
    recipe: str | Path,
    *,
    expression: bool = False,
    knobs: Mapping[str, object] | None = None,
    config: str | Path | None = None,
    settings: Iterable[str] = (),
    world: int = 1,
) -> PlannedWeights:
    """Build the model of each stage of a run, untrained, and count its weights.

    Frozen parts (`frozen` of the recipe, `model.freeze`) have neither gradient nor moments, adapters (`model.lora`) have
    both; with `train.parallel=sharded` each of `world` processes has its part. No weights are read: of a tower of a hub only
    its settings are. The data of the settings is opened, for its tokenizer. Raises `DiagnosticError` for settings, data or
    towers that cannot be used.

    >>> from vlmdsl.api.weights import planned_weights
    >>> settings = ["model.freeze.vision=1", "data.train=shapes:samples=50"]
    >>> rows = planned_weights("clip", settings=settings).stages[""]
    >>> [(row.name, row.trained < row.weights) for row in rows]
    [('vision', True), ('language', False), ('objective', False)]
    """
    built = build_flows(recipe, expression=expression, knobs=knobs)
    resolved = load_settings(config, settings, {}, parts_of(built))
    resolved = resolved.model_copy(
        update={
            "model": resolved.model.model_copy(update={"pretrained": False}),
            "train": resolved.train.model_copy(update={"device": "cpu"}),
        }
    )
    stages = course(built, resolved, compiled=False)
    parts = import_module("vlmdsl.runtime.training.course")
    weights = import_module("vlmdsl.runtime.training.weights")
    opened = parts.open_course(stages)
    tokenizers = parts.tokenizers_of_course(stages, opened)
    sharded = resolved.train.parallel == "sharded" and world > 1
    one = import_module("vlmdsl.runtime.training.processes").World(0, 1, import_module("torch").device("cpu"))
    rows = {}
    for stage in stages:
        model = stage.build(tokenizers, one, parts.DataFacts.of(opened.stages[stage.name]))
        rows[stage.name] = tuple(weights.module_weights(model, shards=world if sharded else 1))
    return PlannedWeights(rows, world, sharded)
