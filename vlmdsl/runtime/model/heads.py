"""The heads of a model, by the modules of the schedule."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from vlmdsl.backends.torch.applied import head_input
from vlmdsl.backends.torch.step import Environment
from vlmdsl.ir import Head, Module, Node, Use
from vlmdsl.ir.schedule import Apply, Value
from vlmdsl.runtime.model.family import Families, ModuleFamily, Needs, OfModel
from vlmdsl.runtime.model.named import NamedModules
from vlmdsl.runtime.modules.heads import MultilayerHead

__all__ = ["Heads"]


class Heads(ModuleFamily):
    """One network for each head on the same module below it.

    `uses` say which heads there are and which get a gradient: those that get none keep their weights and stay in evaluation
    mode. `length` gives the length of the vectors of a module of another family.
    """

    stored_as = "heads"

    def __init__(self, uses: Iterable[Use], length: Callable[[Module], int | None]) -> None:
        super().__init__()
        self.parts = NamedModules()
        self._names: dict[Module, str] = {}
        self._lengths: dict[Module, int] = {}
        learning: set[str] = set()
        for use in uses:
            if use.module.family == "head":
                name = self._register(use.module, length)
                if use.gradient:
                    learning.add(name)
        self.frozen = frozenset(self.parts.keys() - learning)
        for name in self.frozen:
            self.parts[name].requires_grad_(False).eval()

    @classmethod
    def of(cls, needs: Needs, below: Families) -> Heads:
        return cls(needs.uses, lambda module: below[module.family].length(module))

    def train(self, mode: bool = True) -> Heads:
        """As in any module, but frozen heads stay in evaluation mode."""
        super().train(mode)
        for name in self.frozen:
            self.parts[name].eval()
        return self

    def part(self, module: Module) -> nn.Module:
        """The network of a head of the schedule: from a list of views [b, D] to a list of the same length."""
        return self.parts[self._names[module]]

    def length(self, module: Module) -> int:
        return self._lengths[module]

    def call_whole(self, apply: Apply, environment: Environment, model: OfModel) -> list[Any]:
        """The vectors of each value: of its views together, for batch statistics."""
        vectors = [_vectors(value, environment) for value in apply.values]
        features: list[Tensor] = model.part(apply.use)(vectors)
        return features

    def copied(self, modules: Iterable[Module]) -> Heads:
        """A copy of these heads, without gradient: a teacher's."""
        used = {self._names[module] for module in modules}
        copied = copy.deepcopy(self)
        for name in self.parts.keys() - used:
            del copied.parts[name]
        copied.frozen = self.frozen & used
        return copied.requires_grad_(False)

    def _register(self, module: Module, length: Callable[[Module], int | None]) -> str:
        """The name of a head's network, which is built if it is new."""
        if module not in self._names:
            head, below = module.settings, module.on
            assert isinstance(head, Head)
            assert below is not None
            name, number = f"{module.base.name}_{module.name}", 2
            while name in self.parts:
                name, number = f"{module.base.name}_{module.name}_{number}", number + 1
            entering = self._lengths[below] if below in self._lengths else length(below)
            assert entering is not None, "a module under a head yields vectors"
            self.parts[name] = MultilayerHead(head, entering)
            self._lengths[module] = head.widths(entering)[-1]
            self._names[module] = name
        return self._names[module]


def _vectors(value: Value, environment: Environment) -> Tensor:
    """The inputs of a head: pooled features of a tower, of the head below, or of a module on features."""
    if isinstance(value, Node):
        return head_input(value, environment)[0]
    output = environment[value]
    pooled = output if isinstance(output, Tensor) else output.pooled
    assert pooled is not None, "a tower under a head yields pooled features"
    return pooled
