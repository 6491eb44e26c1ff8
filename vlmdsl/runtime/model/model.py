"""Encoders and an objective as one module: a batch in, losses out."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vlmdsl.backends.torch.given import decoder_input, fusion_input, head_input
from vlmdsl.backends.torch.step import Environment, Step
from vlmdsl.backends.torch.values import PredictedTokens
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.encoders import TowerNotPerSample
from vlmdsl.ir import (
    CODES,
    OUTPUTS,
    Head,
    Node,
    Reading,
    Stream,
    Use,
    loaded_parts,
    parts_of,
    readings,
    uses_of,
    walk,
)
from vlmdsl.ir import Encoder as ObjectiveEncoder
from vlmdsl.ir.operations.encoding import ENCODE
from vlmdsl.ir.operations.per_sample import INDEX
from vlmdsl.ir.operations.scalars import CONSTANT
from vlmdsl.ir.operations.views import BLEND
from vlmdsl.ir.schedule import Applied, Apply, Linear
from vlmdsl.ir.schedule import Value as ScheduleValue
from vlmdsl.planning import applied_of
from vlmdsl.runtime.model.fusions import ContextMask, ContextStates, TextStates
from vlmdsl.runtime.model.named import NamedModules
from vlmdsl.runtime.model.parts import Parts
from vlmdsl.runtime.model.pixel_decoders import PatchStates
from vlmdsl.runtime.model.predictions import Predictions
from vlmdsl.runtime.model.text_decoders import decoder_input as text_decoder_input
from vlmdsl.runtime.model.tower_needs import check_lengths
from vlmdsl.runtime.modules.heads import BatchNorm
from vlmdsl.runtime.modules.towers import EncodedFeatures, Encoder
from vlmdsl.runtime.values import (
    Batch,
    ImageBatch,
    ImageFormat,
    KeptPatches,
    Share,
    TowerInput,
    Value,
    call_together,
    count,
    key_number,
    port,
)
from vlmdsl.source import Span
from vlmdsl.types import FieldType

if TYPE_CHECKING:
    from vlmdsl.backends.torch.objective import Objective, ObjectiveOutput

__all__ = ["VisionLanguageModel"]


class VisionLanguageModel(nn.Module):
    """Towers, heads and teachers by name, and the step of an objective's schedule.

    `encoders` are the towers by name (`vision`, `language`, or a recipe's own). Frozen towers keep their weights: no
    gradient, and evaluation mode throughout. Teachers follow their towers; `steps` is the length of the run that a schedule
    of their momentum goes by, `lengths` those of the vectors that fields hold, by name. `parts` are the modules beside the
    towers, where several objectives share them. Raises `DiagnosticError` (V0832) where the towers do not give what the
    objective compares.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        objective: Objective,
        *,
        steps: int = 0,
        lengths: Mapping[str, int] | None = None,
        parts: Parts | None = None,
    ) -> None:
        super().__init__()
        self.streams: list[Stream] = list(objective.streams)
        parts = parts or Parts.of(encoders, [objective], steps)
        self.encoders = NamedModules(encoders)
        self.objective = objective
        self.frozen_towers = parts.frozen_towers
        self.fusions, self.decoders = parts.fusions, parts.decoders
        check_lengths(encoders, self.streams, objective.compared, {**(lengths or {}), **self.fusions.lengths})
        self.heads, self.teachers = parts.heads, parts.teachers
        features = {
            stream.input(part)
            for stream in self.streams
            for part in ("pooled", "mask", *CODES.values(), "predicted", *OUTPUTS)
        }
        self.readings: list[Reading] = readings(self.streams, self._form, sorted(set(objective.inputs) - features))
        """The values of a batch for modules: each source once per format."""
        self._predictions.check(objective.schedule.without_logits)

    def train(self, mode: bool = True) -> VisionLanguageModel:
        """As in any module, but frozen towers stay in evaluation mode."""
        super().train(mode)
        for name in self.frozen_towers:
            self.encoders[name].eval()
        return self

    def forward(self, batch: Batch) -> ObjectiveOutput:
        """The loss, its terms and metrics for this process's share of a batch."""
        return Step(self.objective, self)(self.begin(batch))

    def begin(self, batch: Batch) -> Environment:
        """The environment of a step: updates the teachers that move before it, and fills in the values of the batch."""
        if self.teachers is not None and self.training:
            self.teachers.follow(self.encoders, self.heads, "before")
        environment: Environment = {}
        for reading in self.readings:
            names = {what: port(reading.name, what) for what in _PORTS}
            ports = {what: batch.values[name] for what, name in names.items() if name in batch.values}
            environment.setdefault(reading.source, {})[reading.form] = TowerInput(batch.values[reading.name], ports)
        for node in self.objective.schedule.load.values:
            if node not in environment:
                name = node.string("name")
                if node.operation is INDEX:
                    environment[node] = batch.index
                elif name in batch.draws:
                    environment[node] = batch.draws[name]
                elif name in batch.values:
                    environment[node] = _plain(batch.values[name])
        return environment

    def inputs(self, apply: Apply, environment: Environment) -> list[TowerInput]:
        """The inputs of a tower for each value of a call (`backends.torch.step.Modules`)."""
        if apply.use.module.family == "fusion":
            return [_fused(*fusion_input(value, environment)) for value in apply.values]
        if apply.use.module.family == "decoder":
            return [self._decoded(value, environment) for value in apply.values]
        return [self._input(apply.use, value, environment) for value in apply.values]

    def images(self, output: Applied, environment: Environment) -> tuple[Tensor, Tensor]:
        """The pixels that a tower took for an output, and which of their patches were dropped."""
        taken = self._input(output.use, output.value, environment)
        form, keep = self.form(output.use.module.name, "Image"), taken.ports["keep"]
        assert isinstance(taken.value, ImageBatch)
        assert isinstance(keep, KeptPatches)
        assert isinstance(form, ImageFormat)
        return taken.value.pixels, keep.dropped(form.patches_of(taken.value.pixels))

    def call_tower(self, apply: Apply, inputs: Sequence[TowerInput]) -> list[Any]:
        """The features of each input, from one call of a module that takes samples one by one."""
        entry = {"enters": apply.use.blocks[0]} if apply.mode.kind == "Regions" else {}
        with torch.set_grad_enabled(torch.is_grad_enabled() and apply.use.gradient):
            if apply.use.module.family == "decoder":
                return self.decoders.call(apply.use.module, inputs)
            if apply.use.module.family == "fusion":
                return call_together(self.fusions.part(apply.use.module), inputs)
            return call_together(partial(self._module(apply.use), **entry), inputs)

    def call_whole(self, apply: Apply, environment: Environment) -> list[Any]:
        """The outputs of a head or a vocabulary for all values of a call."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and apply.use.gradient):
            if apply.use.module.family == "head":
                vectors = [_vectors(value, environment) for value in apply.values]
                features: list[Tensor] = self._module(apply.use)(vectors)
                return features
            return [self._predictions.call(apply.use, value, environment) for value in apply.values]

    def linear(self, linear: Linear, environment: Environment) -> tuple[PredictedTokens, Tensor, Tensor | None]:
        """The states of predicted tokens, and the weight and the bias that they are to be multiplied with."""
        return self._predictions.linear(linear, environment)

    def logit_sizes(self, environment: Environment) -> dict[Node, int]:
        """The bytes that logits would take, by encoded text, where one linear map makes them."""
        return self._predictions.logit_sizes(environment)

    def after_step(self) -> None:
        """Update teachers and clamp parameters of the objective; call it after each optimiser step."""
        if self.teachers is not None:
            self.teachers.follow(self.encoders, self.heads, "after")
        self.objective.after_step()

    def after_epoch(self) -> None:
        """What follows the last step of an epoch: state of the objective that is updated once per epoch."""
        self.objective.after_epoch()

    @property
    def notes(self) -> list[str]:
        """Remarks on the towers, reported before the first step, one sentence each."""
        return [f"the tower `{tower}` {note}" for tower, encoder in self.encoders.items() for note in _notes(encoder)]

    def noise_lengths(self) -> dict[str, int]:
        """The length of the noise per sample of `readings` by name, for towers that draw."""
        names = {(reading.source, reading.form): reading.name for reading in self.readings}
        lengths: dict[str, int] = {}
        for stream in self.streams:
            tower = stream.encoder.tower
            length = None if tower in self.frozen_towers else _noise_length(self.encoders[tower])
            if length is not None:
                own = [names[part, self._form(stream.encoder, part)] for part in loaded_parts(stream.source)]
                lengths |= {name: max(length, lengths.get(name, 0)) for name in own}
        return lengths

    def encode(self, tower: str, value: Value, heads: tuple[Head, ...] = ()) -> EncodedFeatures:
        """Features of a value through one tower, and `heads` of it, outside any objective and in the caller's gradient
        mode."""
        encoded: EncodedFeatures = TowerInput(value).call(self.encoders[tower])
        for use in uses_of(ObjectiveEncoder(tower, str(self.encoders[tower].kind), heads=heads))[1:]:
            (pooled,) = self.heads.part(use.module)([encoded.pooled])
            encoded = EncodedFeatures(pooled)
        return encoded

    def features(self, node: Node, values: Mapping[str, Value], keys: Iterable[str]) -> EncodedFeatures:
        """The features that the objective computes from one field (`node` of its graph) for these `values` and `keys`.

        Every tower that the node reads encodes the value under its name, outside of any batch; gradients are the caller's.
        """
        read = set(walk([node]))
        inputs: dict[str, Tensor] = {}
        for stream in self.streams:
            if stream.encode in read:
                encoded = self.encode(stream.encoder.tower, values[stream.encoder.tower], stream.encoder.heads)
                inputs.update(_named(stream, encoded))
        numbers = torch.tensor([key_number(key) for key in keys], device=next(self.encoders.parameters()).device)
        inputs |= {leaf.string("name"): numbers for leaf in read if leaf.type == FieldType("Key")}
        return EncodedFeatures(pooled=self.objective.value(node, inputs))

    def check_per_sample(self) -> None:
        """Raises `DiagnosticError` (V0833) where a tower that learns takes statistics of the batch."""
        for name, encoder in self.encoders.items():
            statistics = [path for path, module in encoder.named_modules() if isinstance(module, _BatchNorm | BatchNorm)]
            if statistics and name not in self.frozen_towers:
                help = ("leave `train.micro` out", "or take an encoder with layer norms, such as `vit:`")
                place = Span("encoders", 0, 0)
                raise DiagnosticError((TowerNotPerSample.at(place, tower=name, module=statistics[0], help=help),))

    def compile_encoders(self) -> None:
        """Compile the towers, and the modules on them, with torch.compile."""
        for module in self.units:
            module.compile()

    @property
    def units(self) -> list[nn.Module]:
        """The modules that a step calls, inner ones first.

        To shard a model by FSDP2, shard each of them and then the model: `for unit in model.units: fully_shard(unit)`.
        """
        towers = [tower for tower in self.encoders.values() if isinstance(tower, Encoder) and not tower.tied_vocabulary]
        modules: list[nn.Module] = [tower.vocabulary_head for tower in towers if tower.vocabulary_head is not None]
        named = (self.encoders, self.heads.parts, self.fusions.parts, self.fusions.vocabularies, self.decoders.parts)
        for one in named:
            modules += one.values()
        return modules + (self.teachers.encoding() if self.teachers else [])

    @property
    def _predictions(self) -> Predictions:
        return Predictions(self.streams, self.objective.module_outputs, self._vocabulary, self.form)

    def _form(self, encoder: ObjectiveEncoder, source: Node) -> Hashable:
        """The form in which an encoder takes a source; None where its tower states none."""
        return self.form(encoder.tower, source.type.kind) if isinstance(source.type, FieldType) else None

    def form(self, tower: str, kind: str) -> Hashable:
        """The form in which a tower takes fields of a kind, its `image_format`, `text_format`; None where it states none."""
        form: Hashable = getattr(self.encoders[tower], f"{kind.lower()}_format", None)
        return form

    def _input(self, use: Use, source: ScheduleValue, environment: Environment) -> TowerInput:
        """What a tower takes of a source: its value with what comes with it, or an image with a text that is joined or
        blended with it."""
        assert isinstance(source, Node)
        tower = use.module.name
        if source.operation is ENCODE:
            stream = next(stream for stream in self.streams if stream.encode is source)
            whole = bool(set(stream.outputs) - {"vocabulary"})
            return text_decoder_input(source, environment, self.form(tower, "Text"), whole=whole)
        first, *paired = [environment[part][self.form(tower, _kind(part))] for part in parts_of(source)]
        draws = _noise_length(self.encoders[tower]) is not None  # else the noise was drawn for another tower
        value, ports = first.value, {"keep": first.ports.get("keep"), "noise": first.ports.get("noise") if draws else None}
        if paired:
            ports["words"] = paired[0].value
        if source.operation is BLEND:
            assert isinstance(value, ImageBatch)
            by = source.inputs[2]
            number = by.number("value") if by.operation is CONSTANT else environment[by]
            share = torch.as_tensor(number, dtype=value.pixels.dtype, device=value.pixels.device)
            ports["share"] = Share(share.expand(count(value)))
        return TowerInput(value, {what: part for what, part in ports.items() if part is not None})

    def _decoded(self, node: ScheduleValue, environment: Environment) -> TowerInput:
        """The inputs of a decoder: the states of a tower, with its visible patches."""
        assert isinstance(node, Node)
        output = applied_of(node.inputs[0].inputs[0])
        keep = self._input(output.use, output.value, environment).ports["keep"]
        return TowerInput(PatchStates(decoder_input(node, environment)), {"keep": keep})

    def _vocabulary(self, use: Use) -> Any:
        """The module from states to logits."""
        below = use.module.on
        assert below is not None
        if below.family == "fusion":
            return self.fusions.vocabulary(use.module)
        return getattr(self._module(Use(below, follows=use.follows)), "vocabulary_head", None)

    def _module(self, use: Use) -> nn.Module:
        """The module to call: a tower or a head, or its teacher."""
        if use.follows is not None:
            assert self.teachers is not None, "a model has the teachers that its streams ask for"
            return self.teachers.part(use)
        module: nn.Module = self.encoders[use.module.name] if use.module.family == "tower" else self.heads.part(use.module)
        return module


_PORTS = ("keep", "noise", "masked")
"""What may come with a value for the module that takes it (`runtime.values`)."""


def _kind(source: Node) -> str:
    assert isinstance(source.type, FieldType)
    return source.type.kind


def _vectors(value: ScheduleValue, environment: Environment) -> Tensor:
    """The inputs of a head: pooled features of a tower, of the head below, or of fusion."""
    return head_input(value, environment) if isinstance(value, Node) else _pooled(environment[value])


def _fused(states: Tensor, mask: Tensor | None, context: Tensor, context_mask: Tensor | None) -> TowerInput:
    """The inputs of fusion: the states of a text, with those of its image."""
    whole = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device) if mask is None else mask
    ports: dict[str, Value] = {"context": ContextStates(context)}
    return TowerInput(
        TextStates(states, whole), ports if context_mask is None else {**ports, "context_mask": ContextMask(context_mask)}
    )


def _pooled(output: Tensor | EncodedFeatures) -> Tensor:
    """The vectors that a head takes: those of the head below, or of the tower."""
    pooled = output if isinstance(output, Tensor) else output.pooled
    assert pooled is not None, "a tower under a head yields pooled features"
    return pooled


def _notes(encoder: nn.Module) -> tuple[str, ...]:
    notes: tuple[str, ...] = getattr(encoder, "notes", ())
    return notes


def _noise_length(encoder: nn.Module) -> int | None:
    return getattr(encoder, "noise_length", None)


def _plain(value: Value) -> Tensor:
    """The tensor of a field that the objective takes itself."""
    (tensor,) = value
    assert tensor is not None
    return tensor


def _named(stream: Stream, features: EncodedFeatures) -> dict[str, Tensor]:
    """The objective's inputs for one stream, by the names of `ir.inputs`."""
    inputs: dict[str, Tensor | None] = {}
    if stream.pooled:
        inputs[stream.name] = features.pooled
    if stream.tokens:
        inputs[stream.input("tokens")] = features.tokens
        inputs[stream.input("mask")] = features.mask
    return {name: value for name, value in inputs.items() if value is not None}
