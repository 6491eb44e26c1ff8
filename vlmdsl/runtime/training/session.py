"""One run from beginning to end: data, model, evaluation, training, and evaluation again, all saved in its folder."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vlmdsl._resources import installed_version
from vlmdsl.diagnostics.cells import plain
from vlmdsl.runtime.data import BatchLoader, MixedBatches, Survey, check_batch
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.tokenizer import Tokenizer, Tokenizers
from vlmdsl.runtime.tracking.trackers import check_trackers
from vlmdsl.runtime.training.assembly import Data
from vlmdsl.runtime.training.checkpoint import read_position, read_state, sound_checkpoint, stage_of
from vlmdsl.runtime.training.course import (
    DataFacts,
    Model,
    Opened,
    StageOfRun,
    all_weights_follow,
    open_course,
    tokenizers_of_course,
    with_settings,
)
from vlmdsl.runtime.training.encoders import library_towers
from vlmdsl.runtime.training.ending import Ending
from vlmdsl.runtime.training.flow_measures import held_out_of_stage
from vlmdsl.runtime.training.held_out import HeldOut
from vlmdsl.runtime.training.identity import identity_of, settings_of
from vlmdsl.runtime.training.initial import initial_checkpoint, take_initial_weights
from vlmdsl.runtime.training.length import in_steps
from vlmdsl.runtime.training.loss_scale import LossScale
from vlmdsl.runtime.training.measuring import conditions_of
from vlmdsl.runtime.training.meeting import compare, together
from vlmdsl.runtime.training.optimizer import build_optimizer
from vlmdsl.runtime.training.processes import World, join_processes, join_reports
from vlmdsl.runtime.training.run_folder import RunFolder
from vlmdsl.runtime.training.stages import BegunStage
from vlmdsl.runtime.training.starting import RecipeFiles, check_same_data, write_resumed, write_start, write_towers
from vlmdsl.runtime.training.tokenizers import check_towers, stored_tokenizers
from vlmdsl.runtime.training.written import with_written_texts
from vlmdsl.schema import RunConfig

__all__ = ["Outcome", "run"]

_MARK = 12
"""How many digits of a SHA-256 are shown."""


@dataclass(frozen=True)
class Outcome:
    """The result of a run: its folder, the trained model, its tokenizer, the evaluation as JSON, a summary for people."""

    folder: RunFolder
    model: VisionLanguageModel
    tokenizer: Tokenizer
    evaluation: dict[str, Any]
    summary: str
    first: bool = True
    """Whether this process writes the folder."""


def run(course: Sequence[StageOfRun], config: RunConfig, recipe: RecipeFiles, resume: RunFolder | None = None) -> Outcome:
    """Train all stages in a new folder, or in `resume` from its newest sound checkpoint.

    Only the first of several processes writes, evaluates and talks. A signal that asks the process to end (`StopSignals`)
    ends the run at the next step with a checkpoint; KeyboardInterrupt or SystemExit is raised then.
    """
    with Ending() as ending, join_processes(config.train.device, _given(recipe, config)) as world:
        with together():
            opened = _open(course, config, resume, world, ending)
        config = config.model_copy(update={"train": opened.config.train})
        *earlier, last = opened.left
        over: _Over | None = None
        for stage in earlier:
            over = _over(_trained(stage, opened, config, recipe, resume, world, ending, over))
        begun = _trained(last, opened, config, recipe, resume, world, ending, over)
        result = begun.measured, begun.tokenizers.default, begun.results, begun.summary()
        return Outcome(begun.folder, *result, first=world.first)


@dataclass(frozen=True)
class _Over:
    """What the next stage has to know of those that this process has trained; their models are not kept."""

    folder: RunFolder
    records: int
    """The number of written lines of metrics."""


def _over(begun: BegunStage) -> _Over:
    return _Over(begun.folder, begun.records)


def _trained(
    stage: StageOfRun,
    opened: _Opened,
    config: RunConfig,
    recipe: RecipeFiles,
    resume: RunFolder | None,
    world: World,
    ending: Ending,
    over: _Over | None,
) -> BegunStage:
    """A stage, trained to its end and measured; `over` are those before it."""
    with together():
        prepared = _prepare(stage, opened, world, resume, over)
    compare(prepared.facts())
    with together():
        begun = _begin(prepared, config, recipe, resume, world, ending, over)
    if world.first:
        with suppress(OSError):  # the terminal may be gone
            print(plain(begun.announcement()), file=sys.stderr, flush=True)
    with begun.tracked():
        begun.train(ending.signals)
        join_reports(begun.batches.report)
        begun.measure(stage.end)
    begun.note_skipped()
    return begun


def _given(recipe: RecipeFiles, config: RunConfig) -> dict[str, object]:
    """What all processes of a run are given alike."""
    settings = {f"`{name}`": value for name, value in settings_of(config).items()}
    versions = {"versions of vlmdsl": installed_version(), "versions of torch": torch.__version__}
    recipes = {name: digest[:_MARK] for name, digest in recipe.record["digests"].items()}
    return {**settings, "recipes": recipes, "knobs": recipe.record["knobs"], **versions}


@dataclass(frozen=True)
class _Opened:
    """What all stages of a run have in common, before anything is written."""

    course: Sequence[StageOfRun]
    config: RunConfig
    """Names the copies in the run folder of files that the settings name."""
    data: Opened
    tokenizers: Tokenizers
    checkpoint: Path | None
    """The checkpoint to load."""
    damaged: list[str]
    """The damage of newer checkpoints."""
    elsewhere: bool
    """Whether the weights that the towers began with are not in the run folder, and the model is built without them."""

    @property
    def left(self) -> Sequence[StageOfRun]:
        """The stages that are not over; at least the last one."""
        if self.checkpoint is None:
            return self.course
        names = [stage.name for stage in self.course]
        number = names.index(stage_of(self.checkpoint, names))
        done = read_position(self.checkpoint).step >= self.course[number].end
        over = done and number + 1 < len(self.course)
        return self.course[number + over :]


@dataclass(frozen=True)
class _Prepared:
    """What a stage is made of, before anything is written for it."""

    opened: _Opened
    stage: StageOfRun
    samples: dict[str, Any]
    """What `run.json` says of each source."""
    model: Model
    surveys: dict[str, Survey]
    batches: BatchLoader | MixedBatches
    held_out: HeldOut | None
    checkpoint: Path | None
    """What is to be loaded of this stage."""

    @property
    def data(self) -> dict[str, Data]:
        """The data of each flow."""
        return self.opened.data.stages[self.stage.name]

    def facts(self) -> dict[str, object]:
        """Facts that must be equal on all processes, besides the arguments."""
        tensors = [(name, str(tensor.dtype), list(tensor.shape)) for name, tensor in self.model.state_dict().items()]
        read = [(name, own) for name, own in self.samples.items() if not name.endswith("held_out")]
        return {
            "data": [f"{_size(own)} in `{name}` ({own['fingerprint'][:_MARK]})" for name, own in read],
            "texts": _digest(self.opened.tokenizers.to_json())[:_MARK],
            "towers": _digest(json.dumps(tensors))[:_MARK],
            "checkpoints": None if self.checkpoint is None else read_position(self.checkpoint).step,
        }


def _open(
    course: Sequence[StageOfRun], config: RunConfig, resume: RunFolder | None, world: World, ending: Ending
) -> _Opened:
    """Data and tokenizers of all stages, faults of the user's first. The folder is locked until `ending` is."""
    check_trackers(config.tracking.trackers)
    checkpoint, damaged, elsewhere = None, list[str](), False
    if resume is not None:
        if world.first:
            ending.lock(resume)
            ending.folder = resume
        checkpoint, damaged = sound_checkpoint(resume.checkpoints)
        ending.done = None if checkpoint is None else read_position(checkpoint).step
        if checkpoint is not None and all_weights_follow(course, stage_of(checkpoint, [stage.name for stage in course])):
            config, elsewhere = resume.with_kept_towers(config, library_towers(config.model))
        else:  # a later stage may have towers that no checkpoint has the weights of
            config = resume.with_kept(config)
        course = with_settings(course, config)
    check_towers([flow.objective for stage in course for flow in stage.flows], config.model)
    data = open_course(course)
    if resume is None:  # whose steps are counted already
        config = in_steps(config, course, data.stages)
        course = with_settings(course, config)
    for stage in course[1:]:  # the first stage checks its own when it begins, before anything is trained
        for flow in stage.flows:
            own = data.stages[stage.name][flow.name]
            if own.stream is None:
                setting = f"stages.{stage.name}.train.batch"
                check_batch(len(own.train), flow.config.train.batch, world.size, setting=setting)
    tokenizers = stored_tokenizers(checkpoint) if checkpoint else tokenizers_of_course(course, data)
    for stage in course[1:]:
        stage.check_sizes(tokenizers, DataFacts.of(data.stages[stage.name]))
    return _Opened(course, config, data, tokenizers, checkpoint, damaged, elsewhere)


def _prepare(stage: StageOfRun, opened: _Opened, world: World, resume: RunFolder | None, over: _Over | None) -> _Prepared:
    """Model and batches of a stage; `over` are those that this process has trained."""
    data = opened.data.stages[stage.name]
    folder = resume if over is None else over.folder
    if folder is not None:
        data = with_written_texts(stage, opened.course, opened.data.stages, opened.tokenizers, folder, world)
    model = stage.build(opened.tokenizers, world, DataFacts.of(data))
    surveyed = stage.survey(data, model)
    stage.prepare(data, model)
    batches = stage.batches(data, model, world)
    for own in surveyed.values():
        batches.report.merge(own["train"].skipped)
    held_out = held_out_of_stage(stage, data, model) if world.first else None
    samples = opened.data.facts(opened.course, surveyed, stage.name)
    if resume is not None:
        check_same_data(resume, samples)
    labelled = {f"{name}:{what}" if name else what: survey for name, own in surveyed.items() for what, survey in own.items()}
    checkpoint = opened.checkpoint
    if checkpoint is not None and (over is not None or read_position(checkpoint).stage != stage.name):
        checkpoint = None
    return _Prepared(opened, stage, samples, model, labelled, batches, held_out, checkpoint)


def _begin(
    prepared: _Prepared,
    config: RunConfig,
    recipe: RecipeFiles,
    resume: RunFolder | None,
    world: World,
    ending: Ending,
    over: _Over | None,
) -> BegunStage:
    """Everything else before the first step of a stage: the folder, the untrained model measured, weights loaded."""
    opened, stage, model, checkpoint = prepared.opened, prepared.stage, prepared.model, prepared.checkpoint
    if over is not None:
        folder = over.folder
    else:
        folder = resume or _new_folder(prepared, recipe, world, ending)
        if resume is not None and world.first:
            write_resumed(folder, config, world)
    begun = BegunStage(
        name=str(recipe.record["name"]),
        run=identity_of(recipe.record, config, prepared.samples),
        course=opened.course,
        stage=stage,
        folder=folder,
        world=world,
        ending=ending,
        model=model,
        tokenizers=opened.tokenizers,
        optimizer=build_optimizer(model, stage.config.optimizer),
        scale=LossScale.of(stage.config.train.precision),
        batches=prepared.batches,
        held_out=prepared.held_out,
        conditions=conditions_of(opened.config, prepared.data[stage.measured.name], sizes=stage.sizes),
        surveys=prepared.surveys,
        notes=[] if over is not None else opened.damaged,
        unmeasured=[own.unmeasured for own in prepared.data.values() if own.unmeasured],
        elsewhere=opened.elsewhere,
    )
    if over is not None and world.first:
        write_towers(folder, config, model)
    begun.measure_untrained()  # before any weight is loaded: where a resumed run must measure it again, it is the same model
    if checkpoint:
        begun.resume_from(checkpoint)
    elif stage.starts_from:
        begun.start_from(next(each for each in opened.course if each.name == stage.starts_from))
    elif stage.config.model.init is not None:
        begun.initial = take_initial_weights(initial_checkpoint(stage.config.model.init), model)
    if stage.starts_from or begun.initial:
        stage.prepare(prepared.data, model)  # with the weights that the towers have now
    if world.first:
        last = opened.checkpoint if over is None else None
        recorded = read_state(last).records if last else 0 if over is None else over.records
        begun.records = folder.forget_after(stage.before + begun.start, recorded)
    return begun


def _new_folder(prepared: _Prepared, recipe: RecipeFiles, world: World, ending: Ending) -> RunFolder:
    """The folder of a new run with its first files. Only the first process knows its name, and only it needs to."""
    if not world.first:
        return RunFolder(Path("runs"))
    folder = RunFolder.create(prepared.opened.config.out, str(recipe.record["name"]))
    ending.lock(folder)
    RunFolder.check_free(str(folder.path))  # another process may have been faster
    write_start(folder, recipe, prepared.opened.config, prepared.samples, prepared.model, world)
    ending.folder = folder
    return folder


def _size(samples: Mapping[str, Any]) -> str:
    """The number of samples of a source, or of shards of a stream."""
    return f"{samples['shards']:,} shards" if samples["samples"] is None else f"{samples['samples']:,} samples"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
