"""The fusion modules of a model, and the vocabularies on them: which there are, and how wide what enters them is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from vlmdsl.ir import Module, Node, Program, Use, encoder_of, module_outputs, vocabulary_use
from vlmdsl.ir.modules import FusionSettings, LinearSettings
from vlmdsl.ir.operations.encoding import ENCODE
from vlmdsl.ir.operations.modules import use_of
from vlmdsl.runtime.encoders import Encoder
from vlmdsl.runtime.modules import LinearHead, fusion
from vlmdsl.runtime.named import NamedModules

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
    """Last states of what a text is fused with: `states [b, K, C]`."""

    states: Tensor


class ContextMask(NamedTuple):
    """Which of the states of a context are real: `real [b, K]`."""

    real: Tensor


class Fusions(nn.Module):
    """One network for each fusion module of a program, and one for each vocabulary on one.

    `encoders` are the towers by name: their widths are those of the states that enter, and the text tower has the size of
    the vocabulary. `uses` are the uses of fusion modules and of the heads on them, `widths` the lengths of the
    features of its fusion modules, by module, and `lengths` by output.
    """

    def __init__(self, encoders: Mapping[str, Encoder], program: Program) -> None:
        super().__init__()
        self.parts, self.vocabularies = NamedModules(), NamedModules()
        self.uses: list[Use] = []
        self.widths: dict[str, int] = {}
        self.lengths: dict[str, int] = {}
        for output in module_outputs(program):
            use = use_of(output.node)
            if use.module.base.family != "fusion":
                continue
            self.uses.append(use)
            if isinstance(use.module.settings, FusionSettings):
                text, image = (encoders[encoder_of(_encode(parent)).tower] for parent in output.node.inputs)
                self._register(use.module, use.module.settings, text.states_width, image.states_width)
                self.lengths |= dict.fromkeys((output.name, output.input("tokens")), self.widths[use.module.name])
                if output.vocabulary:
                    self._register_vocabulary(vocabulary_use(use).module, text)

    def part(self, module: Module) -> nn.Module:
        """The network that a fusion module is."""
        return self.parts[module.name]

    def vocabulary(self, module: Module) -> nn.Module:
        """The network from the states of a fusion module to logits."""
        return self.vocabularies[module.base.name]

    def _register(self, module: Module, settings: FusionSettings, text_width: int, image_width: int) -> None:
        if module.name not in self.parts:
            self.parts[module.name] = fusion(settings, text_width, image_width)
            self.widths[module.name] = settings.width or text_width

    def _register_vocabulary(self, module: Module, text: Encoder) -> None:
        name = module.base.name
        if name not in self.vocabularies:
            assert text.vocabulary_size is not None, "a tower of texts has a vocabulary"
            self.vocabularies[name] = LinearHead(LinearSettings(transform=True), self.widths[name], text.vocabulary_size)


def _encode(node: Node) -> Node:
    """The tower whose states a node is, by way of its first inputs."""
    while node.operation is not ENCODE:
        node = node.inputs[0]
    return node
