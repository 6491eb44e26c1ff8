"""The vocabularies of a model: linear maps from states to logits, in a tower or on a module above it."""

from __future__ import annotations

from typing import Any

from torch import nn

from vlmdsl.backends.torch.step import Environment
from vlmdsl.ir import Module, Use, vocabulary_use
from vlmdsl.ir.modules import LinearSettings
from vlmdsl.ir.schedule import Apply
from vlmdsl.ir.uses import VocabularySettings
from vlmdsl.planning import applied_of
from vlmdsl.runtime.model.family import Families, ModuleFamily, Needs, OfModel
from vlmdsl.runtime.model.named import NamedModules
from vlmdsl.runtime.model.towers import Towers
from vlmdsl.runtime.modules import LinearHead

__all__ = ["Vocabularies"]


class Vocabularies(ModuleFamily):
    """One network for each module above the towers whose tokens are predicted; that of a tower is in the tower."""

    stored_as = "vocabularies"

    def __init__(self) -> None:
        super().__init__()
        self.parts = NamedModules()

    @classmethod
    def of(cls, needs: Needs, below: Families) -> Vocabularies:
        own = cls()
        towers = below["tower"]
        assert isinstance(towers, Towers)
        for output in needs.outputs:
            states = applied_of(output.node)
            base = states.use.module
            if output.vocabulary and base.name not in own.parts:
                family = below[base.family]
                size, length = towers.encoder(family.text_tower(states)).vocabulary_size, family.length(base)
                assert size is not None, "a tower of texts has a vocabulary"
                assert length is not None, "a module whose tokens are predicted yields vectors"
                settings = vocabulary_use(states.use).module.settings
                assert isinstance(settings, VocabularySettings)
                own.parts[base.name] = LinearHead(LinearSettings(transform=settings.transform), length, size)
        return own

    def part(self, module: Module) -> nn.Module:
        """The network on a module above the towers."""
        network: nn.Module = self.parts[module.base.name]
        return network

    def network(self, use: Use, model: OfModel) -> Any:
        """The network of a use from states to logits, in a tower or above, or of patches; None if the tower has none."""
        if use.module.family == "linear":
            return model.part(use)
        below = use.module.on
        assert below is not None
        if below.family != "tower":
            return model.part(use)
        return getattr(model.part(Use(below, follows=use.follows)), "vocabulary_head", None)

    def call_whole(self, apply: Apply, environment: Environment, model: OfModel) -> list[Any]:
        """The predicted tokens of each value: their logits, or the states that the weight multiplies."""
        return [model.predictions.call(apply.use, value, environment) for value in apply.values]
