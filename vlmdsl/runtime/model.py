"""Encoders and an objective as one module: a batch in, losses out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.encoders import TowerDoesNotFit
from vlmdsl.ir import Encoder as ObjectiveEncoder
from vlmdsl.ir import Reading, Stream, parts_of, readings
from vlmdsl.runtime.data.batch import StreamValues
from vlmdsl.runtime.encoders import EncodedFeatures, Encoder
from vlmdsl.runtime.image_views import check_image_views
from vlmdsl.runtime.teachers import Teachers
from vlmdsl.source import Span
from vlmdsl.types import Type

if TYPE_CHECKING:
    from vlmdsl.backends.torch import Objective, ObjectiveOutput
    from vlmdsl.runtime.data import Batch

__all__ = ["TowerNeed", "VisionLanguageModel", "tower_needs"]


@dataclass(frozen=True)
class TowerNeed:
    """What an objective asks of one tower: the field kind it takes, the outputs it yields, whether it is frozen."""

    kind: str
    yields: frozenset[str]
    frozen: bool


def tower_needs(streams: Iterable[Stream]) -> dict[str, TowerNeed]:
    """The towers of an objective's streams by name; a tower is frozen if no stream of it takes a gradient."""
    needs: dict[str, TowerNeed] = {}
    for stream in streams:
        encoder = stream.encoder
        known = needs.get(encoder.tower, TowerNeed(encoder.kind, frozenset(), True))
        needs[encoder.tower] = TowerNeed(encoder.kind, known.yields | _used(stream), known.frozen and not encoder.learns)
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
        needs = tower_needs(self.streams)
        _check(encoders, needs)
        check_image_views(encoders, self.streams)
        self.encoders = nn.ModuleDict(encoders)
        self.objective = objective
        self.frozen_towers = frozenset(name for name, need in needs.items() if need.frozen)
        for name in self.frozen_towers:
            self.encoders[name].requires_grad_(False).eval()
        taught = any(stream.encoder.teacher for stream in self.streams)
        self.teachers = Teachers(encoders, self.streams, steps) if taught else None
        self.input_streams: list[Reading] = readings(self.streams)
        """What a batch holds: streams of one source (a tower and its teacher) share their values."""
        names = {reading.source: reading.name for reading in self.input_streams}
        self._read = {stream.name: [names[part] for part in parts_of(stream.source)] for stream in self.streams}

    def train(self, mode: bool = True) -> VisionLanguageModel:
        """As of any module, but frozen towers stay in evaluation mode."""
        super().train(mode)
        for name in self.frozen_towers:
            self.encoders[name].eval()
        return self

    def forward(self, batch: Batch) -> ObjectiveOutput:
        """The loss, its terms and metrics for this process's share of a batch."""
        if self.teachers is not None and self.training:
            self.teachers.follow(self.encoders, "before")
        features: dict[str, Tensor] = {name: batch.fields[name] for name in self.objective.inputs if name in batch.fields}
        for streams, values in _by_call(self.streams, lambda stream: self._values(stream, batch)):
            encoded = self._encode_together(streams, values)
            for stream, part in zip(streams, encoded, strict=True):
                features.update(_named(stream, part))
        return self.objective(**features)

    def after_step(self) -> None:
        """What follows an optimiser step: teachers move, parameters of the objective come back into their bounds."""
        if self.teachers is not None:
            self.teachers.follow(self.encoders, "after")
        self.objective.after_step()

    def encode(self, tower: str, values: Tensor, mask: Tensor | None = None) -> EncodedFeatures:
        """Features of `values` through one tower, outside any objective and in the caller's gradient mode."""
        return self.encoders[tower](values, mask)

    def compile_encoders(self) -> None:
        """Run the towers through torch.compile from now on."""
        for encoder in (*self.encoders.values(), *(self.teachers.copies.values() if self.teachers else ())):
            encoder.compile()

    def _values(self, stream: Stream, batch: Batch) -> StreamValues:
        """What a stream's tower takes: the values of its source, or those of an image with a text joined to it."""
        parts = [batch.streams[name] for name in self._read[stream.name]]
        return parts[0] if len(parts) == 1 else replace(parts[0], words=parts[1].values, mask=parts[1].mask)

    def _encode_together(self, streams: list[Stream], values: list[StreamValues]) -> list[EncodedFeatures]:
        """One call for several streams of a tower, as one longer batch; the features of each in its own length."""
        encoder = streams[0].encoder
        tower = (
            self.encoders[encoder.tower] if self.teachers is None or not encoder.teacher else self.teachers.tower(encoder)
        )
        with torch.set_grad_enabled(torch.is_grad_enabled() and encoder.learns):
            if len(streams) == 1:
                return [tower(**_arguments(values[0]))]
            whole = tower(**_arguments(_concatenated(values)))
        sizes = [len(part.values) for part in values]
        longest = max(_texts(part).shape[1] for part in values)
        parts = [(None,) * len(sizes) if output is None else output.split(sizes) for output in whole]
        return [
            _shortened(EncodedFeatures(*outputs), longest - _texts(part).shape[1])
            for outputs, part in zip(zip(*parts, strict=True), values, strict=True)
        ]


def _used(stream: Stream) -> frozenset[str]:
    return frozenset(name for name, used in (("pooled", stream.pooled), ("tokens", stream.tokens)) if used)


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
    dimensions = {tower: encoders[tower].dimension for tower in needs}
    if len(set(dimensions.values())) > 1:
        listed = ", ".join(f"`{tower}` {dimension}" for tower, dimension in dimensions.items())
        tower = next(iter(dimensions))
        raise _unfit(tower, f"gives features of another length than the others: {listed}", "set one `model.dimension`")


def _unfit(tower: str, problem: str, *help_texts: str) -> DiagnosticError:
    return DiagnosticError((TowerDoesNotFit.at(Span("encoders", 0, 0), tower=tower, problem=problem, help=help_texts),))


def _by_call(
    streams: Iterable[Stream], values_of: Callable[[Stream], StreamValues]
) -> list[tuple[list[Stream], list[StreamValues]]]:
    """Streams that one call of a tower encodes, with their values.

    All are of one kind, with gradient or without, and images of one side with as many patches; a teacher is called apart.
    """
    calls: dict[tuple[ObjectiveEncoder, Type, object], tuple[list[Stream], list[StreamValues]]] = {}
    for stream in streams:
        values = values_of(stream)
        shape = (values.values.shape[2:], None if values.keep is None else values.keep.shape[1])
        call = calls.setdefault((stream.encoder, stream.encode.type, shape), ([], []))
        call[0].append(stream)
        call[1].append(values)
    return list(calls.values())


def _arguments(values: StreamValues) -> dict[str, Tensor | None]:
    """The arguments of a tower; only some know of words that are joined to images, and of patches to keep."""
    further = {"words": values.words, "keep": values.keep}
    return {"values": values.values, "mask": values.mask} | {
        name: value for name, value in further.items() if value is not None
    }


def _texts(values: StreamValues) -> Tensor:
    """The token ids of a stream of texts, or of those that are joined to its images."""
    return values.values if values.words is None else values.words


def _concatenated(parts: list[StreamValues]) -> StreamValues:
    """One batch of several; shorter texts are padded, which changes no feature."""
    keep = torch.cat([part.keep for part in parts if part.keep is not None]) if parts[0].keep is not None else None
    if all(part.mask is None and part.words is None for part in parts):
        return StreamValues(torch.cat([part.values for part in parts]), keep=keep)
    length = max(_texts(part).shape[1] for part in parts)
    texts = torch.cat([functional.pad(_texts(part), (0, length - _texts(part).shape[1])) for part in parts])
    masks = [torch.ones_like(_texts(part), dtype=torch.bool) if part.mask is None else part.mask for part in parts]
    mask = torch.cat([functional.pad(mask, (0, length - mask.shape[1])) for mask in masks])
    if parts[0].words is None:
        return StreamValues(texts, mask)
    return StreamValues(torch.cat([part.values for part in parts]), mask, texts, keep)


def _shortened(features: EncodedFeatures, added: int) -> EncodedFeatures:
    """The tokens of a stream without the padding that `_concatenated` added to its texts."""
    if features.tokens is None or features.mask is None:
        return features
    length = features.tokens.shape[1] - added
    return EncodedFeatures(features.pooled, features.tokens[:, :length], features.mask[:, :length])


def _named(stream: Stream, features: EncodedFeatures) -> dict[str, Tensor]:
    """The objective's inputs for one stream, by the names of `ir.inputs`."""
    found: dict[str, Tensor | None] = {}
    if stream.pooled:
        found[stream.name] = features.pooled
    if stream.tokens:
        found[f"{stream.name}_tokens" if stream.pooled else stream.name] = features.tokens
        found[f"{stream.name}_mask"] = features.mask
    return {name: value for name, value in found.items() if value is not None}
