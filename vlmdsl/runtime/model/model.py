"""Encoders and an objective as one module: a batch in, losses out."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vlmdsl.backends.torch.collectives import gather_numbers, process_count
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
    boxed_images,
    encoder_of,
    has_untrained_outputs,
    loaded_origin,
    loaded_parts,
    readings,
    uses_of,
    walk,
)
from vlmdsl.ir import Encoder as ObjectiveEncoder
from vlmdsl.ir.operations.modules import OWN
from vlmdsl.ir.operations.per_sample import INDEX
from vlmdsl.ir.schedule import Applied, Apply, Linear
from vlmdsl.planning import applied_of
from vlmdsl.runtime.model.applied import apply_modules
from vlmdsl.runtime.model.image_views import check_seen_alike
from vlmdsl.runtime.model.linear_heads import LinearHeads
from vlmdsl.runtime.model.parts import Parts
from vlmdsl.runtime.model.predictions import Predictions
from vlmdsl.runtime.model.tower_needs import check_kept_inputs, check_lengths
from vlmdsl.runtime.model.towers import noise_length
from vlmdsl.runtime.model.vocabularies import Vocabularies
from vlmdsl.runtime.modules.heads import BatchNorm
from vlmdsl.runtime.modules.towers import EncodedFeatures, Encoder
from vlmdsl.runtime.values import (
    Batch,
    TowerInput,
    Value,
    key_number,
    port,
)
from vlmdsl.runtime.values.region_counts import padded_to, region_count
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
        self.parts = parts or Parts.of(encoders, [objective], steps)
        self.encoders = self.parts.towers
        self.objective = objective
        self.parts.register(self)
        check_lengths(encoders, self.streams, objective.compared, {**(lengths or {}), **self.parts.lengths})
        features = {
            stream.input(part)
            for stream in self.streams
            for part in ("pooled", "mask", *CODES.values(), "predicted", *OUTPUTS)
        }
        self.readings: list[Reading] = readings(self.streams, self._form, sorted(set(objective.inputs) - features))
        """The values of a batch for modules: each source once per format."""
        self._ports = {reading.name: {what: port(reading.name, what) for what in _PORTS} for reading in self.readings}
        check_kept_inputs(objective.program, self.readings, self.streams)
        self.predictions.check(objective.schedule.without_logits)

    @property
    def trained_in_part(self) -> bool:
        """Whether some weights that ask for a gradient may get none."""
        return has_untrained_outputs(self.objective.program)

    def forward(self, batch: Batch) -> ObjectiveOutput:
        """The loss, its terms and metrics for this process's share of a batch."""
        return Step(self.objective, self)(self.begin(batch))

    def begin(self, batch: Batch) -> Environment:
        """The environment of a step: updates the teachers that move before it, and fills in the values of the batch."""
        if self.training:
            self.parts.follow("before")
        if process_count() > 1 and (regions := region_count(batch)):
            # Each process has padded its samples to the one of its own with the most regions.
            batch = padded_to(batch, max(gather_numbers(regions)))
        environment: Environment = {}
        for reading in self.readings:
            names = self._ports[reading.name].items()
            ports = {what: batch.values[name] for what, name in names if name in batch.values}
            environment.setdefault(reading.source, {})[reading.form] = TowerInput(batch.values[reading.name], ports)
        for node in self.objective.schedule.load.values:
            if node not in environment:
                name = node.string("name")
                if node.operation is INDEX:
                    environment[node] = batch.index
                elif node.operation is OWN:
                    environment[node] = self._own(node, batch)
                elif name in batch.draws:
                    environment[node] = batch.draws[name]
                elif name in batch.values:
                    environment[node] = _plain(batch.values[name])
                elif node.type == FieldType("Key"):  # evaluations load only what modules take
                    environment[node] = _key_numbers(batch.keys, batch.index.device)
        return environment

    def _own(self, node: Node, batch: Batch) -> Tensor:
        """Which texts are those of their samples, not swapped: it comes with every view of the swapped text, except in
        evaluation, where none is."""
        swapped = next(reading.name for reading in self.readings if node.inputs[0] in walk([reading.source]))
        own = batch.values.get(port(swapped, "own"))
        return torch.ones_like(batch.index, dtype=torch.bool) if own is None or own[0] is None else own[0]

    def part(self, use: Use) -> nn.Module:
        """The network of a use, or its teacher's."""
        return self.parts.part(use)

    def inputs(self, apply: Apply, environment: Environment) -> list[TowerInput]:
        """The inputs of a module for each value of a call (`backends.torch.step.Modules`)."""
        family = self.parts.families[apply.use.module.family]
        return [family.inputs(value, environment, apply.use, self) for value in apply.values]

    def taken(self, output: Applied, environment: Environment) -> TowerInput:
        """What a tower took for an output."""
        return self.encoders.inputs(output.value, environment, output.use, self)

    def images(self, output: Applied, environment: Environment) -> dict[str, Tensor]:
        """The pixels that a tower took for an output, and which of their patches were dropped or replaced."""
        return self.encoders.images(output, environment, self)

    def words(self, output: Applied, environment: Environment) -> Tensor:
        """Which words of the text that a tower took for an output name each region."""
        return self.encoders.words(output, environment, self)

    def call_tower(self, apply: Apply, inputs: Sequence[TowerInput]) -> list[Any]:
        """The features of each input, from one call of a module that takes samples one by one."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and apply.use.gradient):
            return self.parts.families[apply.use.module.family].call(apply, inputs, self)

    def call_whole(self, apply: Apply, environment: Environment) -> list[Any]:
        """The outputs for all values of a call, of a module that may depend on the whole batch."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and apply.use.gradient):
            return self.parts.families[apply.use.module.family].call_whole(apply, environment, self)

    def linear(self, linear: Linear, environment: Environment) -> tuple[PredictedTokens, Tensor, Tensor | None]:
        """The states of predicted tokens, and the weight and the bias that they are to be multiplied with."""
        return self.predictions.linear(linear, environment)

    def logit_sizes(self, environment: Environment) -> dict[Node, int]:
        """The bytes that logits would take, by encoded text or linear map of patches, where one linear map makes them."""
        of_patches = self.parts.families["linear"]
        assert isinstance(of_patches, LinearHeads)
        sizes = of_patches.logit_sizes(self.objective.module_outputs, environment, self)
        return self.predictions.logit_sizes(environment) | dict(sizes)

    def after_step(self) -> None:
        """Update teachers and clamp parameters of the objective; call it after each optimiser step."""
        self.parts.follow("after")
        self.objective.after_step()

    def after_epoch(self) -> None:
        """What follows the last step of an epoch: state of the objective that is updated once per epoch."""
        self.objective.after_epoch()

    @property
    def notes(self) -> list[str]:
        """Remarks on the towers, reported before the first step, one sentence each."""
        return [f"the tower `{tower}` {note}" for tower, encoder in self.encoders.items() for note in _notes(encoder)]

    def segments(self, output: Applied, environment: Environment) -> Tensor:
        """The segments of the patches of the images that a tower took for an output."""
        return self.encoders.segments(output, environment, self)

    def segment_fields(self) -> dict[str, str]:
        """The field that holds the segments of images, where they are read, for each of `readings` by name."""
        names = {(reading.source, reading.form): reading.name for reading in self.readings}
        streams = [stream for stream in self.streams if stream.segments]
        return {names[stream.source, self._form(stream.encoder, stream.source)]: stream.segments for stream in streams}

    def boxed_readings(self) -> dict[str, str]:
        """The image that boxes are places in, one of `readings` by name, for each field of Boxes.

        Raises `DiagnosticError` (V0832) where two towers that they are compared with see other parts of it.
        """
        names = {(reading.source, reading.form): reading.name for reading in self.readings}
        boxed: dict[str, str] = {}
        for field, encodes in boxed_images(self.objective.program).items():
            forms = {encode: self._form(encoder_of(encode), encode.inputs[0]) for encode in encodes}
            check_seen_alike(field, {encoder_of(encode).tower: form for encode, form in forms.items()})
            first, form = next(iter(forms.items()))
            boxed[field] = names[loaded_origin(first.inputs[0]), form]
        return boxed

    def noise_lengths(self) -> dict[str, int]:
        """The length of the noise per sample of `readings` by name, for towers that draw."""
        names = {(reading.source, reading.form): reading.name for reading in self.readings}
        lengths: dict[str, int] = {}
        for stream in self.streams:
            tower = stream.encoder.tower
            length = None if tower in self.encoders.frozen else noise_length(self.encoders[tower])
            if length is not None:
                own = [names[part, self._form(stream.encoder, part)] for part in loaded_parts(stream.source)]
                lengths |= {name: max(length, lengths.get(name, 0)) for name in own}
        return lengths

    def encode(self, tower: str, value: Value, heads: tuple[Head, ...] = ()) -> EncodedFeatures:
        """Features of a value through one tower, and `heads` of it, outside any objective and in the caller's gradient
        mode."""
        encoded: EncodedFeatures = TowerInput(value).call(self.encoders[tower])
        for use in uses_of(ObjectiveEncoder(tower, str(self.encoders[tower].kind), heads=heads))[1:]:
            (pooled,) = self.part(use)([encoded.pooled])
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
        inputs |= self._applied_features(node, read, values)
        numbers = _key_numbers(keys, next(self.encoders.parameters()).device)
        inputs |= {leaf.string("name"): numbers for leaf in read if leaf.type == FieldType("Key")}
        return EncodedFeatures(pooled=self.objective.value(node, inputs))

    def _applied_features(self, node: Node, read: set[Node], values: Mapping[str, Value]) -> dict[str, Tensor]:
        """The pooled features of the modules on features among the nodes that are `read`, by the objective's inputs."""
        outputs = [output for output in self.objective.module_outputs if output.pooled and output.node in read]
        if not outputs:
            return {}
        environment: Environment = {}
        for stream in self.streams:
            if stream.encode in read:
                form, tower = self._form(stream.encoder, stream.source), stream.encoder.tower
                environment.setdefault(stream.source, {})[form] = TowerInput(values[tower])
        apply_modules(self, node, environment)
        return {output.name: environment[applied_of(output.node)].pooled for output in outputs}

    def check_per_sample(self) -> None:
        """Raises `DiagnosticError` (V0833) where a tower that learns takes statistics of the batch."""
        for name, encoder in self.encoders.items():
            statistics = [path for path, module in encoder.named_modules() if isinstance(module, _BatchNorm | BatchNorm)]
            if statistics and name not in self.encoders.frozen:
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
        return self.parts.units

    @property
    def predictions(self) -> Predictions:
        """Computes the values of predicted tokens."""
        vocabularies = self.parts.families["vocabulary"]
        assert isinstance(vocabularies, Vocabularies)
        head, outputs = partial(vocabularies.network, model=self), self.objective.module_outputs
        return Predictions(self.streams, outputs, head, self.form, self.parts.families)

    def _form(self, encoder: ObjectiveEncoder, source: Node) -> Hashable:
        """The form in which an encoder takes a source; None where its tower states none."""
        return self.form(encoder.tower, source.type.kind) if isinstance(source.type, FieldType) else None

    def form(self, tower: str, kind: str) -> Hashable:
        """The form in which a tower takes fields of a kind, its `image_format`, `text_format`; None where it states none."""
        name = "text_format" if kind == "Concepts" else f"{kind.lower()}_format"
        form: Hashable = getattr(self.encoders[tower], name, None)
        return form


_PORTS = ("keep", "replace", "noise", "masked", "word_map", "segments")
"""What may come with a value for the module that takes it (`runtime.values`)."""


def _notes(encoder: nn.Module) -> tuple[str, ...]:
    notes: tuple[str, ...] = getattr(encoder, "notes", ())
    return notes


def _key_numbers(keys: Iterable[str], device: torch.device) -> Tensor:
    return torch.tensor([key_number(key) for key in keys], device=device)


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
