"""The measures of a stage: those of its measured flow, and of others that have a measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from vlmdsl.runtime.data import EvaluationLoader
from vlmdsl.runtime.evaluation import Evaluation
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.training.assembly import Data
from vlmdsl.runtime.training.course import Model, StageOfRun, models_of
from vlmdsl.runtime.training.held_out import HeldOut, held_out_measure

__all__ = ["held_out_of_stage"]


@dataclass(frozen=True)
class _WithOthers:
    """The measure of the measured flow, and those of other flows with their models, by name."""

    own: HeldOut
    others: Mapping[str, tuple[HeldOut, VisionLanguageModel]]

    @property
    def batches(self) -> EvaluationLoader:
        return self.own.batches

    def measure(self, model: VisionLanguageModel, *, untrained: bool = False) -> Evaluation:
        flows = {name: held_out.measure(other, untrained=untrained) for name, (held_out, other) in self.others.items()}
        return replace(self.own.measure(model, untrained=untrained), flows=flows)


def held_out_of_stage(stage: StageOfRun, data: Mapping[str, Data], model: Model) -> HeldOut | None:
    """The measure of the flows of a stage that have held-out data; None if the measured flow has none."""
    models = models_of(model, stage)
    measures = {
        flow.name: (held_out, models[flow.name])
        for flow in stage.flows
        if (held_out := held_out_measure(flow.objective.program, flow.config, data[flow.name], models[flow.name]))
    }
    own = measures.pop(stage.measured.name, None)
    return None if own is None else _WithOthers(own[0], measures) if measures else own[0]
