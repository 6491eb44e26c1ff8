"""The stages of a run and their flows: objective, data and settings of each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from vlmdsl.backends.torch.objective import Objective
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.ir import Flow, Stage, Writing, ramps, sample_index, writer_of, writings
from vlmdsl.runtime.data import BatchLoader, MixedBatches, Mixture, Source, Survey, mapped_names, requirements, texts_of
from vlmdsl.runtime.evaluation import comparison_of, first_image_tower
from vlmdsl.runtime.model import FlowModels, VisionLanguageModel
from vlmdsl.runtime.model.image_views import check_image_views
from vlmdsl.runtime.model.tower_needs import tower_needs
from vlmdsl.runtime.tokenizer import Tokenizers
from vlmdsl.runtime.training.assembly import (
    Data,
    build_flow_models,
    build_model,
    map_data,
    open_sources,
    surveys,
    text_fields,
    training_batches,
)
from vlmdsl.runtime.training.encoders import built_encoders
from vlmdsl.runtime.training.initial import initial_checkpoint, initial_tokenizers
from vlmdsl.runtime.training.measured_parts import has_measured_part
from vlmdsl.runtime.training.processes import World
from vlmdsl.runtime.training.records import RunRecord
from vlmdsl.runtime.training.reference import prepare
from vlmdsl.runtime.training.stage_sizes import OF_RUN, StageSizes
from vlmdsl.runtime.training.starting import data_facts
from vlmdsl.runtime.training.tokenizers import tokenizers_for
from vlmdsl.schema import RunConfig, config_of, shares_of
from vlmdsl.source.limits import MAXIMUM_WIDTH

__all__ = [
    "DataFacts", "FlowOfRun", "Model", "Opened", "StageOfRun", "all_weights_follow", "course_of", "models_of",
    "open_course", "tokenizers_of_course", "with_settings",
]  # fmt: skip

Model = VisionLanguageModel | FlowModels
"""What a stage trains: for several flows, one model over one set of modules."""


@dataclass(frozen=True)
class DataFacts:
    """What a model needs to know of its training data: `fields`, what is known of each field (`FieldMapping.facts`), such as
    how many numbers describe a region, and how many `samples` there are."""

    fields: Mapping[str, Any]
    samples: int

    @classmethod
    def of(cls, opened: Mapping[str, Data]) -> dict[str, DataFacts]:
        """Those of the data of each flow."""
        return {name: cls(data.mapping.facts, len(data.train)) for name, data in opened.items()}

    @classmethod
    def recorded(cls, stage: StageOfRun, record: RunRecord) -> dict[str, DataFacts] | None:
        """What `run.json` says of the data of each flow; None where it does not say all that a model needs."""
        facts: dict[str, DataFacts] = {}
        for flow in stage.flows:
            label = stage.label(flow)
            train = record.data.get(f"{label}:train" if label else "train", {})
            fields, samples = train.get("fields"), train.get("samples")
            if not isinstance(fields, dict) or not all(_is_fact(fact) for fact in fields.values()):
                return None
            if flow.objective.references.columns or (sample_index(flow.objective.program) is not None and not samples):
                return None
            facts[flow.name] = cls(fields, samples if isinstance(samples, int) else 0)
        return facts


@dataclass(frozen=True)
class FlowOfRun:
    """The objective of a share of the steps of a stage; the name is empty if it is the only flow of its stage."""

    name: str
    share: float
    """As the recipe has it; settings may state another."""
    objective: Objective
    config: RunConfig
    """The settings of the run, with those of the stage and of the flow."""
    writers: Mapping[Writing, str] = field(default_factory=dict)
    """What decoders write for it before the first step, each with the stage that has trained the decoder."""


@dataclass(frozen=True)
class StageOfRun:
    """A part of a run: `config.train.steps` steps, after `before` steps of earlier stages."""

    name: str
    starts_from: str
    flows: tuple[FlowOfRun, ...]
    config: RunConfig
    before: int
    separate_patches: frozenset[str] = frozenset()
    """Towers of which some stage predicts dropped patches: they have the same stem in all stages, which hand them over."""
    sizes: StageSizes = OF_RUN
    """Those of its images and texts, where they are not those of the run."""

    @property
    def end(self) -> int:
        """Number of steps of the run that are done when the stage ends."""
        return self.before + self.config.train.steps

    def needs(self, earlier: str) -> bool:
        """Whether it begins with the weights of an earlier stage, or reads what a decoder of that stage writes."""
        return self.starts_from == earlier or any(earlier in flow.writers.values() for flow in self.flows)

    @property
    def towers(self) -> frozenset[str]:
        """The names of the towers of its flows."""
        needs = (tower_needs(flow.objective.streams, flow.objective.references.columns) for flow in self.flows)
        return frozenset().union(*needs)

    @property
    def measured(self) -> FlowOfRun:
        """The flow that is evaluated first, and on other data alone: the first that compares images with texts, otherwise
        the first with images."""
        programs = [(flow, flow.objective.program) for flow in self.flows]
        comparing = (flow for flow, program in programs if comparison_of(program) is not None)
        with_images = (flow for flow, program in programs if first_image_tower(program) is not None)
        return next(comparing, None) or next(with_images, self.flows[0])

    def is_measured(self, flow: FlowOfRun) -> bool:
        """Whether a flow is evaluated: the measured one, and all others that compare images with texts or have another part
        with a measure: captions, codes of patches, matching."""
        program = flow.objective.program
        return flow is self.measured or comparison_of(program) is not None or has_measured_part(program)

    @property
    def mixture(self) -> Mixture:
        """Which flow each step is of."""
        shares = shares_of(self.config, {flow.name: flow.share for flow in self.flows})
        return Mixture(shares, self.config.train.seed, self.name)

    def check_sizes(self, tokenizers: Tokenizers, facts_of: Mapping[str, DataFacts]) -> None:
        """V0831, V0832 or V0834 where its towers cannot take images or texts of its own sizes. No weights are read."""
        if not self.sizes.any:
            return
        objectives = [flow.objective for flow in self.flows]
        facts = {name: fact for own in facts_of.values() for name, fact in own.fields.items()}
        model = self.config.model.model_copy(update={"pretrained": False})
        config = self.config.model_copy(update={"model": model})
        encoders = built_encoders(objectives, config, tokenizers, facts, self.separate_patches, self.sizes)
        check_image_views(encoders, [stream for objective in objectives for stream in objective.streams])

    def label(self, flow: FlowOfRun) -> str:
        """The name of a flow among all flows of the run: `second.texts`."""
        return ".".join(name for name in (self.name, flow.name) if name)

    def build(self, tokenizers: Tokenizers, world: World, facts_of: Mapping[str, DataFacts]) -> Model:
        """The model, with weights drawn from the seed; `facts_of` is what it needs to know of the data of each flow."""
        facts = {name: own.fields for name, own in facts_of.items()}
        first = self.flows[0]
        model: Model
        if len(self.flows) == 1:
            own = first.objective, first.config, tokenizers, world, facts[first.name]
            model = build_model(*own, separate_patches=self.separate_patches, sizes=self.sizes)
        else:
            objectives = {flow.name: flow.objective for flow in self.flows}
            together = objectives, self.config, tokenizers, world, facts
            model = build_flow_models(*together, separate_patches=self.separate_patches, sizes=self.sizes)
        for flow in self.flows:
            if sample_index(flow.objective.program) is not None:
                flow.objective.state.allocate_samples(facts_of[flow.name].samples)
        return model

    def survey(self, opened: Mapping[str, Data], model: Model) -> dict[str, dict[str, Survey]]:
        """The surveys of the samples of each flow."""
        models = models_of(model, self)
        surveyed = {
            flow.name: surveys(flow.objective.program, flow.config, opened[flow.name], models[flow.name])
            for flow in self.flows
        }
        for own in surveyed.values():
            for survey in own.values():
                survey.length_setting = self.sizes.setting("text_length")
        return surveyed

    def tables_of_other_data(self, earlier: StageOfRun, model: Model) -> set[str]:
        """The per-sample buffers whose training data differs from that of the flow with the same name in an earlier
        stage."""
        data = {flow.name: flow.config.data.train for flow in earlier.flows}
        others = (flow for flow in self.flows if flow.config.data.train != data.get(flow.name))
        tables = {id(table) for flow in others for table in flow.objective.state.tables}
        return {name for name, buffer in model.named_buffers() if id(buffer) in tables}

    def prepare(self, opened: Mapping[str, Data], model: Model) -> None:
        """Fill the codebooks of the flows that have no entries, and encode their reference sets."""
        for flow in self.flows:
            prepare(models_of(model, self)[flow.name], opened[flow.name], flow.config)

    def batches(self, opened: Mapping[str, Data], model: Model, world: World) -> BatchLoader | MixedBatches:
        """This process's share of the batch of each step."""
        models = models_of(model, self)
        loaders = {
            flow.name: training_batches(
                flow.objective.program, flow.config, opened[flow.name], models[flow.name], world,
                part=(self.name, flow.name), flows=len(self.flows),
            )
            for flow in self.flows
        }  # fmt: skip
        if len(self.flows) == 1:
            return next(iter(loaders.values()))
        following = {flow.name: ramps(flow.objective.program) for flow in self.flows}
        return MixedBatches(self.mixture, loaders, following, self.config.train.steps)


@dataclass(frozen=True)
class Opened:
    """The data of every flow of every stage."""

    stages: dict[str, dict[str, Data]]
    _facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Facts about the sources of each flow, by its label; cached, since fingerprints of large sources are slow."""

    def facts(self, course: Sequence[StageOfRun], surveyed: Mapping[str, Mapping[str, Survey]], of: str) -> dict[str, Any]:
        """The facts about each source in `run.json`, with the surveys of the stage `of`."""
        facts: dict[str, Any] = {}
        for stage in course:
            for flow in stage.flows:
                label = stage.label(flow)
                if label not in self._facts:
                    self._facts[label] = data_facts(self.stages[stage.name][flow.name], {})
                looked_through = surveyed[flow.name] if stage.name == of else {}
                for name, own in self._facts[label].items():
                    seen = looked_through[name].as_dict() if name in looked_through else {}
                    facts[f"{label}:{name}" if label else name] = {**own, **seen}
        return facts


def _is_fact(value: object) -> bool:
    """Whether a value of a file is what a field's facts can be: nothing, or a length in numbers."""
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAXIMUM_WIDTH)


def course_of(stages: Iterable[tuple[Stage, Mapping[str, Objective]]], config: RunConfig) -> tuple[StageOfRun, ...]:
    """The stages of a run in their order, each with the objectives of its flows by name."""
    course: list[StageOfRun] = []
    stages = list(stages)
    streams = [stream for _, objectives in stages for objective in objectives.values() for stream in objective.streams]
    separate = frozenset(tower for tower, need in tower_needs(streams).items() if need.separate_patches)
    for number, (stage, objectives) in enumerate(stages):
        earlier = [each for each, _ in stages[:number]]
        flows = tuple(_flow(stage, flow, objectives[flow.name], config, earlier) for flow in stage.flows)
        before = course[-1].end if course else 0
        shares_of(config, {flow.name: flow.share for flow in flows})  # raises here, before data are opened
        own = config_of(config, stage.name), before, separate, StageSizes.of(config, stage.name)
        course.append(StageOfRun(stage.name, stage.starts_from, flows, *own))
    return tuple(course)


def _flow(stage: Stage, flow: Flow, objective: Objective, config: RunConfig, earlier: Sequence[Stage]) -> FlowOfRun:
    writers = ((writing, writer_of(writing, earlier)) for writing in writings(objective.program))
    names = {writing: writer.name for writing, writer in writers if writer is not None}
    return FlowOfRun(flow.name, flow.share, objective, config_of(config, stage.name, flow.name), names)


def with_settings(course: Sequence[StageOfRun], config: RunConfig) -> tuple[StageOfRun, ...]:
    """The same stages with other settings of the run."""
    return tuple(
        replace(
            stage,
            config=config_of(config, stage.name),
            sizes=StageSizes.of(config, stage.name),
            flows=tuple(replace(flow, config=config_of(config, stage.name, flow.name)) for flow in stage.flows),
        )
        for stage in course
    )


def all_weights_follow(course: Sequence[StageOfRun], reached: str) -> bool:
    """Whether each stage after the stage `reached` takes the weights of all its towers over from an earlier one."""
    stages = {stage.name: stage for stage in course}
    later = list(stages.values())[[*stages].index(reached) + 1 :]
    return all(stage.starts_from and stage.towers <= stages[stage.starts_from].towers for stage in later)


def models_of(model: Model, stage: StageOfRun) -> dict[str, VisionLanguageModel]:
    """The model of each flow."""
    return model.models if isinstance(model, FlowModels) else {stage.flows[0].name: model}


def open_course(
    course: Sequence[StageOfRun],
    evaluate_on: tuple[str, ...] = (),
    evaluate_map: Mapping[str, str] | None = None,
    *,
    only: str | None = None,
) -> Opened:
    """Open the data of all stages, or of one, each source once. Only flows that are measured have held-out data, and of
    these not all where it lacks what they read (`Data.unmeasured`).

    `course` is the whole run even where the data of `only` one of its stages is opened: settings map the fields of all.
    Raises DiagnosticError with everything that is missing for the first flow with missing data.
    """
    sources: dict[str, tuple[Source, Source | None]] = {}
    stages: dict[str, dict[str, Data]] = {}
    fields = {name for stage in course for flow in stage.flows for name in _mapped(flow)}
    for stage in course if only is None else [stage for stage in course if stage.name == only]:
        stages[stage.name] = {}
        for flow in stage.flows:
            key = flow.config.data.model_dump_json(exclude={"map"})
            with nullcontext() if evaluate_on else _naming(stage, flow):
                train, val = sources[key] = sources.get(key) or open_sources(flow.config, evaluate_on)
                held_out = val if flow is stage.measured or (stage.is_measured(flow) and not evaluate_on) else None
                others = fields - _mapped(flow)
                mapped = partial(
                    map_data,
                    flow.objective.program,
                    _without(flow.config, others),
                    train,
                    foreign=bool(evaluate_on),
                    held_out_map={name: to for name, to in (evaluate_map or {}).items() if name not in others},
                )
                stages[stage.name][flow.name] = _with_held_out(mapped, stage, flow, held_out)
    return Opened(stages)


def _with_held_out(
    mapped: Callable[[Source | None], Data], stage: StageOfRun, flow: FlowOfRun, held_out: Source | None
) -> Data:
    """The data of a flow; one beside the measured flow that compares no images with texts does without held-out samples
    where those of the run lack what it reads, and its data say so."""
    try:
        return mapped(held_out)
    except DiagnosticError as error:
        if held_out is None or flow is stage.measured or comparison_of(flow.objective.program) is not None:
            raise
        # Faults of its training data are raised here.
        return replace(mapped(None), unmeasured=f"flow `{flow.name}` is not measured: {error.diagnostics[0].message}")


def _mapped(flow: FlowOfRun) -> set[str]:
    """What a mapping may name of a flow."""
    return set(mapped_names(requirements(flow.objective.program)))


def _without(config: RunConfig, fields: Collection[str]) -> RunConfig:
    """The settings without the columns of these fields, which only other flows read."""
    own = {name: columns for name, columns in config.data.map.items() if name not in fields}
    return config.model_copy(update={"data": config.data.model_copy(update={"map": own})})


@contextmanager
def _naming(stage: StageOfRun, flow: FlowOfRun) -> Iterator[None]:
    """Errors of data say which stage and flow they are of, and where those have settings of their own."""
    named = [(what, name) for what, name in (("stage", stage.name), ("flow", flow.name)) if name]
    try:
        yield
    except DiagnosticError as error:
        if not named:
            raise
        whose = " of the ".join(f"{what} `{name}`" for what, name in reversed(named))
        what, name = named[-1]
        note = f"this is the data of the {whose}; `{what}s.{name}.data` sets what is different for it"
        faults = (replace(fault, notes=(*fault.notes, note)) for fault in error.diagnostics)
        raise DiagnosticError(tuple(faults)) from error


def tokenizers_of_course(course: Sequence[StageOfRun], opened: Opened) -> Tokenizers:
    """The tokenizer of every text tower of the run: that of the run that it begins with (`model.init`), if that has the
    tower; tokenizers are trained on the training texts of all flows."""
    objectives = [flow.objective for stage in course for flow in stage.flows]

    def texts() -> Iterator[str]:
        read: set[tuple[object, ...]] = set()
        for stage in course:
            for flow in stage.flows:
                data, fields = opened.stages[stage.name][flow.name], text_fields(flow.objective.program)
                identity = (flow.config.data.train, *(data.mapping.columns.get(field) for field in fields))
                if fields and identity not in read:
                    read.add(identity)
                    yield from texts_of(data.train, data.mapping, fields)

    config = course[0].config.model

    def new() -> Tokenizers:
        return tokenizers_for(objectives, config, texts)

    return new() if config.init is None else initial_tokenizers(initial_checkpoint(config.init), objectives, config, new)
