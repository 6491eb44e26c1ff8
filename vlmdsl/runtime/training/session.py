"""One run from beginning to end: data, model, evaluation, training, evaluation again, and everything in its folder."""

from __future__ import annotations

import io
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.optim import AdamW

from vlmdsl._resources import installed_version
from vlmdsl.backends.torch.objective import Objective
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.configuration import NothingToResume
from vlmdsl.runtime.data import BatchLoader, SkipReport, fingerprint, source_facts
from vlmdsl.runtime.evaluation import Evaluation, results_json, results_table, stored_untrained
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.tokenizer import Tokenizer, Tokenizers
from vlmdsl.runtime.tracking import Reporter, draw_curves
from vlmdsl.runtime.training.assembly import Data, build_model, duplicate_texts, open_data, read_tokenizers, training_batches
from vlmdsl.runtime.training.checkpoint import (
    Position,
    load_checkpoint,
    load_weights,
    newest_checkpoint,
    read_position,
    save_checkpoint,
)
from vlmdsl.runtime.training.held_out import HeldOut, held_out_measure
from vlmdsl.runtime.training.loop import Callbacks, train_steps
from vlmdsl.runtime.training.optimizer import build_optimizer
from vlmdsl.runtime.training.processes import World, join_processes, join_reports
from vlmdsl.runtime.training.reference import fill_references
from vlmdsl.runtime.training.run_folder import RunFolder, write_atomically
from vlmdsl.schema import RunConfig, dump_config
from vlmdsl.source import Span

__all__ = ["Outcome", "evaluate_run", "run"]

_TOKENIZER = "tokenizer.json"
_NOTABLE_SHARE = 0.01


@dataclass(frozen=True)
class Outcome:
    """What a run gives: its folder, the trained model, its tokenizer, the evaluation as JSON, a summary for people."""

    folder: RunFolder
    model: VisionLanguageModel
    tokenizer: Tokenizer
    evaluation: dict[str, Any]
    summary: str


def run(
    objective: Objective,
    config: RunConfig,
    *,
    recipe: Mapping[str, object],
    texts: Mapping[str, str],
    resume: RunFolder | None = None,
) -> Outcome:
    """Train in a new folder, or in `resume` from its newest complete checkpoint.

    `recipe` is what `run.json` says about the recipe; `texts` are the files to keep with the run, `recipe.vlo` among them.
    Only the first of several processes writes, evaluates and talks.
    """
    with join_processes(config.train.device) as world:
        begun = _begin(objective, config, recipe, texts, resume, world)
        folder = begun.folder
        if world.first:
            print(begun.announcement(), file=sys.stderr, flush=True)
        try:
            with Reporter(folder.metrics, config.train.steps, active=world.first) as reporter:
                callbacks = Callbacks(reporter.log, begun.save, begun.measure)
                batches = iter(begun.batches)
                train_steps(begun.model, begun.optimizer, batches, config, world, start=begun.start, callbacks=callbacks)
        finally:
            # A run that failed is the one whose curves are wanted most.
            if world.first:
                draw_curves(folder.metrics, folder.curves, str(recipe["name"]))
        join_reports(begun.batches.report)
        begun.measure(config.train.steps)
        begun.note_skipped()
        return Outcome(folder, begun.model, begun.tokenizers.default, begun.results, begun.summary())


def evaluate_run(
    objective: Objective, config: RunConfig, folder: RunFolder, evaluate_on: tuple[str, ...] = ()
) -> tuple[dict[str, Any], str]:
    """Measure the newest checkpoint in `folder`: the results as JSON and as a table.

    On the run's own held-out data they replace `evaluation.json`; what that says of the untrained model, measured under
    the same conditions, is taken over. Raises `DiagnosticError` (V0816) without a checkpoint.
    """
    checkpoint = newest_checkpoint(folder.checkpoints)
    if checkpoint is None:
        reason = "it has no complete checkpoint"
        raise DiagnosticError((NothingToResume.at(Span("<command line>", 0, 0), path=folder.path, reason=reason),))
    with join_processes(config.train.device) as world:
        data = open_data(objective.program, config, evaluate_on)
        tokenizers = _stored_tokenizers(checkpoint)
        model = build_model(objective, config, tokenizers, world, data.mapping.region_length)
        fill_references(model, data, tokenizers, config)
        held_out = held_out_measure(objective.program, config, data, tokenizers, model)
        if held_out is None:
            return {}, "nothing to measure: no data is held out, or it has neither the texts nor the classes that are needed"
        conditions = _conditions(config, data)
        untrained = _known_untrained(folder, conditions) or held_out.measure(model)
        load_weights(checkpoint, model)
        results = {"step": read_position(checkpoint).step, **results_json(held_out.measure(model), untrained)}
        results["conditions"] = conditions
        if not evaluate_on and world.first:
            folder.write_evaluation(results)
        return results, _table(results)


@dataclass
class _Begun:
    """A run that is ready for its next step."""

    config: RunConfig
    folder: RunFolder
    world: World
    model: VisionLanguageModel
    tokenizers: Tokenizers
    optimizer: AdamW
    batches: BatchLoader
    held_out: HeldOut | None
    conditions: dict[str, object]
    """What the evaluation depends on beside the model."""
    duplicates: dict[str, float]
    """Text field -> the share of its texts that another one equals."""
    start: int = 0
    untrained: Evaluation | None = None
    results: dict[str, Any] = field(default_factory=dict)

    def go_on_from(self, checkpoint: Path) -> None:
        """Load what a checkpoint holds."""
        position = load_checkpoint(checkpoint, self.model, self.optimizer)
        self.batches.load_state_dict({"epoch": position.epoch, "batch": position.batch})
        self.start = position.step

    def save(self, step: int) -> None:
        """Write a checkpoint: `step` steps are done."""
        if self.world.first:
            position = Position(step, **self.batches.state_dict(), seed=self.config.train.seed)
            texts = {_TOKENIZER: self.tokenizers.to_json()}
            keep = self.config.train.keep
            save_checkpoint(self.folder.checkpoints, self.model, self.optimizer, position, texts=texts, keep=keep)

    def measure(self, step: int) -> None:
        """Measure the model and write `evaluation.json`."""
        if self.held_out is not None:
            self.results = {"step": step, **results_json(self.held_out.measure(self.model), self.untrained)}
            self.results["conditions"] = self.conditions
            self.folder.write_evaluation(self.results)

    def measure_untrained(self) -> None:
        """Measure the model as it was before the first step, or read what was measured when the run began."""
        if self.held_out is not None:
            self.untrained = _known_untrained(self.folder, self.conditions)
            if self.untrained is None:
                self.untrained = self.held_out.measure(self.model)
                results = results_json(self.untrained, self.untrained)
                self.folder.write_untrained({"step": 0, **results, "conditions": self.conditions})

    def announcement(self) -> str:
        """What is about to run, in a line (the first step may take long to compile), and a line a doubt about the data."""
        weights = sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)
        where = f"{self.world.size} processes on {self.world.device.type}" if self.world.size > 1 else self.world.device.type
        compiling = "; the first step compiles" if self.config.train.compile else ""
        from_step = f" from step {self.start}" if self.start else ""
        lines = [f"training {weights:,} weights on {where} in {self.folder.path}{from_step}{compiling}"]
        for name, share in self.duplicates.items():
            if share >= _NOTABLE_SHARE:
                lines.append(
                    f"note: {share:.0%} of the looked-at `{name}` are not unique: such pairs are each other's negatives"
                )
        return "\n".join(lines)

    def _reports(self) -> dict[str, SkipReport]:
        held_out = {} if self.held_out is None else {"held_out": self.held_out.batches.report}
        return {"train": self.batches.report, **held_out}

    def note_skipped(self) -> None:
        """Write into `run.json` what was skipped, by reason, and what the views had to do without."""
        if self.world.first:
            skipped = {name: report.as_dict() for name, report in self._reports().items()}
            self.folder.write_facts({**self.folder.read_facts(), "skipped": skipped})

    def summary(self) -> str:
        """The results as a table, what was skipped, and the folder."""
        words = {"train": "training", "held_out": "held-out"}
        told = {words[name]: report.table().replace("\n", "\n  ") for name, report in self._reports().items()}
        skipped = [f"{name} data: {table}" for name, table in told.items() if table]
        table = [_table(self.results)] if self.results else ["nothing was measured: no data is held out (--val)"]
        return "\n".join([*table, *skipped, f"run folder: {self.folder.path}"])


def _begin(
    objective: Objective,
    config: RunConfig,
    recipe: Mapping[str, object],
    texts: Mapping[str, str],
    resume: RunFolder | None,
    world: World,
) -> _Begun:
    """Everything before the first step, faults of the user's first."""
    program = objective.program
    data = open_data(program, config)
    checkpoint = newest_checkpoint(resume.checkpoints) if resume else None
    tokenizers = _stored_tokenizers(checkpoint) if checkpoint else read_tokenizers(objective, config.model, data)
    model = build_model(objective, config, tokenizers, world, data.mapping.region_length)
    fill_references(model, data, tokenizers, config)
    batches = training_batches(program, config, data, tokenizers, model, world)
    held_out = held_out_measure(program, config, data, tokenizers, model) if world.first else None
    duplicates = duplicate_texts(program, data) if world.first else {}
    # Only the first process knows the name of a new folder, and only it needs to.
    folder = resume or (RunFolder.create(config.out, program.name) if world.first else RunFolder(Path("runs")))
    if world.first:
        _write_start(folder, config, texts, _facts(config, data, world, recipe, resume, duplicates))
    begun = _Begun(
        config=config,
        folder=folder,
        world=world,
        model=model,
        tokenizers=tokenizers,
        optimizer=build_optimizer(model, config.optimizer),
        batches=batches,
        held_out=held_out,
        conditions=_conditions(config, data),
        duplicates=duplicates,
    )
    begun.measure_untrained()  # before any weight is loaded: where a resumed run must measure it anew, it is the same model
    if checkpoint:
        begun.go_on_from(checkpoint)
    if world.first:
        folder.forget_after(begun.start)
    return begun


def _write_start(folder: RunFolder, config: RunConfig, texts: Mapping[str, str], facts: Mapping[str, object]) -> None:
    for name, text in texts.items():
        path = folder.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    write_atomically(folder.config, dump_config(config))
    folder.write_facts(facts)


def _facts(
    config: RunConfig,
    data: Data,
    world: World,
    recipe: Mapping[str, object],
    resume: RunFolder | None,
    duplicates: Mapping[str, float],
) -> dict[str, object]:
    """What `run.json` holds: enough to know what ran, on what, and with what."""
    now = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "processes": world.size,
        "device": world.device.type,
        "versions": {
            "vlmdsl": installed_version(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
        },
    }
    if resume is not None:
        facts = resume.read_facts()
        return {**facts, "resumed": [*facts.get("resumed", []), now]}
    sources = {"train": data.train, "held_out": data.held_out, "reference": data.reference}
    digests = {name: source_facts(source) for name, source in sources.items() if source is not None}
    digests["train"]["duplicate_texts"] = dict(duplicates)
    digests["train"]["stand_ins"] = data.mapping.stand_ins
    return {"recipe": dict(recipe), "seed": config.train.seed, "data": digests, "started": now}


def _conditions(config: RunConfig, data: Data) -> dict[str, object]:
    """What the numbers of an evaluation depend on beside the weights, as JSON holds it."""
    held_out = None if data.held_out is None else fingerprint(data.held_out)
    return {
        "held_out": held_out,
        "map": dict(config.data.map),
        **config.evaluation.model_dump(mode="json", exclude={"every", "batch"}),
    }


def _known_untrained(folder: RunFolder, conditions: Mapping[str, object]) -> Evaluation | None:
    """What the folder says of the untrained model under these conditions; None if it says nothing."""
    for known in (folder.read_evaluation(), folder.read_untrained()):
        if known.get("conditions") == conditions and (found := stored_untrained(known)) is not None:
            return found
    return None


def _stored_tokenizers(checkpoint: Path) -> Tokenizers:
    return Tokenizers.from_json((checkpoint / _TOKENIZER).read_text(encoding="utf-8"))


def _table(results: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=100)
    with console.capture() as captured:
        console.print(results_table(results))
    return captured.get().rstrip()
