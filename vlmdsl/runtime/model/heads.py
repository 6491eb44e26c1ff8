"""The heads of a model, by the modules of the schedule."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

from torch import nn

from vlmdsl.ir import Head, Module, Use
from vlmdsl.runtime.model.named import NamedModules
from vlmdsl.runtime.modules.heads import MultilayerHead

__all__ = ["Heads"]


class Heads(nn.Module):
    """One network for each head on the same module below it.

    `dimensions` are the lengths of the pooled features of towers and fusion modules, `uses` say which heads there are and
    which get a gradient:
    those that get none keep their weights and stay in evaluation mode.
    """

    def __init__(self, dimensions: Mapping[str, int], uses: Iterable[Use]) -> None:
        super().__init__()
        self.parts = NamedModules()
        self._names: dict[Module, str] = {}
        self._lengths: dict[Module, int] = {}
        learning: set[str] = set()
        for use in uses:
            if use.module.on is None:
                self._lengths[use.module] = dimensions[use.module.name]
            elif use.module.family == "head":
                name = self._register(use.module)
                if use.gradient:
                    learning.add(name)
        self.frozen = frozenset(self.parts.keys() - learning)
        for name in self.frozen:
            self.parts[name].requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Heads:
        """As in any module, but frozen heads stay in evaluation mode."""
        super().train(mode)
        for name in self.frozen:
            self.parts[name].eval()
        return self

    def part(self, module: Module) -> nn.Module:
        """The network of a head of the schedule: from a list of views [b, D] to a list of the same length."""
        return self.parts[self._names[module]]

    def copied(self, modules: Iterable[Module]) -> Heads:
        """A copy of these heads, without gradient: a teacher's."""
        used = {self._names[module] for module in modules}
        copied = copy.deepcopy(self)
        for name in self.parts.keys() - used:
            del copied.parts[name]
        copied.frozen = self.frozen & used
        return copied.requires_grad_(False)

    def _register(self, module: Module) -> str:
        """The name of a head's network, which is built if it is new."""
        if module not in self._names:
            head, below = module.settings, module.on
            assert isinstance(head, Head)
            assert below is not None
            name, number = f"{module.base.name}_{module.name}", 2
            while name in self.parts:
                name, number = f"{module.base.name}_{module.name}_{number}", number + 1
            self.parts[name] = MultilayerHead(head, self._lengths[below])
            self._lengths[module] = head.widths(self._lengths[below])[-1]
            self._names[module] = name
        return self._names[module]
