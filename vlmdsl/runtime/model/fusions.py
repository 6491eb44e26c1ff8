"""The fusion modules of a model, the vocabularies on them, and the widths of their inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.encoders import TowerDoesNotFit
from vlmdsl.ir import Module, Node, Program, Use, encoder_of, module_outputs, vocabulary_use
from vlmdsl.ir.modules import FusionSettings, LinearSettings, PluginFusionSettings
from vlmdsl.ir.operations.encoding import ENCODE
from vlmdsl.ir.operations.modules import use_of
from vlmdsl.runtime.model.named import NamedModules
from vlmdsl.runtime.modules import LinearHead, fusion
from vlmdsl.runtime.modules.plugin_fusion import plugin_fusion
from vlmdsl.runtime.modules.towers import Encoder
from vlmdsl.source import Span

__all__ = ["ContextMask", "ContextStates", "Fusions", "TextStates"]


class TextStates(NamedTuple):
    """Last states of the tokens of texts: `states [b, L, W]`, with `mask [b, L]`, true = a token."""

    states: Tensor
    mask: Tensor

    @property
    def padded(self) -> tuple[str, ...]:
        """The members with the axis L."""
        return ("states", "mask")


class ContextStates(NamedTuple):
    """The last states of the context of a text: `states [b, K, C]`."""

    states: Tensor


class ContextMask(NamedTuple):
    """Which of the states of a context are real: `real [b, K]`."""

    real: Tensor


class EncodedBy(NamedTuple):
    """The tower that states come from, by name."""

    tower: str
    encoder: Encoder


class Fusions(nn.Module):
    """One network for each fusion module of the programs, and one for each vocabulary on one.

    `encoders` are the towers by name: their widths are those of the states that enter, and the text tower has the size of
    the vocabulary. `uses` are the uses of fusion modules and of the heads on them, `widths` the lengths of the
    features of its fusion modules, by module, and `lengths` by output. Raises `DiagnosticError` (V0832) where uses of one
    module differ in their sizes, or heads do not divide its width.
    """

    def __init__(self, encoders: Mapping[str, Encoder], *programs: Program) -> None:
        super().__init__()
        self.parts, self.vocabularies = NamedModules(), NamedModules()
        self.uses: list[Use] = []
        self.widths: dict[str, int] = {}
        self.lengths: dict[str, int] = {}
        self._shapes: dict[str, tuple[FusionSettings | PluginFusionSettings, int, int]] = {}
        for output in (output for program in programs for output in module_outputs(program)):
            use = use_of(output.node)
            if use.module.base.family != "fusion":
                continue
            self.uses.append(use)
            if isinstance(use.module.settings, FusionSettings | PluginFusionSettings):
                towers = [encoder_of(_encode(parent)).tower for parent in output.node.inputs]
                text, image = (EncodedBy(tower, encoders[tower]) for tower in towers)
                self._register(use.module, use.module.settings, text, image)
                self.lengths |= dict.fromkeys((output.name, output.input("tokens")), self.widths[use.module.name])
                if output.vocabulary:
                    self._register_vocabulary(vocabulary_use(use).module, text.encoder)

    def part(self, module: Module) -> nn.Module:
        """The network of a fusion module."""
        return self.parts[module.name]

    def vocabulary(self, module: Module) -> nn.Module:
        """The network from the states of a fusion module to logits."""
        return self.vocabularies[module.base.name]

    def _register(
        self, module: Module, settings: FusionSettings | PluginFusionSettings, text: EncodedBy, image: EncodedBy
    ) -> None:
        shape = (settings, text.encoder.states_width, image.encoder.states_width)
        if module.name not in self.parts:
            self.parts[module.name], self.widths[module.name] = _built(module, settings, text, image)
            self._shapes[module.name] = shape
        elif shape != self._shapes[module.name]:
            problem = f"shares the module `{module.name}` with a use of other sizes"
            raise _unfit(text.tower, problem, "give each its own module: `fuse(..., name=...)`")

    def _register_vocabulary(self, module: Module, text: Encoder) -> None:
        name = module.base.name
        if name not in self.vocabularies:
            assert text.vocabulary_size is not None, "a tower of texts has a vocabulary"
            self.vocabularies[name] = LinearHead(LinearSettings(transform=True), self.widths[name], text.vocabulary_size)


def _built(
    module: Module, settings: FusionSettings | PluginFusionSettings, text: EncodedBy, image: EncodedBy
) -> tuple[nn.Module, int]:
    """A fusion module, and the length of its features."""
    widths = text.encoder.states_width, image.encoder.states_width
    if isinstance(settings, PluginFusionSettings):
        return plugin_fusion(settings, *widths)
    width = settings.width or widths[0]
    if width % (settings.heads or 1):
        problem = f"has states of {width} numbers, which {settings.heads} heads of `{module.name}` do not divide evenly"
        raise _unfit(text.tower, problem, "set `heads` of `fuse` to a divisor, or leave it out")
    return fusion(settings, *widths), width


def _encode(node: Node) -> Node:
    """The tower of the states of a node, through its first inputs."""
    while node.operation is not ENCODE:
        node = node.inputs[0]
    return node


def _unfit(tower: str, problem: str, *help_texts: str) -> DiagnosticError:
    return DiagnosticError((TowerDoesNotFit.at(Span("encoders", 0, 0), tower=tower, problem=problem, help=help_texts),))
