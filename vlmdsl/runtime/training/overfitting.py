"""Can a recipe learn a few fixed samples, and if it cannot, why not?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.configuration import LossNotFinite
from vlmdsl.ir import Program
from vlmdsl.runtime.data import Survey, some_samples
from vlmdsl.runtime.evaluation import WITHIN_A_PROMPT, captioning_of, grounding_of, matching_of
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.training.assembly import Data
from vlmdsl.runtime.training.checkpoint import take_weights
from vlmdsl.runtime.training.course import DataFacts, Model, StageOfRun, models_of, open_course, tokenizers_of_course
from vlmdsl.runtime.training.evaluation_loaders import Loaders
from vlmdsl.runtime.training.initial import initial_checkpoint, take_initial_weights
from vlmdsl.runtime.training.loop import Callbacks, train_steps
from vlmdsl.runtime.training.measured_parts import measured_parts
from vlmdsl.runtime.training.optimizer import build_optimizer
from vlmdsl.runtime.training.processes import World, join_processes
from vlmdsl.runtime.values import Batch
from vlmdsl.schema import RunConfig

__all__ = ["LEARNED", "Attempt", "Progress", "attempts", "judged_by"]

LEARNED = 0.9
"""What the in-batch top-1 accuracy of a contrastive term, and a measure of what a recipe is for, must exceed."""
_SPREAD = 1e-3
"""Below this share of their length features do not depend on the sample."""
_LAST = 5
"""Records that the final loss and accuracy are averages of."""


@dataclass(frozen=True)
class Progress:
    """A term at the beginning and at the end; `accuracy` is that of contrastive terms, over the samples."""

    first: float
    last: float
    accuracy: float | None = None

    @property
    def learned(self) -> bool:
        """Whether the accuracy is high enough; of terms without one, whether the loss fell."""
        return self.last < self.first if self.accuracy is None else self.accuracy > LEARNED


@dataclass
class Attempt:
    """What a stage did with its samples."""

    stage: str
    steps: int
    samples: int
    terms: dict[str, Progress]
    measures: dict[str, float]
    """What is measured of the samples in the end: the measures of `judged_by`, by their names in `evaluation.json`."""
    stopped: str
    """Why it ended early."""
    causes: list[str] = field(default_factory=list)
    """What in the data, the towers or the settings keeps the samples from being learned."""
    falling: bool = False
    """Whether the loss still falls at the end."""
    records: list[dict[str, Any]] = field(default_factory=list, repr=False)
    """What the loop logged, step by step."""

    @property
    def low(self) -> list[str]:
        """The measures that are not high enough."""
        return [name for name, value in self.measures.items() if value <= LEARNED]

    @property
    def learned(self) -> bool:
        """Whether every term is, and every measure high enough."""
        learned = all(progress.learned for progress in self.terms.values())
        return bool(self.terms) and learned and not self.low and not self.stopped


def judged_by(program: Program) -> dict[str, tuple[str, ...]]:
    """What shows that a program has learned its samples, where it names boxes, writes captions or matches images with
    texts: the part in `evaluation.json` -> its measures, of which the first that it has counts.

    A recipe that mines its negatives is judged by these, one that does not by random ones. Names of boxes are judged among
    those of one prompt, as they were learned. What the rest of a sample does not determine is not judged: what is masked,
    and texts without an image.
    """
    measures: dict[str, tuple[str, ...]] = {}
    if grounding_of(program) is not None:
        measures["grounding"] = (WITHIN_A_PROMPT, "accuracy")
    captioning = captioning_of(program)
    if captioning is not None and captioning.image is not None:
        measures["captions"] = ("token accuracy",)
    if (matching := matching_of(program)) is not None:
        measures["matching"] = ("balanced" if matching.negatives else "balanced random",)
    return measures


def attempts(course: Sequence[StageOfRun], samples: int) -> list[Attempt]:
    """Train every stage on `samples` of its training samples, which make one batch, from new weights or from those of the
    stage that it starts from; the first stages from those of `model.init`, where it is set.

    Raises `DiagnosticError` as training does, except for a loss that is not finite.
    """
    opened, init = open_course(course), course[0].config.model.init
    initial = None if init is None else initial_checkpoint(init)
    tokenizers = tokenizers_of_course(course, opened)
    results: list[Attempt] = []
    ends: dict[str, tuple[StageOfRun, Model]] = {}
    for stage in course:
        data = {name: _few(own, samples) for name, own in opened.stages[stage.name].items()}
        few = _with_batch(stage, min(len(own.train) for own in data.values()))
        with join_processes(few.config.train.device) as world:
            model = few.build(tokenizers, world, DataFacts.of(data))
            if few.starts_from:
                _start_from(*ends[few.starts_from], few, model)
            elif initial is not None:
                take_initial_weights(initial, model)
            results.append(_attempt(few, data, model, world))
            ends[few.name] = few, model
    return results


def _start_from(earlier: StageOfRun, trained: Model, stage: StageOfRun, model: Model) -> None:
    """Take over what an earlier stage has learned."""
    take_weights(trained.state_dict(), model, stage.tables_of_other_data(earlier, model))
    model.parts.begin_again()


def _attempt(stage: StageOfRun, data: Mapping[str, Data], model: Model, world: World) -> Attempt:
    """Train a stage on its samples, and where it does not learn them look for the reason."""
    train = stage.config.train
    surveys = {name: own["train"] for name, own in stage.survey(data, model).items()}
    stage.prepare(data, model)
    batches = stage.batches(data, model, world)
    records, stopped = _Records(), ""
    callbacks, per_epoch = Callbacks(log=records.values.append), batches.batches_per_epoch
    optimizer = build_optimizer(model, stage.config.optimizer)
    try:
        train_steps(model, optimizer, iter(batches), stage.config, world, per_epoch=per_epoch, callbacks=callbacks)
    except DiagnosticError as error:
        if error.diagnostics[0].code != LossNotFinite.code:
            raise
        stopped = error.diagnostics[0].message
    attempt = Attempt(
        stage.name,
        train.steps,
        train.batch,
        records.progress(),
        {} if stopped else _measured(stage, data, model),
        stopped,
        falling=records.falling(),
        records=records.values,
    )
    if not attempt.learned:
        attempt.causes += _of_data(surveys)
    if not (attempt.learned or stopped):
        batch = next(iter(batches)).to(world.device)
        attempt.causes += _of_towers(models_of(model, stage)[batch.flow], batch)
    return attempt


def _measured(stage: StageOfRun, data: Mapping[str, Data], model: Model) -> dict[str, float]:
    """The measures that the flows of a stage are judged by, of the samples that it was trained on."""
    values: dict[str, float] = {}
    for flow in stage.flows:
        judged, own = judged_by(flow.objective.program), data[flow.name]
        again = replace(own, held_out=own.train, held_out_mapping=own.mapping)
        loaders = Loaders(flow.config, again, models_of(model, stage)[flow.name])
        for part in measured_parts(flow.objective.program, loaders) if judged else ():
            measures = part.measure(loaders.model) if part.name in judged else None
            if measures is not None:
                measure = next(name for name in judged[part.name] if name in measures.values)
                values[".".join(filter(None, (flow.name, part.name, measure)))] = measures.values[measure]
    return values


@dataclass
class _Records:
    """What the loop logged."""

    values: list[dict[str, Any]] = field(default_factory=list)

    def progress(self) -> dict[str, Progress]:
        names = {name.removeprefix("terms/") for record in self.values for name in record if name.startswith("terms/")}
        return {name: self._of(name) for name in sorted(names, key=self._place)}

    def falling(self) -> bool:
        """Whether the mean loss of the last tenth of the steps is clearly below that of the tenth before."""
        losses = [record["loss"] for record in self.values]
        tenth = len(losses) // 10
        if not tenth:
            return False
        before, after = fmean(losses[-2 * tenth : -tenth]), fmean(losses[-tenth:])
        return after < before - 0.005 * abs(losses[0])

    def _of(self, name: str) -> Progress:
        losses = [record[f"terms/{name}"] for record in self.values if f"terms/{name}" in record]
        accuracies = [record[f"{name}.accuracy"] for record in self.values if f"{name}.accuracy" in record]
        return Progress(losses[0], fmean(losses[-_LAST:]), fmean(accuracies[-_LAST:]) if accuracies else None)

    def _place(self, name: str) -> int:
        return next(place for place, record in enumerate(self.values) if f"terms/{name}" in record)


def _few(data: Data, samples: int) -> Data:
    """The data with few training samples, and without held-out ones."""
    return replace(data, train=some_samples(data.train, samples), held_out=None, held_out_mapping=None, stream=None)


def _with_batch(stage: StageOfRun, batch: int) -> StageOfRun:
    """The stage with all of its samples in every batch, every step logged, and no more measured than is needed."""
    train = {"batch": batch, "micro": None, "log_every": 1}
    evaluation = {"captions": 0, "average_precision": False, "limit": None, "batch": batch}

    def changed(config: RunConfig) -> RunConfig:
        sections = {
            "train": config.train.model_copy(update=train),
            "evaluation": config.evaluation.model_copy(update=evaluation),
        }
        return config.model_copy(update=sections)

    flows = tuple(replace(flow, config=changed(flow.config)) for flow in stage.flows)
    return replace(stage, config=changed(stage.config), flows=flows, before=0)


def _of_data(surveys: Mapping[str, Survey]) -> Iterator[str]:
    """What is wrong with the samples of the flows."""
    for name, survey in surveys.items():
        whose = f" of the flow {name}" if name else ""
        for field_name, share in (survey.repeated | survey.repeated_images).items():
            if share:
                yield f"{share:.0%} of `{field_name}`{whose} are not unique: such samples cannot be told apart"
        for field_name, cut in survey.cut.items():
            if cut.share:
                yield f"{cut.share:.0%} of `{field_name}`{whose} are truncated to {cut.length} tokens, which may be equal"
        if survey.draws_captions and survey.listed:
            yield f"one of several texts{whose} is drawn in each epoch: `data.captions=first` fixes them"


def _of_towers(model: VisionLanguageModel, batch: Batch) -> Iterator[str]:
    """Towers that get no gradient, or whose features do not depend on the sample."""
    with _pooled_features(model) as features:
        model.zero_grad(set_to_none=True)
        model(batch).loss.backward()
    learning = {
        name: any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in tower.parameters())
        for name, tower in model.encoders.items()
    }
    model.zero_grad(set_to_none=True)
    for name, learns in learning.items():
        if not learns:
            frozen = name in model.encoders.frozen
            yield f"the tower `{name}` is frozen" if frozen else f"the tower `{name}` gets no gradient from this loss"
    for name, outputs in features.items():
        if outputs and max(_spread(output) for output in outputs) < _SPREAD:
            yield f"the features of the tower `{name}` are the same for all samples"


@contextmanager
def _pooled_features(model: VisionLanguageModel) -> Iterator[dict[str, list[Tensor]]]:
    """Collects the pooled features of every tower inside."""
    features: dict[str, list[Tensor]] = {name: [] for name in model.encoders}

    def keep(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: object, output: Any) -> None:
            pooled = getattr(output, "pooled", None)
            if pooled is not None:
                features[name].append(pooled.detach())

        return hook

    handles = [tower.register_forward_hook(keep(name)) for name, tower in model.encoders.items()]
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()


def _spread(features: Tensor) -> float:
    """The root mean square distance of features from their mean, over their root mean square length."""
    centred = features - features.mean(0)
    return float(centred.square().mean().sqrt() / features.square().mean().sqrt().clamp_min(torch.finfo().tiny))
