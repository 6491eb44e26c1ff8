"""The decoders of a model, from visible patches to the pixels or states of all patches, and their inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from vlmdsl.backends.torch.applied import decoder_input
from vlmdsl.backends.torch.step import Environment
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.encoders import TowerDoesNotFit
from vlmdsl.ir import Module, Node, Use, encoder_of
from vlmdsl.ir.modules import PixelDecoderSettings
from vlmdsl.ir.operations.modules import use_of
from vlmdsl.ir.schedule import Apply, Value
from vlmdsl.planning import applied_of
from vlmdsl.runtime.model.family import Families, ModuleFamily, Needs, OfModel
from vlmdsl.runtime.model.named import NamedModules
from vlmdsl.runtime.model.towers import Towers
from vlmdsl.runtime.modules import PixelDecoder
from vlmdsl.runtime.modules.towers import Encoder
from vlmdsl.runtime.values import TowerInput, call_together
from vlmdsl.source import Span

__all__ = ["DecodedPatches", "DecodedStates", "PatchStates", "PixelDecoders"]


class PatchStates(NamedTuple):
    """Last states of a tower of images: `states [b, N + K, W]`, of K patches and before them N of no patch."""

    states: Tensor


class DecodedPatches(NamedTuple):
    """The output of a decoder of pixels: `pixels [b, P, 3 patch^2]`."""

    pixels: Tensor


class DecodedStates(NamedTuple):
    """The output of a decoder of states: `tokens [b, P, W]`, none of which is padding."""

    tokens: Tensor
    mask: Tensor | None = None


class PixelDecoders(ModuleFamily):
    """One network for each decoder of the programs.

    A decoder is for patches of its tower's size, as many as its images have. Raises `DiagnosticError` (V0832) if a tower
    has no separate patches, or towers that share a decoder differ.
    """

    stored_as = "decoders"

    def __init__(self) -> None:
        super().__init__()
        self.parts = NamedModules()
        self._shapes: dict[str, tuple[PixelDecoderSettings, int, int, int | None]] = {}

    @classmethod
    def of(cls, needs: Needs, below: Families) -> PixelDecoders:
        own, towers = cls(), below["tower"]
        assert isinstance(towers, Towers)
        for output in needs.outputs:
            module = use_of(output.node).module
            if isinstance(module.settings, PixelDecoderSettings):
                tower = encoder_of(output.node.inputs[0].inputs[0]).tower
                own._register(module, module.settings, tower, towers.encoder(tower))
        return own

    def token_length(self, module: Module) -> int | None:
        settings, states_width, *_ = self._shapes[module.name]
        return states_width if settings.output == "states" else None

    def inputs(self, value: Value, environment: Environment, use: Use, model: OfModel) -> TowerInput:
        """The states of a tower, with its visible patches."""
        assert isinstance(value, Node)
        keep = model.taken(applied_of(value.inputs[0].inputs[0]), environment).ports["keep"]
        return TowerInput(PatchStates(*decoder_input(value, environment)), {"keep": keep})

    def call(self, apply: Apply, inputs: Sequence[TowerInput], model: OfModel) -> list[DecodedPatches] | list[DecodedStates]:
        """The pixels, or states, of each input: `PatchStates` each, which come with the patches to `keep`."""
        decoder, settings = model.part(apply.use), apply.use.module.settings
        if getattr(settings, "output", None) == "states":
            return call_together(lambda states, keep: DecodedStates(decoder(states, keep)), inputs)
        return call_together(lambda states, keep: DecodedPatches(decoder(states, keep)), inputs)

    def _register(self, module: Module, settings: PixelDecoderSettings, tower: str, encoder: Encoder) -> None:
        form = encoder.image_format
        if form is None or form.patch is None or not encoder.states_width:
            raise _unfit(tower, "has no separate patches of its images, so none can be decoded")
        if settings.output == "tanh" and not form.within_one:
            whose = "standardises its pixels to numbers outside [-1, 1], which a decoder that ends in a tanh cannot give"
            raise _unfit(tower, whose, "take a built-in tower, or a decoder without `output`")
        span = None if encoder.built_size is None else encoder.built_size // form.patch
        shape = (replace(settings, patch=form.patch), encoder.states_width, form.patches(1.0), span)
        if module.name not in self.parts:
            self.parts[module.name] = PixelDecoder(*shape)
            self._shapes[module.name] = shape
        elif shape != self._shapes[module.name]:
            help = "give each its own decoder: `decode(..., name=...)`"
            raise _unfit(tower, f"shares the decoder `{module.name}` with one of other sizes", help)


def _unfit(tower: str, problem: str, *help_texts: str) -> DiagnosticError:
    return DiagnosticError((TowerDoesNotFit.at(Span("encoders", 0, 0), tower=tower, problem=problem, help=help_texts),))
