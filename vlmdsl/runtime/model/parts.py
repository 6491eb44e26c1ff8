"""The modules other than towers, for one objective or for several that are trained together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlmdsl.ir import uses_of
from vlmdsl.runtime.model.fusions import Fusions
from vlmdsl.runtime.model.heads import Heads
from vlmdsl.runtime.model.image_views import check_image_views
from vlmdsl.runtime.model.pixel_decoders import PixelDecoders
from vlmdsl.runtime.model.teachers import Teachers
from vlmdsl.runtime.model.tower_needs import check_towers, tower_needs
from vlmdsl.runtime.modules.towers import Encoder

if TYPE_CHECKING:
    from vlmdsl.backends.torch.objective import Objective

__all__ = ["Parts"]


@dataclass(frozen=True)
class Parts:
    """The modules that models over the same towers share; equal modules of their objectives are one module.

    `frozen_towers` are the towers that no objective trains; their weights stay as they are.
    """

    frozen_towers: frozenset[str]
    fusions: Fusions
    decoders: PixelDecoders
    heads: Heads
    teachers: Teachers | None

    @classmethod
    def of(cls, encoders: Mapping[str, Encoder], objectives: Sequence[Objective], steps: int = 0) -> Parts:
        """The modules that the objectives need on these towers; `DiagnosticError` (V0832) where the towers do not fit."""
        streams = [stream for objective in objectives for stream in objective.streams]
        columns = [column for objective in objectives for column in objective.references.columns]
        needs = tower_needs(streams, columns)
        check_towers(encoders, needs)
        check_image_views(encoders, streams)
        frozen = frozenset(name for name, need in needs.items() if need.frozen)
        for name in frozen:
            encoders[name].requires_grad_(False).eval()
        uses = [use for encoder in dict.fromkeys(stream.encoder for stream in streams) for use in uses_of(encoder)]
        programs = [objective.program for objective in objectives]
        fusions, decoders = Fusions(encoders, *programs), PixelDecoders(encoders, *programs)
        uses += fusions.uses
        pooled = {name: encoder.dimension for name, encoder in encoders.items()} | fusions.widths
        heads = Heads(pooled, uses)
        taught = any(use.follows for use in uses)
        return cls(frozen, fusions, decoders, heads, Teachers(encoders, heads, uses, steps) if taught else None)
