"""Modules by the names of towers and heads in a recipe."""

from __future__ import annotations

from torch import nn

__all__ = ["NamedModules"]


class NamedModules(nn.ModuleDict):
    """A `ModuleDict` whose names may be those of its own methods, `items` or `forward`: they are keys, never attributes."""

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """As of any module, but for the names that are refused."""
        assert module is not None, "there is a module for each name"
        self._modules[name] = module
