"""A trained run, loaded from its folder for use in Python and for evaluation."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from rich.console import Console

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.configuration import NothingToResume
from vlmdsl.diagnostics.catalog.environment import CannotWrite
from vlmdsl.diagnostics.cells import displayed, plain
from vlmdsl.runtime.data import Materials, Skipped, fingerprint, remarks_of, too_few_usable
from vlmdsl.runtime.evaluation import Evaluation, results_json, results_table, stored_untrained
from vlmdsl.runtime.files import rounded
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.tokenizer import Tokenizers
from vlmdsl.runtime.training.assembly import Data, materials_of
from vlmdsl.runtime.training.checkpoint import (
    check_written_by,
    checked,
    load_weights,
    read_position,
    sound_checkpoint,
    stage_of,
)
from vlmdsl.runtime.training.course import DataFacts, Model, StageOfRun, models_of, open_course, with_settings
from vlmdsl.runtime.training.encoders import library_towers
from vlmdsl.runtime.training.examples import draw_examples
from vlmdsl.runtime.training.flow_measures import held_out_of_stage
from vlmdsl.runtime.training.held_out import HeldOut
from vlmdsl.runtime.training.processes import World, join_processes
from vlmdsl.runtime.training.run_folder import RunFolder
from vlmdsl.runtime.training.stage_sizes import StageSizes
from vlmdsl.runtime.training.tokenizers import stored_tokenizers
from vlmdsl.schema import RunConfig
from vlmdsl.source import Span

__all__ = [
    "UNTRAINED_ELSEWHERE", "Restored", "conditions_of", "evaluate_run", "known_untrained", "measured",
    "of_earlier_stages", "restored_model", "results_text",
]  # fmt: skip

UNTRAINED_ELSEWHERE = (
    "the model before its first step is not measured: the pretrained weights of its towers are not in the run folder, and "
    "nothing is asked of a hub"
)
"""What is said where results under new conditions stand beside chance alone."""


def evaluate_run(
    course: Sequence[StageOfRun],
    config: RunConfig,
    folder: RunFolder,
    evaluate_on: tuple[str, ...] = (),
    evaluate_map: Mapping[str, str] | None = None,
) -> tuple[dict[str, Any], str]:
    """Measure the newest sound checkpoint in `folder`: the results as JSON and as a table.

    On the run's own held-out data they replace `evaluation.json`; what that says of the untrained model, measured under
    the same conditions, is taken over. Where the folder cannot be written to, the table says so. `evaluate_map` says which
    of its columns feed which fields. Raises `DiagnosticError` (V0816) without a checkpoint.
    """
    config, elsewhere = folder.with_kept_towers(config, library_towers(config.model))
    with join_processes(config.train.device) as world:
        restored = _built(course, config, folder, world, evaluate_on, evaluate_map)
        data = restored.data[restored.stage.measured.name]
        model = models_of(restored.model, restored.stage)[restored.stage.measured.name]
        held_out = held_out_of_stage(restored.stage, restored.data, restored.model)
        if held_out is None:
            lack = "there is no held-out data, or it has neither texts nor classes that the recipe could be measured by"
            return {}, f"nothing to evaluate: {lack}{'' if evaluate_on else '; `--data` names other data'}"
        conditions = conditions_of(config, data, evaluate_map, sizes=restored.stage.sizes)
        # Other data may have samples of the same names: what the folder says is about the run's own.
        untrained = None if evaluate_on else known_untrained(folder, conditions)
        remarks = [] if untrained or not elsewhere else [f"note: {UNTRAINED_ELSEWHERE}"]
        if untrained is None and not elsewhere:
            untrained = held_out.measure(model, untrained=True)
        restored.load()
        before = (
            [] if evaluate_on else list(takewhile(lambda name: name != restored.stage.name, (each.name for each in course)))
        )
        earlier = of_earlier_stages(folder.read_evaluation(), before)
        trained = held_out.measure(model)
        results = measured(restored.step, trained, untrained, conditions, earlier)
        if not evaluate_on and world.first:
            remarks += _written(folder, results, trained)
        return results, "\n".join([results_text(results), *remarks, *_remarks(data, held_out)])


def _written(folder: RunFolder, results: Mapping[str, object], trained: Evaluation) -> list[str]:
    """Keep results in the folder of their run; a remark where nothing can be written there, as in that of someone else."""
    try:
        folder.write_evaluation(results)
        draw_examples(trained, folder.path)
    except DiagnosticError as error:
        fault = error.diagnostics[0]
        if fault.code != CannotWrite.code:
            raise
        return [f"note: {fault.message}; the results are not kept"]
    return []


def _remarks(data: Data, held_out: HeldOut) -> list[str]:
    """What of the held-out data was left out or skipped, a line each; `DiagnosticError` (V0820) if all of it was."""
    assert data.held_out is not None
    report = held_out.batches.report
    if len(report.samples) == len(data.held_out):
        skipped = [Skipped(key, reason) for key, reason in report.samples.items()]
        raise DiagnosticError((too_few_usable(data.held_out.name, len(skipped), 0, 1, skipped),))
    return [*map(displayed, remarks_of(data.held_out)), *report.table().splitlines()]


def restored_model(
    course: Sequence[StageOfRun], config: RunConfig, folder: RunFolder, checkpoint: Path | None = None
) -> Restored:
    """A `checkpoint` of `folder`, by default the newest sound one, loaded. V0816 without any.

    The training data is opened only where the model is made of it: where it retrieves from reference samples, or where
    `run.json` does not say what a tower needs to know of the data.
    """
    with join_processes(config.train.device) as world:
        config = folder.with_kept(config, without_weights=library_towers(config.model))
        restored = _built(course, config, folder, world, only_weights=True, chosen=checkpoint)
        restored.load()
        return restored


@dataclass(frozen=True)
class Restored:
    """A run as it was before its first step, and the checkpoint that is to be loaded."""

    checkpoint: Path
    stage: StageOfRun
    """The one that the checkpoint is of."""
    data: dict[str, Data]
    """The data of each flow; empty where it was not opened."""
    tokenizers: Tokenizers
    model: Model

    @property
    def measured(self) -> VisionLanguageModel:
        """The model of the flow that is evaluated."""
        return models_of(self.model, self.stage)[self.stage.measured.name]

    @property
    def materials(self) -> Materials:
        """What that flow's views of samples are made with."""
        return materials_of(self.stage.measured.config)

    @property
    def step(self) -> int:
        """The number of optimiser steps before the checkpoint."""
        return read_position(self.checkpoint).step

    def load(self) -> None:
        """Put the weights of the checkpoint into the model."""
        load_weights(self.checkpoint, self.model)
        if self.stage.starts_from and self.data:
            self.stage.prepare(self.data, self.model)


def _built(
    course: Sequence[StageOfRun],
    config: RunConfig,
    folder: RunFolder,
    world: World,
    evaluate_on: tuple[str, ...] = (),
    evaluate_map: Mapping[str, str] | None = None,
    *,
    only_weights: bool = False,
    chosen: Path | None = None,
) -> Restored:
    checkpoint, notes = sound_checkpoint(folder.checkpoints) if chosen is None else (chosen, [])
    if chosen is not None:
        checked(chosen)
    if checkpoint is None:
        reason = "it has no complete checkpoint"
        raise DiagnosticError((NothingToResume.at(Span("<command line>", 0, 0), path=folder.path, reason=reason),))
    check_written_by(checkpoint, folder.read_facts().identity)
    course = with_settings(course, config)
    name = stage_of(checkpoint, [stage.name for stage in course])
    stage = next(stage for stage in course if stage.name == name)
    facts = DataFacts.recorded(stage, folder.read_facts()) if only_weights else None
    data = {} if facts else open_course(course, evaluate_on, evaluate_map, only=stage.name).stages[stage.name]
    tokenizers = stored_tokenizers(checkpoint)
    model = stage.build(tokenizers, world, facts or DataFacts.of(data))
    if data:
        stage.prepare(data, model)
    if world.first:
        for note in notes:
            print(plain(f"note: {note}; using {checkpoint.name}"), file=sys.stderr)
    return Restored(checkpoint, stage, data, tokenizers, model)


def measured(
    step: int,
    trained: Evaluation,
    untrained: Evaluation | None,
    conditions: Mapping[str, object],
    earlier: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """The contents of `evaluation.json`; `earlier` are those of earlier stages, by their names."""
    results = {"step": step, **rounded(results_json(trained, untrained)), "conditions": dict(conditions)}
    return {**results, "stages": dict(earlier)} if earlier else results


def of_earlier_stages(stored: Mapping[str, Any], stages: Iterable[str]) -> dict[str, Any]:
    """The results of these stages in `evaluation.json`, which is of one of them or of a later one."""
    of, own = stored.get("conditions", {}).get("stage"), {name: value for name, value in stored.items() if name != "stages"}
    every = {**stored.get("stages", {}), of: own}
    return {name: every[name] for name in stages if name in every}


def conditions_of(
    config: RunConfig,
    data: Data,
    evaluate_map: Mapping[str, str] | None = None,
    *,
    sizes: StageSizes,
) -> dict[str, object]:
    """Everything that the numbers of an evaluation depend on besides the weights, as JSON; `sizes` are those of the stage,
    where they are not those of the run."""
    held_out = None if data.held_out is None else fingerprint(data.held_out)
    own = {name: getattr(sizes, name) or getattr(config.model, name) for name in ("image_size", "text_length")}
    return {
        **({"stage": sizes.stage} if sizes.stage else {}),
        **{name: size for name, size in own.items() if size is not None},
        "held_out": held_out,
        "map": {**config.data.map, **(evaluate_map or {})},
        **config.evaluation.model_dump(mode="json", exclude={"every", "batch"}),
    }


def known_untrained(folder: RunFolder, conditions: Mapping[str, object]) -> Evaluation | None:
    """The stored results of the untrained model under these conditions; None if there are none."""
    for stored in (folder.read_evaluation(), folder.read_untrained()):
        if stored.get("conditions") == conditions and (untrained := stored_untrained(stored)) is not None:
            return untrained
    return None


def results_text(results: dict[str, Any]) -> str:
    """The results as a table for people."""
    console = Console(file=io.StringIO(), width=100)
    with console.capture() as captured:
        console.print(results_table(results))
    return captured.get().rstrip()
