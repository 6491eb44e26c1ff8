"""Scopes: the meaning of names. File scopes evaluate their `let`s on first use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from vlmdsl.primitives.values import Value
from vlmdsl.syntax.tree import Def, EncoderDeclaration, Let, Module, Recipe

__all__ = ["Closure", "FileScope", "LocalScope", "RecipeFunction", "Scope"]


class Closure(NamedTuple):
    """A `def` and the file scope it sees."""

    definition: Def
    scope: FileScope


class RecipeFunction(NamedTuple):
    """A used recipe, callable as a function of its fields and hyper-parameters."""

    recipe: Recipe
    module: Module
    scope: FileScope


@dataclass
class FileScope:
    """The names of one file (one instance per call, so that every use of a recipe has its own learned parameters)."""

    name: str
    lets: dict[str, Let] = field(default_factory=dict)
    definitions: Mapping[str, Def] = field(default_factory=dict)
    encoders: dict[str, EncoderDeclaration] = field(default_factory=dict)
    recipes: dict[str, RecipeFunction] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    """Fields, hyper-parameters, and the `let`s and encoders evaluated so far."""
    libraries: set[str] = field(default_factory=set)
    """The texts that these definitions come from."""
    pending: list[str] = field(default_factory=list)
    """`let`s under evaluation: one that occurs again depends on itself."""
    library: FileScope | None = None

    def fresh(self) -> FileScope:
        """The same definitions with nothing evaluated."""
        return FileScope(self.name, self.lets, self.definitions, self.encoders, self.recipes, library=self.library)


class LocalScope(NamedTuple):
    """Parameters of a `def` or the name of a `let ... in`, above an outer scope."""

    values: dict[str, Value]
    outer: Scope


Scope = FileScope | LocalScope
