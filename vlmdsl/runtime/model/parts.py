"""The modules of a model, by family, for one objective or for several that are trained together."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from vlmdsl.ir import Module, Use, reached, trained_modules
from vlmdsl.ir.operations.modules import use_of
from vlmdsl.runtime.model.family import Families, ModuleFamily, Needs
from vlmdsl.runtime.model.fusions import Fusions
from vlmdsl.runtime.model.heads import Heads
from vlmdsl.runtime.model.image_views import check_image_views
from vlmdsl.runtime.model.linear_heads import LinearHeads
from vlmdsl.runtime.model.pixel_decoders import PixelDecoders
from vlmdsl.runtime.model.poolers import Poolers
from vlmdsl.runtime.model.teachers import Teachers
from vlmdsl.runtime.model.ties import tie_modules
from vlmdsl.runtime.model.token_heads import TokenHeads
from vlmdsl.runtime.model.tower_needs import check_towers, tower_needs
from vlmdsl.runtime.model.towers import Towers
from vlmdsl.runtime.model.vocabularies import Vocabularies
from vlmdsl.runtime.modules.towers import Encoder

if TYPE_CHECKING:
    from vlmdsl.backends.torch.objective import Objective

__all__ = ["FAMILIES", "Parts"]

FAMILIES: Mapping[str, type[ModuleFamily]] = {
    "fusion": Fusions,
    "decoder": PixelDecoders,
    "pooler": Poolers,
    "token_head": TokenHeads,
    "vocabulary": Vocabularies,
    "linear": LinearHeads,
    "head": Heads,
}
"""The families on top of towers, in the order in which they are built: a module stands on those of earlier families."""


@dataclass(frozen=True)
class Parts:
    """The modules that models over the same towers share; equal modules of their objectives are one module.

    `lengths` are those of the vectors of modules on features, by the names of the objectives' inputs. The `tied` towers
    share weights with one another and with fusion modules.
    """

    families: Families
    teachers: Teachers | None
    lengths: Mapping[str, int]
    tied: frozenset[str] = frozenset()

    @classmethod
    def of(cls, encoders: Mapping[str, Encoder], objectives: Sequence[Objective], steps: int = 0) -> Parts:
        """The modules that the objectives need on these towers; `DiagnosticError` (V0832) where the towers do not fit."""
        needs = Needs.of(objective.program for objective in objectives)
        columns = [column for objective in objectives for column in objective.references.columns]
        of_towers = tower_needs(needs.streams, columns)
        check_towers(encoders, of_towers)
        check_image_views(encoders, needs.streams)
        frozen = frozenset(name for name, need in of_towers.items() if need.frozen)
        families: dict[str, ModuleFamily] = {"tower": Towers(encoders, frozen)}
        for name, family in FAMILIES.items():
            families[name] = family.of(needs, families)
        tied = tie_modules(needs, families)
        terms = (term.node for objective in objectives for term in objective.program.terms)
        _hold_untrained(needs, trained_modules(reached(terms)), families)
        taught = any(use.follows for use in needs.uses)
        teachers = Teachers(families, needs.uses, steps) if taught else None
        return cls(families, teachers, _lengths(needs, families), tied)

    @property
    def towers(self) -> Towers:
        """The towers by name."""
        towers = self.families["tower"]
        assert isinstance(towers, Towers)
        return towers

    def register(self, model: nn.Module) -> None:
        """Makes the modules those of a model, under the names that weights have in checkpoints.

        The order of parameters is that in which the norms of their gradients are summed.
        """
        for family in self.families.values():
            model.add_module(family.stored_as, family)
        model.add_module("teachers", self.teachers)

    def part(self, use: Use) -> nn.Module:
        """The network of a use, or its teacher's."""
        if use.follows is None:
            return self.families[use.module.family].part(use.module)
        assert self.teachers is not None, "a model has the teachers that its streams ask for"
        return self.teachers.part(use)

    @property
    def units(self) -> list[nn.Module]:
        """The modules that a step calls, inner ones first."""
        own = [unit for family in self.families.values() for unit in family.units]
        return own + (self.teachers.encoding() if self.teachers else [])

    @property
    def separate_units(self) -> list[nn.Module]:
        """The units whose weights are theirs alone: those that share some cannot be gathered one by one, nor can a teacher
        that follows such a one weight by weight."""
        shared = {id(weight) for name in self.tied for weight in self.towers[name].parameters()}
        for _, own, followed in self.teachers.pairs(self.families) if self.teachers else ():
            if any(id(weight) in shared for weight in followed.parameters()):
                shared |= {id(weight) for weight in own.parameters()}
        return [unit for unit in self.units if not any(id(weight) in shared for weight in unit.parameters())]

    def follow(self, order: str) -> None:
        """Update the teachers with this order: `before` the forward pass, or `after` the optimiser step."""
        if self.teachers is not None:
            self.teachers.follow(self.families, order)

    def begin_again(self) -> None:
        """Make each teacher a copy of what it follows, as before the first step."""
        if self.teachers is not None:
            self.teachers.begin_again(self.families)


def _hold_untrained(needs: Needs, trained: Collection[Module], families: Families) -> None:
    """Weights that no gradient reaches ask for none: DDP waits for the gradients of all that do."""
    changed = {id(weight) for module in trained for weight in _weights(module, families)}
    for use in needs.uses:
        for weight in _weights(use.module, families):
            if id(weight) not in changed:
                weight.requires_grad_(False)


def _weights(module: Module, families: Families) -> Iterator[nn.Parameter]:
    """The weights of a module; the vocabulary of a tower is part of the tower."""
    if module.family == "vocabulary" and module.base.family == "tower":
        module = module.base
    return families[module.family].part(module).parameters()


def _lengths(needs: Needs, families: Families) -> dict[str, int]:
    lengths: dict[str, int] = {}
    for output in needs.outputs:
        module = use_of(output.node).module
        family = families[module.family]
        own = {output.name: family.length(module), output.input("tokens"): family.token_length(module)}
        lengths |= {name: length for name, length in own.items() if length is not None}
    return lengths
