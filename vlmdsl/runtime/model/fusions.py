"""The fusion modules of a model, and their inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vlmdsl.backends.torch.applied import fusion_input
from vlmdsl.backends.torch.step import Environment
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.encoders import TowerDoesNotFit
from vlmdsl.ir import Module, Node, Use, encoder_of
from vlmdsl.ir.modules import FusionSettings, PluginFusionSettings
from vlmdsl.ir.operations.encoding import ENCODE
from vlmdsl.ir.operations.modules import use_of
from vlmdsl.ir.schedule import Applied, Value
from vlmdsl.runtime.model.contexts import ContextMask, ContextStates, context_width
from vlmdsl.runtime.model.family import Families, ModuleFamily, Needs, OfModel
from vlmdsl.runtime.model.named import NamedModules
from vlmdsl.runtime.model.towers import Towers
from vlmdsl.runtime.modules import fusion
from vlmdsl.runtime.modules.plugin_fusion import plugin_fusion
from vlmdsl.runtime.modules.towers import Encoder
from vlmdsl.runtime.values import TowerInput
from vlmdsl.source import Span

__all__ = ["Fusions", "TextStates"]


class TextStates(NamedTuple):
    """Last states of the tokens of texts: `states [b, L, W]`, with `mask [b, L]`, true = a token."""

    states: Tensor
    mask: Tensor

    @property
    def padded(self) -> tuple[str, ...]:
        """The members with the axis L."""
        return ("states", "mask")


class EncodedBy(NamedTuple):
    """The tower that states come from, by name."""

    tower: str
    encoder: Encoder


class Fusions(ModuleFamily):
    """One network for each fusion module of the programs.

    The widths of the towers are those of the states that enter. Raises `DiagnosticError` (V0832) where uses of one module
    differ in their sizes, or heads do not divide its width.
    """

    stored_as = "fusions"

    def __init__(self) -> None:
        super().__init__()
        self.parts = NamedModules()
        self._widths: dict[str, int] = {}
        self._shapes: dict[str, tuple[FusionSettings | PluginFusionSettings, int, int | None]] = {}

    @classmethod
    def of(cls, needs: Needs, below: Families) -> Fusions:
        own, towers = cls(), below["tower"]
        assert isinstance(towers, Towers)
        for output in needs.outputs:
            module = use_of(output.node).module
            if isinstance(module.settings, FusionSettings | PluginFusionSettings):
                text, *context = output.node.inputs
                tower = encoder_of(_encode(text)).tower
                widths = [context_width(states, towers.encoder) for states in context]
                own._register(module, module.settings, EncodedBy(tower, towers.encoder(tower)), *widths)
        return own

    def length(self, module: Module) -> int:
        return self._widths[module.name]

    def inputs(self, value: Value, environment: Environment, use: Use, model: OfModel) -> TowerInput:
        """The states of a text, with those of its image if the module takes one."""
        states, mask, *context = fusion_input(value, environment)
        assert states is not None, "a text has states"
        whole = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device) if mask is None else mask
        kinds = (("context", ContextStates), ("context_mask", ContextMask))
        ports = {name: kind(part) for (name, kind), part in zip(kinds, context, strict=False) if part is not None}
        return TowerInput(TextStates(states, whole), ports)

    def text_tower(self, states: Applied) -> str:
        return encoder_of(_encode(states.source)).tower

    def _register(
        self,
        module: Module,
        settings: FusionSettings | PluginFusionSettings,
        text: EncodedBy,
        width: int | None = None,
    ) -> None:
        """`width` is that of the context, None without one."""
        shape = (settings, text.encoder.states_width, width)
        if module.name not in self.parts:
            self.parts[module.name], self._widths[module.name] = _built(module, settings, text, width)
            self._shapes[module.name] = shape
        elif shape != self._shapes[module.name]:
            problem = f"shares the module `{module.name}` with a use of other sizes"
            raise _unfit(text.tower, problem, "give each its own module: `fuse(..., name=...)`")


def _built(
    module: Module, settings: FusionSettings | PluginFusionSettings, text: EncodedBy, context_width: int | None
) -> tuple[nn.Module, int]:
    """A fusion module, and the length of its features."""
    states_width = text.encoder.states_width
    if isinstance(settings, PluginFusionSettings):
        assert context_width is not None, "a module of a plug-in takes an image"
        return plugin_fusion(settings, states_width, context_width)
    blocks = text.encoder.shared_blocks
    if settings.shares and blocks is None:
        problem = f"is to share its blocks with `{module.name}`, and has none that are built in"
        raise _unfit(text.tower, problem, "choose a tower such as `transformer:tiny`, or leave `shares` of `fuse` out")
    if settings.shares and blocks is not None:
        settings = replace(settings, depth=len(blocks.blocks), heads=blocks.heads)
    width = settings.width or states_width
    if width % (settings.heads or 1):
        problem = f"has states of {width} numbers, which {settings.heads} heads of `{module.name}` do not divide evenly"
        raise _unfit(text.tower, problem, "set `heads` of `fuse` to a divisor, or leave it out")
    return fusion(settings, states_width, context_width), width


def _encode(node: Node) -> Node:
    """The tower of the states of a node, through its first inputs."""
    while node.operation is not ENCODE:
        node = node.inputs[0]
    return node


def _unfit(tower: str, problem: str, *help_texts: str) -> DiagnosticError:
    return DiagnosticError((TowerDoesNotFit.at(Span("encoders", 0, 0), tower=tower, problem=problem, help=help_texts),))
