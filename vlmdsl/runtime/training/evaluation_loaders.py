"""Loaders of held-out samples for the towers of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vlmdsl.runtime.data import EvaluationLoader, FieldMapping, Loaded, Source, View
from vlmdsl.runtime.data.loading import workers_for
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.training.assembly import Data, materials_of
from vlmdsl.schema import RunConfig

__all__ = ["Loaders"]


@dataclass(frozen=True)
class Loaders:
    """Loaders of samples for the towers of a model, each value in the form of the tower that encodes it."""

    config: RunConfig
    data: Data
    model: VisionLanguageModel

    def value(self, view: View, tower: str) -> Loaded:
        """A view of a field for a tower."""
        return Loaded(view, self.model.form(tower, view.kind))

    def held_out(self, values: Mapping[str, Loaded]) -> EvaluationLoader:
        """The held-out samples, which there must be: these values of each, at most `evaluation.limit` samples."""
        assert self.data.held_out is not None
        assert self.data.held_out_mapping is not None
        return self.loader((self.data.held_out, self.data.held_out_mapping), values, self.config.evaluation.limit)

    def loader(
        self, samples: tuple[Source, FieldMapping], values: Mapping[str, Loaded], limit: int | None = None
    ) -> EvaluationLoader:
        """These values of each of some samples, in their order."""
        count = len(samples[0]) if limit is None else min(limit, len(samples[0]))
        return EvaluationLoader(
            *samples,
            values,
            batch=self.config.evaluation.batch,
            limit=limit,
            workers=workers_for(self.config.data.workers, count // self.config.evaluation.batch),
            materials=materials_of(self.config),
        )
