"""One stage of a run: its steps, its checkpoints and its evaluation."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.optim import AdamW

from vlmdsl.backends.torch.collectives import gather_objects
from vlmdsl.diagnostics import Diagnostic, DiagnosticError, plain, render_text
from vlmdsl.diagnostics.catalog.configuration import NothingToResume
from vlmdsl.runtime.data import BatchLoader, MixedBatches, SkipReport, Survey
from vlmdsl.runtime.evaluation import Evaluation
from vlmdsl.runtime.files import write_json
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.tokenizer import Tokenizers
from vlmdsl.runtime.tracking import Reporter, draw_curves
from vlmdsl.runtime.tracking.measures import measures_of
from vlmdsl.runtime.tracking.trackers import Trackers
from vlmdsl.runtime.training.checkpoint import (
    Position,
    check_written_by,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
    take_over,
)
from vlmdsl.runtime.training.course import Model, StageOfRun, models_of
from vlmdsl.runtime.training.ending import Ending
from vlmdsl.runtime.training.examples import draw_examples
from vlmdsl.runtime.training.held_out import HeldOut
from vlmdsl.runtime.training.idle import idle_term
from vlmdsl.runtime.training.loop import Callbacks, train_steps
from vlmdsl.runtime.training.loss_scale import LossScale
from vlmdsl.runtime.training.measuring import (
    UNTRAINED_ELSEWHERE,
    known_untrained,
    measured,
    of_earlier_stages,
    results_text,
)
from vlmdsl.runtime.training.processes import World, highest, wait_for_all
from vlmdsl.runtime.training.run_folder import RunFolder
from vlmdsl.runtime.training.stopping import StopSignals, ended_by
from vlmdsl.runtime.training.tokenizers import TOKENIZER
from vlmdsl.runtime.training.tracked import tracked_run
from vlmdsl.source import SourceMap, Span

if TYPE_CHECKING:
    from vlmdsl.runtime.training.sharding import Sharded

__all__ = ["BegunStage", "end_of"]

_WORDS = {"train": "training", "held_out": "held-out", "reference": "reference"}


@dataclass
class BegunStage:
    """A stage of a run that is ready for its next step."""

    name: str
    run: str
    """The identity of this run: `identity_of`."""
    course: Sequence[StageOfRun]
    stage: StageOfRun
    folder: RunFolder
    world: World
    ending: Ending
    model: Model
    tokenizers: Tokenizers
    optimizer: AdamW
    batches: BatchLoader | MixedBatches
    held_out: HeldOut | None
    conditions: dict[str, object]
    """What the evaluation depends on besides the model."""
    surveys: dict[str, Survey]
    """The surveys of the training, held-out and reference samples."""
    start: int = 0
    """Number of steps of this stage that are done."""
    untrained: Evaluation | None = None
    results: dict[str, Any] = field(default_factory=dict)
    records: int = 0
    """Number of lines written to the metrics."""
    initial: str = ""
    """A note on the weights that it begins with, where they are of another run or of a hub."""
    notes: list[str] = field(default_factory=list)
    """Notes about damaged checkpoints."""
    unmeasured: Sequence[str] = ()
    """Why flows are not measured whose fields the held-out data lacks."""
    scale: LossScale = field(default_factory=LossScale)
    elsewhere: bool = False
    """Whether the model was built without the weights that its towers began with."""
    _reporter: Reporter | None = None
    """Where steps are logged, while there are any."""
    _trackers: Trackers | None = None
    _sharded: Sharded | None = None
    """What is trained in place of `model`, where its weights are spread over the processes."""

    def resume_from(self, checkpoint: Path) -> None:
        """Load a checkpoint; V0853 if another run wrote it."""
        check_written_by(checkpoint, self.run)
        position = load_checkpoint(checkpoint, self.model, self.optimizer)
        self.batches.load_state_dict({"epoch": position.epoch, "batch": position.batch})
        self.start, self.scale = position.step - self.stage.before, position.scale

    def start_from(self, stage: StageOfRun) -> None:
        """Take over the final weights of an earlier stage; V0816 if they are missing, V0853 if another run wrote them."""
        end = end_of(stage, self.folder)
        check_written_by(end, self.run)
        take_over(end, self.model, without=self.stage.tables_of_other_data(stage, self.model))
        self.model.parts.begin_again()

    @property
    def measured(self) -> VisionLanguageModel:
        """The model of the flow that is evaluated."""
        return models_of(self.model, self.stage)[self.stage.measured.name]

    @contextmanager
    def tracked(self) -> Iterator[None]:
        """The trackers of the run, open while the stage is trained and measured."""
        config = self.stage.config
        if not config.tracking.trackers or not self.world.first:
            yield
            return
        run = tracked_run(self.folder, config, self.stage.before + self.start)
        with Trackers(config.tracking.trackers, run, self._warn) as self._trackers:
            yield
        self._trackers = None

    def _warn(self, diagnostic: Diagnostic, sources: SourceMap | None = None) -> None:
        """Show a warning, between the lines of the steps where there are any."""
        page = render_text((diagnostic,), sources or SourceMap(), count=False)
        if self._reporter is not None:
            self._reporter.warn(page)
            return
        with suppress(OSError):  # the terminal may be gone
            print(plain(page), file=sys.stderr, flush=True)

    def train(self, signals: StopSignals) -> None:
        """Take the remaining steps; if a signal asks to stop, write a checkpoint and raise the signal's exception."""

        def stop() -> bool:
            # Before the first step is done (compiling may take long) nothing is lost by stopping at once.
            signals.deferred = True
            return self._agreed(signals)

        def evaluate(step: int) -> None:
            self._gather()
            signals.unless_asked(lambda: self.measure(step))

        callbacks = Callbacks(
            log=self._log,
            idle=self._note_idle,
            save=self.save,
            evaluate=evaluate,
            not_finite=self._write_not_finite,
            stop=stop,
            interrupted=lambda: bool(signals.received),
        )
        model, optimizer = self._trained()
        signals.deferred = self.world.size > 1
        try:
            steps, more = self.course[-1].end, () if self._trackers is None else (self._trackers,)
            with Reporter(self.folder.metrics, steps, active=self.world.first, trackers=more) as self._reporter:
                self.batches.tell = self._reporter.note
                batches = iter(self.batches)
                train_steps(
                    model,
                    optimizer,
                    batches,
                    self.stage.config,
                    self.world,
                    start=self.start,
                    per_epoch=self.batches.batches_per_epoch,
                    before=self.stage.before,
                    callbacks=callbacks,
                    scale=self.scale,
                )
        except Exception:
            # The curves matter most for a failed run, but its error must not be hidden.
            with suppress(Exception):
                self._draw()
            raise
        finally:
            signals.deferred, self._reporter, self._sharded = False, None, None
        self._draw()
        if self._agreed(signals):
            wait_for_all()
            raise ended_by(signals.received)

    def _trained(self) -> tuple[Model, AdamW]:
        """The model that takes the steps, and its optimiser."""
        if self.stage.config.train.parallel != "sharded" or self.world.size == 1:
            return self.model, self.optimizer
        sharding = import_module("vlmdsl.runtime.training.sharding")  # FSDP is imported by runs that use it
        sharded: Sharded = sharding.Sharded(self.model, self.optimizer, self.stage.config.optimizer, self.world)
        self._sharded = sharded
        return sharded.model, sharded.optimizer

    def _gather(self) -> None:
        """Put what was learned into `model`, where it is spread over the processes."""
        if self._sharded is not None:
            self._sharded.gather()

    def _agreed(self, signals: StopSignals) -> bool:
        """Whether any process was asked to stop; then all stop."""
        highest_received = highest(signals.received)
        if highest_received:  # only then: a signal that arrived in the meantime must not be lost
            signals.received = highest_received
        return highest_received > 0

    def _log(self, record: dict[str, Any]) -> None:
        if self.stage.name:
            record["stage"] = self.stage.name
        assert self._reporter is not None
        self._reporter.log(record)
        self.records += 1

    def _note_idle(self, flow: str, terms: Sequence[str]) -> None:
        """Report terms that have nothing to do, with their places in the recipe."""
        objective = next(own.objective for own in self.stage.flows if own.name == flow)
        for diagnostic in filter(None, (idle_term(objective.program, term) for term in terms)):
            self._warn(diagnostic, objective.sources)

    def _write_not_finite(self, facts: dict[str, Any]) -> Path | None:
        """Write the facts about a step that is not finite into the run folder; the first process does, and has a path."""
        if not self.world.first:
            return None
        run = {
            "recipe": self.name,
            "stage": self.stage.name,
            "processes": self.world.size,
            "checkpoint": self.ending.done or 0,
            "settings": self.stage.config.model_dump(mode="json"),
        }
        path = self.folder.not_finite(facts["step"])
        write_json(path, {**facts, **run})
        return path

    def _draw(self) -> None:
        if self.world.first:
            draw_curves(self.folder.metrics, self.folder.curves, self.name)

    def save(self, step: int) -> None:
        """Write a checkpoint: `step` steps are done."""
        self._gather()
        if self.world.first:
            place = self.batches.state_dict()
            seed = self.stage.config.train.seed
            position = Position(step, **place, seed=seed, stage=self.stage.name, scale=self.scale)
            needed = any(later.needs(self.stage.name) for later in self.course if self.stage.name)
            roots = [self.folder.stages / self.stage.name] if needed and step == self.stage.end else []
            for root in (*roots, self.folder.checkpoints):  # the final weights of a stage first: they mark it as finished
                save_checkpoint(
                    root,
                    self.model,
                    self.optimizer,
                    position,
                    texts={TOKENIZER: self.tokenizers.to_json()},
                    keep=self.stage.config.train.keep,
                    records=self.records,
                    run=self.run,
                )
            self.ending.done = step

    def measure(self, step: int) -> None:
        """Measure the model and write `evaluation.json`."""
        if self.held_out is not None:
            before = [stage.name for stage in self.course if stage.end <= self.stage.before]
            earlier = of_earlier_stages(self.folder.read_evaluation(), before)
            trained = self.held_out.measure(self.measured)
            self.results = measured(step, trained, self.untrained, self.conditions, earlier)
            self.folder.write_evaluation(self.results)
            draw_examples(trained, self.folder.path)
            if self._trackers is not None:
                self._trackers.results(step, measures_of(self.results))

    def measure_untrained(self) -> None:
        """Measure the model before the first step, or read the measurement from the start of the run."""
        if self.held_out is not None:
            self.untrained = known_untrained(self.folder, self.conditions)
            if self.untrained is None and self.elsewhere:
                self.initial = UNTRAINED_ELSEWHERE
            elif self.untrained is None:
                self.untrained = self.held_out.measure(self.measured, untrained=True)
                self.folder.write_untrained(measured(0, self.untrained, self.untrained, self.conditions))

    def announcement(self) -> str:
        """One line about what is about to run, and one line per note about checkpoints, towers and data."""
        weights = sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)
        where = f"{self.world.size} processes on {self.world.device.type}" if self.world.size > 1 else self.world.device.type
        compiling = "; the first step compiles" if self.stage.config.train.compile else ""
        done = self.stage.before + self.start
        from_step = f" from step {done}" if self.start else ""
        if self.stage.name:
            from_step += f", stage {self.stage.name} to step {self.stage.end}"
        lines = [f"note: {note}; continuing from step {done}" for note in self.notes]
        lines += [f"training {weights:,} weights on {where} in {self.folder.path}{from_step}{compiling}"]
        lines += [f"note: {note}" for note in (self.initial, *self.model.notes, *self.unmeasured) if note]
        for name, survey in self.surveys.items():
            training = name.endswith("train")
            about = "" if name == "train" else f"{_words(name)} data: "
            lines += [f"note: {about}{line}" for line in survey.lines(training=training)]
        return "\n".join(lines)

    def _reports(self) -> dict[str, SkipReport]:
        held_out = {} if self.held_out is None else {"held_out": self.held_out.batches.report}
        return {"train": self.batches.report, **held_out}

    def note_skipped(self) -> None:
        """Write to `run.json` how many samples were skipped, by reason, and which views had missing inputs."""
        if self.world.first:
            label = f"{self.stage.name}:" if self.stage.name else ""
            skipped = {f"{label}{name}": report.as_dict() for name, report in self._reports().items()}
            facts = self.folder.read_facts().plain()
            kept = facts.get("skipped", {}) if label else {}
            self.folder.write_facts({**facts, "skipped": {**kept, **skipped}})

    def summary(self) -> str:
        """The results as a table, what was skipped, and the folder."""
        tables = {_words(name): report.table().replace("\n", "\n  ") for name, report in self._reports().items()}
        skipped = [f"{name} data: {table}" for name, table in tables.items() if table]
        table = (
            [results_text(self.results)] if self.results else ["nothing was evaluated: there is no held-out data (--val)"]
        )
        if self.scale.skipped:
            skipped.append(f"steps skipped, since gradients overflowed float16: {self.scale.skipped:,}")
        return "\n".join([*table, *skipped, f"run folder: {self.folder.path}"])


def end_of(stage: StageOfRun, folder: RunFolder) -> Path:
    """The checkpoint of the end of an earlier stage; V0816 if it is missing."""
    end = newest_checkpoint(folder.stages / stage.name)
    end = gather_objects(end and end.resolve())[0]  # only the first process knows the folder of a new run
    if end is None:
        reason = f"there is no sound checkpoint of the end of its stage `{stage.name}`"
        help = f"put its folder `stages/{stage.name}` back, or train again in another folder, `--out`"
        place = Span("<command line>", 0, 0)
        raise DiagnosticError((NothingToResume.at(place, help=(help,), path=folder.path, reason=reason),))
    return end


def _words(name: str) -> str:
    """The name of the data in messages: `training`, for a flow `training (texts)`."""
    flow, _, what = name.rpartition(":")
    return f"{_WORDS[what]} ({flow})" if flow else _WORDS[what]
