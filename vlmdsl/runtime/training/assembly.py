"""From a configuration to the data, tokenizer and model of a run, in the order in which errors should be reported."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from vlmdsl.backends.torch.objective import Objective
from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.diagnostics.catalog.data import StreamUnusable
from vlmdsl.diagnostics.catalog.sources import WeightsUnusable
from vlmdsl.ir import ONE_SOURCE, Column, Program, Writing, columns, draws, ramps, ramps_in_epochs, sample_index, writings
from vlmdsl.ir.operations.views import SWAP
from vlmdsl.runtime.data import (
    BatchLoader,
    FieldMapping,
    Limits,
    Loaded,
    Materials,
    SampleStream,
    Source,
    Survey,
    View,
    calls_of,
    checked_font,
    groups_by_source,
    held_out,
    map_fields,
    open_source,
    open_stream,
    plain_fields,
    read_concepts,
    read_synonyms,
    requirements,
    seed_of,
    split_samples,
    stream_with_stand_ins,
    survey,
    texts_of,
    view_of,
    weighted_parts,
    with_stand_ins,
)
from vlmdsl.runtime.data.holding_out import hold_out, share_held_out
from vlmdsl.runtime.data.loading import workers_for
from vlmdsl.runtime.data.order import Part
from vlmdsl.runtime.data.stand_ins import Call
from vlmdsl.runtime.model import FlowModels, VisionLanguageModel
from vlmdsl.runtime.model.tower_needs import lengths_of_streams
from vlmdsl.runtime.modules.recompute import recompute_activations
from vlmdsl.runtime.modules.towers import Encoder
from vlmdsl.runtime.tokenizer import Tokenizers
from vlmdsl.runtime.training.encoders import built_encoders, vector_lengths
from vlmdsl.runtime.training.processes import World
from vlmdsl.runtime.training.stage_sizes import OF_RUN, StageSizes
from vlmdsl.runtime.training.tokenizers import tokenizers_for
from vlmdsl.schema import DataConfig, ModelConfig, RunConfig
from vlmdsl.source import Span

__all__ = [
    "Data",
    "build_flow_models",
    "build_model",
    "map_data",
    "materials_of",
    "open_data",
    "open_sources",
    "read_tokenizers",
    "reference_values",
    "surveys",
    "text_fields",
    "training_batches",
    "weights_of",
]


_Model = TypeVar("_Model", VisionLanguageModel, FlowModels)


@dataclass(frozen=True)
class Data:
    """Training and held-out samples with the columns that feed the recipe's fields; `held_out` is None without any.

    `reference` are the samples that the recipe retrieves from; None if it does not. Where the training samples are read as a
    `stream`, `train` is its head.
    """

    train: Source
    mapping: FieldMapping
    held_out: Source | None
    held_out_mapping: FieldMapping | None
    reference: Source | None = None
    reference_mapping: FieldMapping | None = None
    foreign: bool = False
    """Whether the held-out samples are not those of the run."""
    stream: SampleStream | None = None
    unmeasured: str = ""
    """Why the run's held-out samples are not those of this flow, which is measured where they are."""
    written: Mapping[Writing, Sequence[str]] = field(default_factory=dict)
    """What decoders of earlier stages have written of the training samples, by their places."""


def open_data(
    program: Program, config: RunConfig, evaluate_on: tuple[str, ...] = (), evaluate_map: Mapping[str, str] | None = None
) -> Data:
    """Opens every source and finds the column of every field; DiagnosticError with all that is lacking.

    `evaluate_on` takes the place of the configured held-out data, and `evaluate_map` is for held-out data only, beside the
    configured mapping.
    """
    sources = open_sources(config, evaluate_on)
    return map_data(program, config, *sources, foreign=bool(evaluate_on), held_out_map=evaluate_map)


def open_sources(config: RunConfig, evaluate_on: tuple[str, ...] = ()) -> tuple[Source, Source | None]:
    """The training and the held-out samples; `evaluate_on` takes the place of the configured held-out data."""
    specs = evaluate_on or config.data.val or tuple(held_out(config.data.train))
    limits, share = Limits.of(config.data), share_held_out(config.data.val)
    if share is not None:
        if config.data.stream:
            raise _no_stream("a share of a stream cannot be held out", "name held-out data with `--val`")
        train, val = hold_out(open_source(config.data.train, limits=limits), share)
        return train, open_source(evaluate_on, "val", limits=limits) if evaluate_on else val
    train = (
        open_stream(config.data.train, limits).head if config.data.stream else open_source(config.data.train, limits=limits)
    )
    return train, open_source(specs, "val", limits=limits) if specs else None


def map_data(
    program: Program,
    config: RunConfig,
    train: Source,
    val: Source | None,
    *,
    foreign: bool = False,
    held_out_map: Mapping[str, str] | None = None,
) -> Data:
    """Finds the column of every field of a recipe; DiagnosticError with all that is lacking.

    `foreign` held-out samples are not the run's own, so that their classes have no numbers in common. `held_out_map` is for
    held-out samples only, beside the configured mapping.
    """
    held_out_config = config.data.model_copy(update={"map": {**config.data.map, **(held_out_map or {})}})
    limits, stand_ins = Limits.of(config.data), _stand_ins(config.data)
    train = with_stand_ins(train, stand_ins, limits)
    val = None if val is None else with_stand_ins(val, _stand_ins(held_out_config), limits)
    faults: list[Diagnostic] = []
    mapping = _mapped(train, program, config.data, faults)
    val_mapping = None
    if val is not None:
        shared = mapping.numbered if mapping is not None and not foreign else ()
        classes = {name: mapping.classes[name] for name in shared} if mapping is not None else {}
        classes |= {"label": config.evaluation.classes} if config.evaluation.classes else {}
        val_mapping = _mapped(val, program, held_out_config, faults, classes, foreign)
    if mapping is None or faults:
        raise DiagnosticError(tuple(dict.fromkeys(faults)))
    stream = _stream(program, config, stand_ins) if config.data.stream else None
    if not _of_samples(program):
        return Data(train, mapping, val, val_mapping, foreign=foreign, stream=stream)
    if not config.data.reference:
        rest, kept = split_samples(train, config.data.reference_share, config.train.seed)
        return Data(rest, mapping, val, val_mapping, kept, mapping, foreign)
    reference = with_stand_ins(open_source(config.data.reference, limits=limits), stand_ins, limits)
    reference_mapping = _mapped(reference, program, config.data, faults, mapping.classes)
    if reference_mapping is None:
        raise DiagnosticError(tuple(dict.fromkeys(faults)))
    return Data(train, mapping, val, val_mapping, reference, reference_mapping, foreign, stream)


def _of_samples(program: Program) -> list[Column]:
    """The columns of the reference set that samples are set aside for."""
    return [column for column in columns(program) if not column.of_names]


def _stream(program: Program, config: RunConfig, stand_ins: list[Call]) -> SampleStream:
    """The training samples as a stream; V0837 for a recipe that needs random access to them."""
    reason, help = "", "leave out `data.stream=true`"
    if program.batch_policy == ONE_SOURCE:
        reason = "the recipe asks for batches of one source each, which needs the sources of all samples"
    elif _of_samples(program) and not config.data.reference:
        reason = "the recipe retrieves from a share of the samples; name others with `data.reference`"
    elif sample_index(program) is not None:
        reason = "the recipe keeps a number per sample, and the length of a stream is not known"
    elif writings(program):
        reason = "a decoder writes a text for each sample, and the length of a stream is not known"
    elif any(node.operation is SWAP for node in program.nodes()):
        reason = "the recipe swaps texts with those of any other samples"
    elif in_epochs := ramps_in_epochs(ramps(program)):
        reason = f"`{in_epochs[0]}` counts epochs, and the length of a stream is not known"
        help = "count in steps, or in shares of the run"
    if reason:
        raise _no_stream(reason, help)
    limits = Limits.of(config.data)
    return stream_with_stand_ins(open_stream(config.data.train, limits), stand_ins, limits)


def _no_stream(reason: str, help: str) -> DiagnosticError:
    return DiagnosticError((StreamUnusable.at(Span("<command line>", 0, 0), reason=reason, help=(help,)),))


def _stand_ins(config: DataConfig) -> list[Call]:
    return [call for calls in calls_of(config.map).values() for call in calls]


def _mapped(
    source: Source,
    program: Program,
    config: DataConfig,
    faults: list[Diagnostic],
    classes: Mapping[str, tuple[str, ...]] | None = None,
    foreign: bool = False,
) -> FieldMapping | None:
    """The mapping, or None and the reasons among `faults`. Held-out data (with `classes`) is not seen through views."""
    try:
        needs, limits = requirements(program, views=classes is None), Limits.of(config)
        return map_fields(source, needs, config.map, classes, limits, foreign=foreign)
    except DiagnosticError as error:
        faults.extend(error.diagnostics)
        return None


def read_tokenizers(objective: Objective, config: ModelConfig, data: Data) -> Tokenizers:
    """The tokenizer of every text tower, see `tokenizers_for`; what is trained is trained on the training texts."""
    fields = text_fields(objective.program)
    return tokenizers_for([objective], config, lambda: texts_of(data.train, data.mapping, fields))


def surveys(program: Program, config: RunConfig, data: Data, model: VisionLanguageModel) -> dict[str, Survey]:
    """Survey the training, held-out and reference samples; `DiagnosticError` if too few are good."""
    values = {reading.name: Loaded(view_of(reading.source), reading.form) for reading in model.readings}
    materials, share = materials_of(config), config.data.max_bad_share
    every = {need.field: need.kind for need in requirements(program)}
    plain = {need.field: need.kind for need in requirements(program, views=False) if not need.optional}
    retrieved = {column.field: column.kind for column in _of_samples(program)}
    batch = 1 if data.stream else config.train.batch  # the head of a stream may be smaller than a batch
    surveyed = {
        "train": survey(data.train, data.mapping, every, values, materials=materials, batch=batch, max_bad_share=share)
    }
    fixed = replace(materials, draw_captions=False)
    for name, source, mapping, fields, loaded in (
        ("held_out", data.held_out, data.held_out_mapping, plain, values),
        ("reference", data.reference, data.reference_mapping, retrieved, reference_values(model)),
    ):
        if source is not None and mapping is not None:
            surveyed[name] = survey(source, mapping, fields, loaded, materials=fixed, max_bad_share=share)
    return surveyed


def reference_values(model: VisionLanguageModel) -> dict[str, Loaded]:
    """The values of the columns of the reference set, each in the format of its tower."""
    return {
        column.name: Loaded(View(column.field, column.kind), model.form(column.encoder.tower, column.kind))
        for column in model.objective.references.columns
        if not column.of_names
    }


def text_fields(program: Program) -> list[str]:
    """The names of the fields of a program that hold texts, or phrases."""
    return [need.field for need in requirements(program, views=False) if need.kind in ("Text", "Phrases", "Concepts")]


def build_model(
    objective: Objective,
    config: RunConfig,
    tokenizers: Tokenizers,
    world: World,
    facts: Mapping[str, Any] | None = None,
    *,
    separate_patches: Collection[str] = (),
    sizes: StageSizes = OF_RUN,
) -> VisionLanguageModel:
    """The towers that the objective needs, with weights drawn from the seed, and the objective, on the world's device.

    `facts` is what is known of the data's fields (`FieldMapping.facts`): how many numbers describe a region, or a vector.
    Towers of `separate_patches` have them for another stage, if this objective does not need them. `sizes` are those of the
    stage, where they are not those of the run.
    """
    encoders = built_encoders([objective], config, tokenizers, facts or {}, separate_patches, sizes)
    lengths = vector_lengths(objective, facts or {})
    model = VisionLanguageModel(encoders, objective, steps=config.train.steps, lengths=lengths)
    _allocate(objective, encoders, {**lengths, **model.parts.lengths})
    return _settled(model, config, world)


def build_flow_models(
    objectives: Mapping[str, Objective],
    config: RunConfig,
    tokenizers: Tokenizers,
    world: World,
    facts: Mapping[str, Mapping[str, Any]],
    *,
    separate_patches: Collection[str] = (),
    sizes: StageSizes = OF_RUN,
) -> FlowModels:
    """The same for the objectives of several flows: one model over one set of modules; `facts` are those of each flow."""
    together = {name: fact for own in facts.values() for name, fact in own.items()}
    encoders = built_encoders([*objectives.values()], config, tokenizers, together, separate_patches, sizes)
    lengths = {flow: vector_lengths(objective, facts[flow]) for flow, objective in objectives.items()}
    built = FlowModels(encoders, objectives, steps=config.train.steps, lengths=lengths)
    for flow, objective in objectives.items():
        _allocate(objective, encoders, {**lengths[flow], **built.parts.lengths})
    return _settled(built, config, world)


def _settled(model: _Model, config: RunConfig, world: World) -> _Model:
    """The model on its device, with what settings say of how its modules run."""
    model = model.to(world.device)
    if config.train.recompute:
        recompute_activations(model)
    if config.train.compile_encoders:
        model.compile_encoders()
    return model


def _allocate(objective: Objective, encoders: Mapping[str, Encoder], others: Mapping[str, int]) -> None:
    """Give queues and means the lengths of the features that enter them; `others` are those of fields that hold vectors, and
    of modules."""
    objective.state.allocate({**others, **lengths_of_streams(encoders, objective.streams)})


def materials_of(config: RunConfig) -> Materials:
    """The materials of views; `DiagnosticError` for files that cannot be used."""
    synonyms, font, concepts = config.data.synonyms, config.data.font, config.data.concepts
    return Materials(
        None if synonyms is None else read_synonyms(synonyms),
        None if font is None else checked_font(font),
        Limits.of(config.data),
        config.data.captions == "draw",
        None if concepts is None else read_concepts(concepts),
    )


def training_batches(
    program: Program,
    config: RunConfig,
    data: Data,
    model: VisionLanguageModel,
    world: World,
    *,
    part: tuple[str, str] = ("", ""),
    flows: int = 1,
) -> BatchLoader:
    """This process's share of every training batch.

    `part` is the stage and the flow that they are for; of several `flows` the numbers that follow the run are left to
    `MixedBatches`.
    """
    groups = groups_by_source(data.train, data.mapping) if program.batch_policy == ONE_SOURCE else None
    loader = BatchLoader(
        data.stream or data.train,
        data.mapping,
        model.readings,
        fields=plain_fields(program),
        draws=draws(program),
        ramps=() if flows > 1 else ramps(program),
        steps=config.train.steps,
        batch=config.train.batch,
        seed=seed_of(config.train.seed, *part),
        rank=world.rank,
        world=world.size,
        workers=workers_for(config.data.workers, config.train.steps, flows),
        materials=replace(materials_of(config), written=data.written),
        groups=groups,
        parts=weights_of(program, config.data, data),
        noise=model.noise_lengths(),
        segments=model.segment_fields(),
        boxes=model.boxed_readings(),
        max_bad_share=config.data.max_bad_share,
        lanes=config.data.stream_lanes,
        window=config.data.stream_window,
    )
    loader.report.notes += [f"stand-in: `{name}` is {' and '.join(calls)}" for name, calls in data.mapping.stand_ins.items()]
    return loader


def weights_of(program: Program, config: DataConfig, data: Data) -> list[Part]:
    """The parts of weighted training sources, none without weights; `DiagnosticError` (V0844) where there can be none."""
    if not config.weights:
        return []
    reason = ""
    if len(config.weights) != len(config.train):
        reason = f"there are {len(config.weights)} weights, and {len(config.train)} training sources"
    elif data.stream is not None:
        reason = "the training data is read as a stream"
    elif program.batch_policy == ONE_SOURCE:
        reason = "the recipe asks for batches of one source each"
    if reason:
        raise DiagnosticError((WeightsUnusable.at(Span("<command line>", 0, 0), reason=reason),))
    parts = weighted_parts(data.train, config.weights) if len(config.train) > 1 else []
    if (empty := next((part for part in parts if not part.count), None)) is not None:
        reason = f"less than one sample of {empty.name} would be in an epoch"
        raise DiagnosticError((WeightsUnusable.at(Span("<command line>", 0, 0), reason=reason),))
    return parts
