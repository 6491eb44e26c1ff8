"""The towers of a model, and what they take of fields and views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vlmdsl.backends.torch.step import Environment
from vlmdsl.ir import Module, Node, Use, parts_of
from vlmdsl.ir.operations.encoding import ENCODE
from vlmdsl.ir.operations.scalars import CONSTANT
from vlmdsl.ir.operations.views import BLEND
from vlmdsl.ir.schedule import Applied, Apply, Value
from vlmdsl.runtime.model.family import ModuleFamily, OfModel
from vlmdsl.runtime.model.named import NamedModules
from vlmdsl.runtime.model.text_decoders import decoder_input
from vlmdsl.runtime.modules.towers import Encoder
from vlmdsl.runtime.values import (
    ImageBatch,
    ImageFormat,
    KeptPatches,
    PatchSegments,
    ReplacedPatches,
    Share,
    TowerInput,
    WordMaps,
    call_together,
    count,
)
from vlmdsl.types import FieldType

__all__ = ["Towers", "noise_length"]


class Towers(NamedModules, ModuleFamily):
    """The towers by name, as they are passed to the model.

    Those in `frozen` keep their weights: no gradient, and evaluation mode throughout.
    """

    stored_as = "encoders"

    def __init__(self, encoders: Mapping[str, nn.Module], frozen: frozenset[str] = frozenset()) -> None:
        super().__init__(encoders)
        self.frozen = frozen
        for name in frozen:
            encoders[name].requires_grad_(False).eval()

    @property
    def parts(self) -> NamedModules:  # type: ignore[override]
        """The towers by name."""
        return self

    def train(self, mode: bool = True) -> Towers:
        """As in any module, but frozen towers stay in evaluation mode, and so do batch norms whose weights are frozen."""
        super().train(mode)
        for name in self.frozen:
            self[name].eval()
        for part in self.modules():
            if isinstance(part, _BatchNorm) and part.weight is not None and not part.weight.requires_grad:
                part.eval()
        return self

    def encoder(self, name: str) -> Encoder:
        """A tower by name."""
        encoder: Any = self[name]
        return encoder  # type: ignore[no-any-return]

    def length(self, module: Module) -> int:
        return self.encoder(module.name).dimension

    def inputs(self, value: Value, environment: Environment, use: Use, model: OfModel) -> TowerInput:
        """What a tower takes of a source: its value with what comes with it, or an image with a text that is joined or
        blended with it; what a text decoder takes of an `encode` node, which holds its context."""
        assert isinstance(value, Node)
        tower = use.module.name
        if value.operation is ENCODE:
            stream = next(stream for stream in model.streams if stream.encode is value)
            whole = bool(set(stream.outputs) - {"vocabulary"})
            return decoder_input(value, environment, model.form(tower, "Text"), whole=whole)
        first, *paired = [environment[part][model.form(tower, _kind(part))] for part in parts_of(value)]
        draws = noise_length(self[tower]) is not None  # else the noise was drawn for another tower
        ports = {what: first.ports.get(what) for what in ("keep", "replace", *(["noise"] if draws else []))}
        batch = first.value
        if paired:
            ports["words"] = paired[0].value
        if value.operation is BLEND:
            assert isinstance(batch, ImageBatch)
            by = value.inputs[2]
            number = by.number("value") if by.operation is CONSTANT else environment[by]
            share = torch.as_tensor(number, dtype=batch.pixels.dtype, device=batch.pixels.device)
            ports["share"] = Share(share.expand(count(batch)))
        return TowerInput(batch, {what: part for what, part in ports.items() if part is not None})

    def call(self, apply: Apply, inputs: Sequence[TowerInput], model: OfModel) -> list[Any]:
        """The features of each input; those of regions are called with where they enter the tower."""
        entry = {"enters": apply.use.blocks[0]} if apply.mode.kind == "Regions" else {}
        return call_together(partial(model.part(apply.use), **entry), inputs)

    def predicted_states(self, output: Any) -> Tensor | None:
        states: Tensor | None = output.states
        return states

    def text_tower(self, states: Applied) -> str:
        return states.use.module.name

    def images(self, output: Applied, environment: Environment, model: OfModel) -> dict[str, Tensor]:
        """The pixels that a tower took for an output, and which of their patches were dropped or replaced."""
        taken = model.taken(output, environment)
        form, keep, replaced = model.form(output.use.module.name, "Image"), *map(taken.ports.get, ("keep", "replace"))
        assert isinstance(taken.value, ImageBatch)
        assert isinstance(form, ImageFormat)
        parts = {"pixels": taken.value.pixels}
        if isinstance(keep, KeptPatches):
            parts["dropped"] = keep.dropped(form.patches_of(taken.value.pixels))
        return parts | ({"replaced": replaced.replaced} if isinstance(replaced, ReplacedPatches) else {})

    def words(self, output: Applied, environment: Environment, model: OfModel) -> Tensor:
        """Which words of the text that a tower took for an output name each region."""
        assert isinstance(output.value, Node)
        loaded = environment[output.value][model.form(output.use.module.name, _kind(output.value))]
        named = loaded.ports["word_map"]
        assert isinstance(named, WordMaps)
        return named.words

    def segments(self, output: Applied, environment: Environment, model: OfModel) -> Tensor:
        """The segments of the patches of the images that a tower took for an output."""
        (source,) = parts_of(output.value) if isinstance(output.value, Node) else ()
        segments = environment[source][model.form(output.use.module.name, "Image")].ports["segments"]
        assert isinstance(segments, PatchSegments)
        return segments.numbers

    @property
    def units(self) -> list[nn.Module]:
        """The vocabularies of towers, then the towers. A tied vocabulary belongs to its tower, but for its transform."""
        heads = [(tower, tower.vocabulary_head) for tower in self.values() if isinstance(tower, Encoder)]
        parts = [getattr(head, "transform", None) if tower.tied_vocabulary else head for tower, head in heads]
        return [*(part for part in parts if part is not None), *self.values()]


def noise_length(encoder: nn.Module) -> int | None:
    """The length of the noise per sample that a tower draws; None if it draws none."""
    return getattr(encoder, "noise_length", None)


def _kind(source: Node) -> str:
    assert isinstance(source.type, FieldType)
    return source.type.kind
