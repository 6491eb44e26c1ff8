"""One run from beginning to end: data, model, evaluation, training, and evaluation again, all saved in its folder."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.optim import AdamW

from vlmdsl._resources import installed_version
from vlmdsl.backends.torch.objective import Objective
from vlmdsl.diagnostics.cells import plain
from vlmdsl.runtime.data import BatchLoader, SkipReport, Survey
from vlmdsl.runtime.evaluation import Evaluation
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.tokenizer import Tokenizer, Tokenizers
from vlmdsl.runtime.tracking import Reporter, draw_curves
from vlmdsl.runtime.training.assembly import Data, build_model, open_data, read_tokenizers, surveys, training_batches
from vlmdsl.runtime.training.checkpoint import (
    Position,
    check_written_by,
    load_checkpoint,
    read_position,
    read_state,
    save_checkpoint,
    sound_checkpoint,
)
from vlmdsl.runtime.training.ending import Ending
from vlmdsl.runtime.training.held_out import HeldOut, held_out_measure
from vlmdsl.runtime.training.identity import identity_of, settings_of
from vlmdsl.runtime.training.loop import Callbacks, train_steps
from vlmdsl.runtime.training.measuring import (
    TOKENIZER,
    conditions_of,
    known_untrained,
    measured,
    results_text,
    stored_tokenizers,
)
from vlmdsl.runtime.training.meeting import compare, together
from vlmdsl.runtime.training.optimizer import build_optimizer
from vlmdsl.runtime.training.processes import World, highest, join_processes, join_reports, wait_for_all
from vlmdsl.runtime.training.reference import fill_references
from vlmdsl.runtime.training.run_folder import RunFolder
from vlmdsl.runtime.training.starting import RecipeFiles, check_same_data, data_facts, write_resumed, write_start
from vlmdsl.runtime.training.stopping import StopSignals, ended_by
from vlmdsl.runtime.training.tokenizers import check_towers
from vlmdsl.schema import RunConfig

__all__ = ["Outcome", "run"]

_WORDS = {"train": "training", "held_out": "held-out", "reference": "reference"}

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


def run(objective: Objective, config: RunConfig, recipe: RecipeFiles, resume: RunFolder | None = None) -> Outcome:
    """Train in a new folder, or in `resume` from its newest sound checkpoint.

    Only the first of several processes writes, evaluates and talks. A signal that asks the process to end (`StopSignals`)
    ends the run at the next step with a checkpoint; KeyboardInterrupt or SystemExit is raised then.
    """
    with Ending() as ending, join_processes(config.train.device, _given(recipe, config)) as world:
        with together():
            prepared = _prepare(objective, config, resume, world, ending)
        compare(prepared.facts())
        with together():
            begun = _begin(prepared, config, recipe, resume, world, ending)
        if world.first:
            with suppress(OSError):  # the terminal may be gone
                print(plain(begun.announcement()), file=sys.stderr, flush=True)
        begun.train(ending.signals)
        join_reports(begun.batches.report)
        begun.measure(config.train.steps)
        begun.note_skipped()
        return Outcome(begun.folder, begun.model, begun.tokenizers.default, begun.results, begun.summary())


def _given(recipe: RecipeFiles, config: RunConfig) -> dict[str, object]:
    """What all processes of a run are given alike."""
    settings = {f"`{name}`": value for name, value in settings_of(config).items()}
    versions = {"versions of vlmdsl": installed_version(), "versions of torch": torch.__version__}
    recipes = {name: digest[:_MARK] for name, digest in recipe.record["digests"].items()}
    return {**settings, "recipes": recipes, "knobs": recipe.record["knobs"], **versions}


@dataclass
class _Begun:
    """A run that is ready for its next step."""

    name: str
    run: str
    """The identity of this run: `identity_of`."""
    config: RunConfig
    folder: RunFolder
    world: World
    ending: Ending
    model: VisionLanguageModel
    tokenizers: Tokenizers
    optimizer: AdamW
    batches: BatchLoader
    held_out: HeldOut | None
    conditions: dict[str, object]
    """The conditions of the evaluation besides the model."""
    surveys: dict[str, Survey]
    """The surveys of the training, held-out and reference samples."""
    start: int = 0
    untrained: Evaluation | None = None
    results: dict[str, Any] = field(default_factory=dict)
    records: int = 0
    """The number of written lines of metrics."""
    notes: list[str] = field(default_factory=list)
    """Damaged checkpoints."""

    def go_on_from(self, checkpoint: Path) -> None:
        """Load what a checkpoint holds; V0853 if another run wrote it."""
        check_written_by(checkpoint, self.run)
        position = load_checkpoint(checkpoint, self.model, self.optimizer)
        self.batches.load_state_dict({"epoch": position.epoch, "batch": position.batch})
        self.start = position.step

    def train(self, signals: StopSignals) -> None:
        """Run the remaining steps; on a signal, write a checkpoint and raise the signal's exception."""

        def stop() -> bool:
            # Until the first step is done, which may take long to compile, nothing is lost by ending at once.
            signals.deferred = True
            return self._agreed(signals)

        def evaluate(step: int) -> None:
            signals.unless_asked(lambda: self.measure(step))

        callbacks = Callbacks(self._log, self.save, evaluate, stop, lambda: bool(signals.received))
        signals.deferred = self.world.size > 1
        try:
            with Reporter(self.folder.metrics, self.config.train.steps, active=self.world.first) as self._reporter:
                self.batches.tell = self._reporter.note
                batches = iter(self.batches)
                train_steps(
                    self.model,
                    self.optimizer,
                    batches,
                    self.config,
                    self.world,
                    start=self.start,
                    per_epoch=self.batches.batches_per_epoch,
                    callbacks=callbacks,
                )
        except Exception:
            # A failed run needs its curves most; its error comes first.
            with suppress(Exception):
                self._draw()
            raise
        finally:
            signals.deferred = False
        self._draw()
        if self._agreed(signals):
            wait_for_all()
            raise ended_by(signals.received)

    def _agreed(self, signals: StopSignals) -> bool:
        """Whether any process was asked to end: all of them are then."""
        highest_received = highest(signals.received)
        if highest_received:  # only then: a signal may have arrived meanwhile, which must not be lost
            signals.received = highest_received
        return highest_received > 0

    def _log(self, record: dict[str, float]) -> None:
        self._reporter.log(record)
        self.records += 1

    def _draw(self) -> None:
        if self.world.first:
            draw_curves(self.folder.metrics, self.folder.curves, self.name)

    def save(self, step: int) -> None:
        """Write a checkpoint: `step` steps are done."""
        if self.world.first:
            position = Position(step, **self.batches.state_dict(), seed=self.config.train.seed)
            save_checkpoint(
                self.folder.checkpoints,
                self.model,
                self.optimizer,
                position,
                texts={TOKENIZER: self.tokenizers.to_json()},
                keep=self.config.train.keep,
                records=self.records,
                run=self.run,
            )
            self.ending.done = step

    def measure(self, step: int) -> None:
        """Measure the model and write `evaluation.json`."""
        if self.held_out is not None:
            self.results = measured(step, self.held_out.measure(self.model), self.untrained, self.conditions)
            self.folder.write_evaluation(self.results)

    def measure_untrained(self) -> None:
        """Measure the model as it was before the first step, or read what was measured when the run began."""
        if self.held_out is not None:
            self.untrained = known_untrained(self.folder, self.conditions)
            if self.untrained is None:
                self.untrained = self.held_out.measure(self.model)
                self.folder.write_untrained(measured(0, self.untrained, self.untrained, self.conditions))

    def announcement(self) -> str:
        """A line about the run (the first step may take long to compile), and one line per remark on the data."""
        weights = sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)
        where = f"{self.world.size} processes on {self.world.device.type}" if self.world.size > 1 else self.world.device.type
        compiling = "; the first step compiles" if self.config.train.compile else ""
        from_step = f" from step {self.start}" if self.start else ""
        lines = [f"note: {note}; continuing from step {self.start}" for note in self.notes]
        lines += [f"training {weights:,} weights on {where} in {self.folder.path}{from_step}{compiling}"]
        lines += [f"note: {note}" for note in self.model.notes]
        for name, survey in self.surveys.items():
            about = "" if name == "train" else f"{_WORDS[name]} data: "
            lines += [f"note: {about}{line}" for line in survey.lines(training=name == "train")]
        return "\n".join(lines)

    def _reports(self) -> dict[str, SkipReport]:
        held_out = {} if self.held_out is None else {"held_out": self.held_out.batches.report}
        return {"train": self.batches.report, **held_out}

    def note_skipped(self) -> None:
        """Write into `run.json` what was skipped, by reason, and what the views had to do without."""
        if self.world.first:
            skipped = {name: report.as_dict() for name, report in self._reports().items()}
            self.folder.write_facts({**self.folder.read_facts().plain(), "skipped": skipped})

    def summary(self) -> str:
        """The results as a table, what was skipped, and the folder."""
        tables = {_WORDS[name]: report.table().replace("\n", "\n  ") for name, report in self._reports().items()}
        skipped = [f"{name} data: {table}" for name, table in tables.items() if table]
        table = (
            [results_text(self.results)] if self.results else ["nothing was evaluated: there is no held-out data (--val)"]
        )
        return "\n".join([*table, *skipped, f"run folder: {self.folder.path}"])


@dataclass(frozen=True)
class _Prepared:
    """The parts of a run, before anything is written. `config` names the copies in the run folder of files it names."""

    config: RunConfig
    data: Data
    samples: dict[str, Any]
    """What `run.json` says of each source."""
    tokenizers: Tokenizers
    model: VisionLanguageModel
    surveys: dict[str, Survey]
    batches: BatchLoader
    held_out: HeldOut | None
    checkpoint: Path | None
    """The checkpoint to load."""
    damaged: list[str]
    """The damage of newer checkpoints."""

    def facts(self) -> dict[str, object]:
        """Facts that must be equal on all processes, besides the arguments."""
        tensors = [(name, str(tensor.dtype), list(tensor.shape)) for name, tensor in self.model.state_dict().items()]
        read = [(name, own) for name, own in self.samples.items() if name != "held_out"]
        return {
            "data": [f"{_size(own)} in `{name}` ({own['fingerprint'][:_MARK]})" for name, own in read],
            "texts": _digest(self.tokenizers.to_json())[:_MARK],
            "towers": _digest(json.dumps(tensors))[:_MARK],
            "checkpoints": None if self.checkpoint is None else read_position(self.checkpoint).step,
        }


def _prepare(objective: Objective, config: RunConfig, resume: RunFolder | None, world: World, ending: Ending) -> _Prepared:
    """Data, tokenizers and model, faults of the user's first. The folder is locked until `ending` is."""
    program = objective.program
    checkpoint, damaged = None, list[str]()
    if resume is not None:
        if world.first:
            ending.lock(resume)
            ending.folder = resume
        config = resume.with_kept(config)
        checkpoint, damaged = sound_checkpoint(resume.checkpoints)
        ending.done = None if checkpoint is None else read_position(checkpoint).step
    check_towers([objective], config.model)
    data = open_data(program, config)
    tokenizers = stored_tokenizers(checkpoint) if checkpoint else read_tokenizers(objective, config.model, data)
    model = build_model(objective, config, tokenizers, world, data.mapping.facts)
    surveyed = surveys(program, config, data, model)
    if objective.state.per_sample:
        objective.state.allocate_samples(len(data.train))
    fill_references(model, data, config)
    batches = training_batches(program, config, data, model, world)
    batches.report.merge(surveyed["train"].skipped)
    held_out = held_out_measure(program, config, data, model) if world.first else None
    samples = data_facts(data, surveyed)
    if resume is not None:
        check_same_data(resume, samples)
    return _Prepared(config, data, samples, tokenizers, model, surveyed, batches, held_out, checkpoint, damaged)


def _begin(
    prepared: _Prepared, config: RunConfig, recipe: RecipeFiles, resume: RunFolder | None, world: World, ending: Ending
) -> _Begun:
    """Everything else before the first step: the folder, the untrained model measured, a checkpoint loaded."""
    model, samples, checkpoint = prepared.model, prepared.samples, prepared.checkpoint
    folder = resume or _new_folder(prepared, recipe, world, ending)
    if resume is not None and world.first:
        write_resumed(folder, config, world)
    begun = _Begun(
        name=str(recipe.record["name"]),
        run=identity_of(recipe.record, config, samples),
        config=prepared.config,
        folder=folder,
        world=world,
        ending=ending,
        model=model,
        tokenizers=prepared.tokenizers,
        optimizer=build_optimizer(model, prepared.config.optimizer),
        batches=prepared.batches,
        held_out=prepared.held_out,
        conditions=conditions_of(prepared.config, prepared.data),
        surveys=prepared.surveys,
        notes=prepared.damaged,
    )
    begun.measure_untrained()  # before any weight is loaded: where a resumed run must measure it again, it is the same model
    if checkpoint:
        begun.go_on_from(checkpoint)
    if world.first:
        recorded = 0 if checkpoint is None else read_state(checkpoint).records
        begun.records = folder.forget_after(begun.start, recorded)
    return begun


def _new_folder(prepared: _Prepared, recipe: RecipeFiles, world: World, ending: Ending) -> RunFolder:
    """The folder of a new run with its first files. Only the first process knows its name, and only it needs to."""
    if not world.first:
        return RunFolder(Path("runs"))
    folder = RunFolder.create(prepared.config.out, str(recipe.record["name"]))
    ending.lock(folder)
    RunFolder.check_free(str(folder.path))  # another process may have been faster
    write_start(folder, recipe, prepared.config, prepared.samples, prepared.model.notes, world)
    ending.folder = folder
    return folder


def _size(samples: Mapping[str, Any]) -> str:
    """The number of samples of a source, or of shards of a stream."""
    return f"{samples['shards']:,} shards" if samples["samples"] is None else f"{samples['samples']:,} samples"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
