"""What is measured on held-out data beside features, where a recipe has the part: one function for each kind of part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vlmdsl.ir import Program, root_field
from vlmdsl.ir.operations.views import DROP
from vlmdsl.runtime.data import EvaluationLoader, View, view_of
from vlmdsl.runtime.evaluation import Measures, masked_error, reconstruction_of
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.training.evaluation_loaders import Loaders

__all__ = ["MeasuredPart", "measured_parts"]


@dataclass(frozen=True)
class MeasuredPart:
    """A measure of one part of a recipe.

    `name` is that of its group in `evaluation.json`, whose title is in `evaluation.PART_TITLES`; `measure` gives None where
    the held-out samples have nothing to measure.
    """

    name: str
    batches: EvaluationLoader
    measure: Callable[[VisionLanguageModel], Measures | None]


def measured_parts(program: Program, loaders: Loaders) -> tuple[MeasuredPart, ...]:
    """Every part of the program that has a measure."""
    parts = (part(program, loaders) for part in _PARTS)
    return tuple(part for part in parts if part is not None)


def _dropped_patches(program: Program, loaders: Loaders) -> MeasuredPart | None:
    """The error of reconstructed patches; each sample always has the same patches dropped."""
    reconstruction = reconstruction_of(program)
    if reconstruction is None:
        return None
    view, name = view_of(reconstruction.source), root_field(reconstruction.source).string("name")
    dropped = View(view.field, view.kind, tuple(step for step in view.steps if step[0] == DROP))
    batches = loaders.held_out({name: loaders.value(dropped, reconstruction.tower)})
    return MeasuredPart("reconstruction", batches, lambda model: masked_error(model, batches, name, reconstruction))


_PARTS: tuple[Callable[[Program, Loaders], MeasuredPart | None], ...] = (_dropped_patches,)
"""A part that can be measured is a line here, and its title one of `evaluation.PART_TITLES`."""
