"""Encoders and an objective as one module: a batch in, losses out."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vlmdsl.backends.torch.ops import mix
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.encoders import TowerDoesNotFit
from vlmdsl.ir import OUTPUTS, Column, Head, Node, Reading, Stream, parts_of, readings, walk
from vlmdsl.ir import Encoder as ObjectiveEncoder
from vlmdsl.ir.operations.views import BLEND
from vlmdsl.runtime.encoders import EncodedFeatures, Encoder
from vlmdsl.runtime.heads import Heads, prefixes
from vlmdsl.runtime.image_views import check_image_views
from vlmdsl.runtime.named import NamedModules
from vlmdsl.runtime.teachers import Teachers
from vlmdsl.runtime.values import (
    Batch,
    ImageBatch,
    MaskedTokens,
    Share,
    TowerInput,
    Value,
    call_together,
    count,
    key_number,
    port,
)
from vlmdsl.source import Span
from vlmdsl.types import FieldType, Type

if TYPE_CHECKING:
    from vlmdsl.backends.torch.objective import Objective, ObjectiveOutput

__all__ = ["TowerNeed", "VisionLanguageModel", "tower_needs"]


@dataclass(frozen=True)
class TowerNeed:
    """What an objective asks of one tower: the field kind it is for, the outputs it yields, whether it is frozen.

    `takes` are the kinds of streams it encodes: a tower of images may take Regions, too, or nothing else.
    """

    kind: str
    yields: frozenset[str]
    frozen: bool
    takes: frozenset[str] = frozenset()


def tower_needs(streams: Iterable[Stream], columns: Iterable[Column] = ()) -> dict[str, TowerNeed]:
    """The towers of an objective's streams, and of the columns of its reference set, by name.

    A tower is frozen if no stream of it takes a gradient.
    """
    needs: dict[str, TowerNeed] = {}
    for stream in streams:
        encoder = stream.encoder
        known = needs.get(encoder.tower, TowerNeed(encoder.tower_kind, frozenset(), True))
        needs[encoder.tower] = TowerNeed(
            encoder.tower_kind,
            known.yields | _used(stream),
            known.frozen and not encoder.tower_learns,
            known.takes | frozenset(encoder.takes),
        )
    for column in columns:
        encoder = column.encoder
        known = needs.get(encoder.tower, TowerNeed(encoder.tower_kind, frozenset(), True))
        needs[encoder.tower] = TowerNeed(
            encoder.tower_kind, known.yields | {"pooled"}, known.frozen, known.takes | frozenset(encoder.takes)
        )
    return needs


class VisionLanguageModel(nn.Module):
    """Encodes every stream of a batch, each tower in one call, and applies the objective.

    `encoders` are the towers by name (`vision`, `language`, or a recipe's own). Frozen towers keep their weights: no
    gradient, and evaluation mode throughout. Teachers follow their towers; `steps` is the length of the run that a schedule
    of their momentum goes by. Raises `DiagnosticError` (V0832) where the towers do not give what the
    objective compares.
    """

    def __init__(self, encoders: Mapping[str, Encoder], objective: Objective, *, steps: int = 0) -> None:
        super().__init__()
        self.streams: list[Stream] = list(objective.streams)
        needs = tower_needs(self.streams, objective.references.columns)
        _check(encoders, needs)
        _check_lengths(encoders, self.streams, objective.compared)
        check_image_views(encoders, self.streams)
        self.encoders = NamedModules(encoders)
        self.objective = objective
        self.frozen_towers = frozenset(name for name, need in needs.items() if need.frozen)
        for name in self.frozen_towers:
            self.encoders[name].requires_grad_(False).eval()
        self.heads = Heads({name: encoder.dimension for name, encoder in encoders.items()}, self.streams)
        taught = any(stream.encoder.teacher for stream in self.streams)
        self.teachers = Teachers(encoders, self.heads, self.streams, steps) if taught else None
        features = {stream.input(part) for stream in self.streams for part in ("pooled", "mask", "targets", *OUTPUTS)}
        self._plain = sorted(set(objective.inputs) - features)
        self.readings: list[Reading] = readings(self.streams, self._form, self._plain)
        """What a batch holds for modules: each source once in every form that one takes it in."""
        names = {(reading.source, reading.form): reading.name for reading in self.readings}
        self._read = {
            stream.name: [names[part, self._form(stream.encoder, part)] for part in parts_of(stream.source)]
            for stream in self.streams
        }
        sources = {reading.name: reading.source for reading in readings(self.streams)}
        self._forms_of = {
            name: [reading.name for reading in self.readings if reading.source is source] for name, source in sources.items()
        }
        """Name of a source to the objective, which knows no forms -> its names in a batch."""

    def train(self, mode: bool = True) -> VisionLanguageModel:
        """As of any module, but frozen towers stay in evaluation mode."""
        super().train(mode)
        for name in self.frozen_towers:
            self.encoders[name].eval()
        return self

    def forward(self, batch: Batch) -> ObjectiveOutput:
        """The loss, its terms and metrics for this process's share of a batch."""
        if self.teachers is not None and self.training:
            self.teachers.follow(self.encoders, self.heads, "before")
        features: dict[str, Tensor] = {name: batch.draws[name] for name in self._plain if name in batch.draws}
        features |= {name: _plain(batch.values[name]) for name in self._plain if name in batch.values}
        mixtures = self.objective.mixtures(batch.draws).items()
        mixed = {own: shares for name, shares in mixtures for own in self._forms_of[name]}
        batch = replace(batch, values=_mixed(batch.values, mixed))
        for streams in _by_call(self.streams):
            for stream, encoded in zip(streams, self._encode_streams(streams, batch), strict=True):
                features.update(_named(stream, encoded))
                if stream.vocabulary:
                    features.update(self._vocabulary(stream, batch, encoded))
        return self.objective(**features)

    def after_step(self) -> None:
        """What follows an optimiser step: teachers move, parameters of the objective come back into their bounds."""
        if self.teachers is not None:
            self.teachers.follow(self.encoders, self.heads, "after")
        self.objective.after_step()

    @property
    def notes(self) -> list[str]:
        """What a user should be told of the towers before the first step, a sentence each."""
        return [f"the tower `{tower}` {note}" for tower, encoder in self.encoders.items() for note in _notes(encoder)]

    def noise_lengths(self) -> dict[str, int]:
        """How many numbers of noise each sample of one of the `readings` takes, by its name, where its tower draws."""
        lengths: dict[str, int] = {}
        for stream in self.streams:
            tower = stream.encoder.tower
            length = None if tower in self.frozen_towers else _noise_length(self.encoders[tower])
            if length is not None:
                lengths |= {name: max(length, lengths.get(name, 0)) for name in self._read[stream.name]}
        return lengths

    def encode(self, tower: str, value: Value, heads: tuple[Head, ...] = ()) -> EncodedFeatures:
        """Features of a value through one tower, and `heads` of it, outside any objective and in the caller's gradient
        mode."""
        encoded: EncodedFeatures = TowerInput(value).call(self.encoders[tower])
        for chain in prefixes(heads):
            (pooled,) = self.heads.part(tower, chain)([encoded.pooled])
            encoded = EncodedFeatures(pooled)
        return encoded

    def features(self, node: Node, values: Mapping[str, Value], keys: Iterable[str]) -> EncodedFeatures:
        """What the objective makes of one field (`node` of its graph) for samples of these `values` and `keys`.

        Every tower that the node reads encodes the value under its name, outside of any batch; gradients are the caller's.
        """
        read = set(walk([node]))
        found: dict[str, Tensor] = {}
        for stream in self.streams:
            if stream.encode in read:
                encoded = self.encode(stream.encoder.tower, values[stream.encoder.tower], stream.encoder.heads)
                found.update(_named(stream, encoded))
        numbers = torch.tensor([key_number(key) for key in keys], device=next(self.encoders.parameters()).device)
        found |= {leaf.string("name"): numbers for leaf in read if leaf.type == FieldType("Key")}
        return EncodedFeatures(pooled=self.objective.value(node, found))

    def compile_encoders(self) -> None:
        """Run the towers through torch.compile from now on."""
        encoding = [*self.encoders.values(), *self.heads.parts.values()]
        for module in encoding + (self.teachers.encoding() if self.teachers else []):
            module.compile()

    def _vocabulary(self, stream: Stream, batch: Batch, features: EncodedFeatures) -> dict[str, Tensor]:
        """What a masked stream's tokens may be, and what they were: where nothing reads more, of the chosen tokens only."""
        head, states = self._tower(stream.encoder).vocabulary_head, features.states
        ports = [port(name, "masked") for name in self._read[stream.name]]
        masked = next((batch.values[name] for name in ports if name in batch.values), None)
        if not isinstance(masked, MaskedTokens) or states is None or not isinstance(head, nn.Module):
            raise ValueError(f"the tokens of {stream.name} are asked for, but the batch or the tower has none")
        with torch.set_grad_enabled(torch.is_grad_enabled() and stream.encoder.learns):
            states = states[:, states.shape[1] - masked.targets.shape[1] :]  # of a pair the text, which comes last
            states, targets = masked.selected(states) if stream.asked_only else (states, masked.targets)
            return {stream.input("vocabulary"): head(states), stream.input("targets"): targets}

    def _form(self, encoder: ObjectiveEncoder, source: Node) -> Hashable:
        """The form in which an encoder takes a source; None where its tower states none."""
        return self.form(encoder.tower, source.type.kind) if isinstance(source.type, FieldType) else None

    def form(self, tower: str, kind: str) -> Hashable:
        """The form in which a tower takes fields of a kind, its `image_format`, `text_format`; None where it states none."""
        form: Hashable = getattr(self.encoders[tower], f"{kind.lower()}_format", None)
        return form

    def _tower(self, encoder: ObjectiveEncoder) -> nn.Module:
        """What encodes: the tower, or its teacher."""
        teachers = self.teachers if encoder.teacher else None
        return self.encoders[encoder.tower] if teachers is None else teachers.tower(encoder)

    def _input(self, stream: Stream, batch: Batch) -> TowerInput:
        """What a stream's tower takes: the value of its source with what comes with it, or an image with a text that is
        joined or blended with it."""
        name, *paired = self._read[stream.name]
        ports = {what: batch.values[port(name, what)] for what in ("keep", "noise") if port(name, what) in batch.values}
        if _noise_length(self.encoders[stream.encoder.tower]) is None:  # drawn for another tower
            ports.pop("noise", None)
        value = batch.values[name]
        if paired:
            ports["words"] = batch.values[paired[0]]
        if stream.source.operation is BLEND:
            assert isinstance(value, ImageBatch)
            share = self.objective.blends(batch.draws)[stream.name]
            of_one = torch.as_tensor(share, dtype=value.pixels.dtype, device=value.pixels.device)
            ports["share"] = Share(of_one.expand(count(value)))
        return TowerInput(value, ports)

    def _encode_streams(self, streams: list[Stream], batch: Batch) -> list[EncodedFeatures]:
        """Streams of one tower that differ in source or heads: each source through the tower once, then the heads."""
        encoder = streams[0].encoder
        inputs = {stream.source: self._input(stream, batch) for stream in streams}
        encoded = dict(zip(inputs, self._encode_together(encoder, list(inputs.values())), strict=True))
        headed = [stream for stream in streams if stream.encoder.heads]
        if not headed:
            return [encoded[stream.source] for stream in streams]
        pooled = {stream.source: encoded[stream.source].pooled for stream in headed}
        teachers = self.teachers if encoder.teacher else None
        heads = self.heads if teachers is None else teachers.heads_of(encoder)
        with torch.set_grad_enabled(torch.is_grad_enabled() and teachers is None):
            found = heads(encoder.tower, headed, pooled)
        return [
            encoded[stream.source]._replace(pooled=found.get(stream.name, encoded[stream.source].pooled))
            for stream in streams
        ]

    def _encode_together(self, encoder: ObjectiveEncoder, inputs: list[TowerInput]) -> list[EncodedFeatures]:
        """The features of several inputs of a tower, from one call for all that fit into one batch."""
        tower = self._tower(encoder)
        with torch.set_grad_enabled(torch.is_grad_enabled() and encoder.tower_learns):
            entry = {} if encoder.enters is None else {"enters": encoder.enters}
            return call_together(partial(tower, **entry), inputs)


def _notes(encoder: nn.Module) -> tuple[str, ...]:
    notes: tuple[str, ...] = getattr(encoder, "notes", ())
    return notes


def _noise_length(encoder: nn.Module) -> int | None:
    return getattr(encoder, "noise_length", None)


def _used(stream: Stream) -> frozenset[str]:
    return frozenset(stream.outputs)


def _check(encoders: Mapping[str, Encoder], needs: Mapping[str, TowerNeed]) -> None:
    """Every tower is there, takes the right kind, yields what is compared, in one dimension."""
    for tower, need in needs.items():
        encoder = encoders.get(tower)
        if encoder is None:
            raise _unfit(tower, "has no encoder", f"pass one for `{tower}` among the encoders")
        if encoder.kind != need.kind:
            raise _unfit(tower, f"encodes {need.kind.lower()}s, but its encoder takes {encoder.kind.lower()}s")
        lacking = sorted(need.yields - encoder.yields)
        if lacking:
            problem = (
                f"must yield {' and '.join(lacking)} features, but its encoder yields {', '.join(sorted(encoder.yields))}"
            )
            raise _unfit(tower, problem, f"build the encoder with `yields={sorted(need.yields)}`")
    unused = sorted(encoders.keys() - needs.keys())
    if unused:
        raise _unfit(unused[0], "is used by no term of the recipe", f"leave the encoder of `{unused[0]}` out")


def _check_lengths(encoders: Mapping[str, Encoder], streams: Iterable[Stream], compared: Iterable[tuple[str, str]]) -> None:
    """Features that are compared are of one length."""
    lengths: dict[str, int] = {}
    owners: dict[str, ObjectiveEncoder] = {}
    for stream in streams:
        tower = encoders[stream.encoder.tower].dimension
        found = {stream.name: stream.encoder.dimension(tower), stream.input("tokens"): tower}
        lengths.update(found)
        owners.update(dict.fromkeys(found, stream.encoder))
    for pair in compared:
        if len({lengths[name] for name in pair if name in lengths}) > 1:
            told = ", ".join(f"`{name}` {lengths[name]}" for name in pair)
            headed = any(owners[name].heads for name in pair)
            help = "let the heads give features of one length: `out=`" if headed else "set one `model.dimension`"
            problem = f"gives features of another length than those they are compared with: {told}"
            raise _unfit(owners[pair[0]].tower, problem, help)


def _unfit(tower: str, problem: str, *help_texts: str) -> DiagnosticError:
    return DiagnosticError((TowerDoesNotFit.at(Span("encoders", 0, 0), tower=tower, problem=problem, help=help_texts),))


def _mixed(values: Mapping[str, Value], mixtures: Mapping[str, Iterable[tuple[Tensor | float, int]]]) -> dict[str, Value]:
    """The values of a batch, images mixed with their partners in the batch of all processes where that is asked for."""
    values = dict(values)
    for name, shares in mixtures.items():  # in one order on all processes, which exchange their images
        for share, block in shares:
            value = values[name]
            assert isinstance(value, ImageBatch)
            values[name] = ImageBatch(mix(value.pixels, share, block))
    return values


def _plain(value: Value) -> Tensor:
    """The tensor of a field that the objective takes itself."""
    (tensor,) = value
    assert tensor is not None
    return tensor


def _by_call(streams: Iterable[Stream]) -> list[list[Stream]]:
    """Streams that one call of a tower encodes, whatever their heads: all of one kind, and with gradient or without; a
    teacher is called apart."""
    calls: dict[tuple[ObjectiveEncoder, Type], list[Stream]] = {}
    for stream in streams:
        calls.setdefault((stream.encoder.bare, stream.encode.type), []).append(stream)
    return list(calls.values())


def _named(stream: Stream, features: EncodedFeatures) -> dict[str, Tensor]:
    """The objective's inputs for one stream, by the names of `ir.inputs`."""
    found: dict[str, Tensor | None] = {}
    if stream.pooled:
        found[stream.name] = features.pooled
    if stream.tokens:
        found[stream.input("tokens")] = features.tokens
        found[stream.input("mask")] = features.mask
    return {name: value for name, value in found.items() if value is not None}
