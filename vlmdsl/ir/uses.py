"""Modules and their uses: a set of weights, and a way to call it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from vlmdsl.ir.encoders import Encoder, Head, Teacher

if TYPE_CHECKING:
    from vlmdsl.ir.modules import (
        FusionSettings,
        LinearSettings,
        PixelDecoderSettings,
        PluginFusionSettings,
        PoolerSettings,
        TokenHeadSettings,
    )

__all__ = [
    "PER_SAMPLE",
    "Family",
    "Module",
    "TowerSettings",
    "Use",
    "VocabularySettings",
    "head_uses",
    "uses_of",
    "vocabulary_use",
]

Family: TypeAlias = Literal["tower", "head", "vocabulary", "fusion", "decoder", "linear", "token_head", "pooler"]
PER_SAMPLE: frozenset[Family] = frozenset({"tower", "fusion", "decoder", "token_head", "pooler"})
"""Families of modules that take samples one by one, so that they may be called with some of a batch. Those of others, and
what they stand on, may depend on all of it: batch statistics, how many tokens are predicted."""


@dataclass(frozen=True, slots=True)
class TowerSettings:
    """Settings of a tower: the kind of field it encodes, `Image|Text` for both. The run configuration has the rest."""

    kind: str


@dataclass(frozen=True, slots=True)
class VocabularySettings:
    """Settings of the linear map from states to logits over the vocabulary of a text tower: on a fusion module a `transform`
    goes before it. Whether one does on a tower is the tower's, whose head is called as a whole."""

    transform: bool = False


@dataclass(frozen=True, slots=True)
class Module:
    """One set of weights: equal values are the same module.

    `on` is the module whose outputs it takes: equal heads on two towers are two modules.
    """

    name: str
    family: Family
    settings: (
        TowerSettings
        | Head
        | VocabularySettings
        | FusionSettings
        | PluginFusionSettings
        | PixelDecoderSettings
        | LinearSettings
        | TokenHeadSettings
        | PoolerSettings
    )
    on: Module | None = None

    @property
    def base(self) -> Module:
        """The tower, the fusion module or the decoder at the bottom: the module itself, or the one below it."""
        module = self
        while module.on is not None:
            module = module.on
        return module


@dataclass(frozen=True, slots=True)
class Use:
    """One way to call a module; all uses of a module share its weights.

    `blocks` is the part of its blocks that runs: a tower entered after 75 % of them has (0.75, 1.0). Without `gradient` the
    call records none. With `follows`, the teacher of the module is called, a running mean of its weights.
    Without `product` a linear map gives what its weight is to be multiplied with.
    """

    module: Module
    blocks: tuple[float, float] = (0.0, 1.0)
    gradient: bool = True
    follows: Teacher | None = None
    product: bool = True

    @property
    def name(self) -> str:
        """The name of the module; of its teacher with `_teacher`."""
        return f"{self.module.name}{'_teacher' if self.follows else ''}"


def uses_of(encoder: Encoder) -> tuple[Use, ...]:
    """The calls of an encoder, each on the output of the previous one: the tower, then its heads."""
    module = Module(encoder.tower, "tower", TowerSettings(encoder.tower_kind))
    tower = Use(module, (encoder.enters or 0.0, 1.0), encoder.tower_learns, encoder.teacher)
    return (tower, *head_uses(tower, encoder.heads))


def head_uses(below: Use, heads: Iterable[Head]) -> Iterator[Use]:
    """The calls of heads, each on the output of the one before, the first on that of `below`."""
    module = below.module
    for head in heads:
        module = Module(head.name, "head", head.learned, on=module)
        yield Use(module, gradient=below.follows is None and not head.frozen, follows=below.follows)


def vocabulary_use(below: Use) -> Use:
    """The call that computes logits over the vocabulary from the states of a tower or a fusion module."""
    settings = VocabularySettings(transform=below.module.family == "fusion")
    module = Module("vocabulary", "vocabulary", settings, on=below.module)
    return Use(module, gradient=below.gradient, follows=below.follows)
