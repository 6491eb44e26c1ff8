"""The images or texts of a whole data set through a trained model, in order, bad ones skipped and named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from torch import Tensor

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.data import (
    EvaluationLoader,
    Requirement,
    Skipped,
    SkipReport,
    Source,
    map_fields,
    open_source,
    too_few_usable,
)
from vlmdsl.runtime.data.images import decode_image
from vlmdsl.runtime.modules.towers import EncodedFeatures
from vlmdsl.runtime.trained.model import TrainedModel
from vlmdsl.runtime.values import first_value

__all__ = ["EncodedData", "Kind"]

Kind = Literal["Image", "Text"]


class EncodedData:
    """The images or the texts of data in the formats of `--data`, encoded batch by batch by `model`.

    Iteration yields the places of the good samples of a batch in `source`, `[b]`, and their features; `report` says then
    which samples were skipped and why. `columns` maps the field, `image` or `text`, to a column. It begins after
    `skipped_batches` batches of `model.batch` samples. Raises `DiagnosticError` as `train` does for data that cannot be
    opened, or has no such column, and after the iteration V0820 where no sample can be used.
    """

    def __init__(
        self,
        model: TrainedModel,
        data: Sequence[str],
        columns: Mapping[str, str] | None = None,
        *,
        kind: Kind = "Image",
        skipped_batches: int = 0,
    ) -> None:
        field, limits = kind.lower(), model.materials.limits
        self.model, self._kind, self._limits = model, kind, limits
        values = model.text_values() if kind == "Text" else model.image_values()
        self.source: Source = open_source(tuple(data), "val", limits=limits)
        mapping = map_fields(self.source, [Requirement(field, kind)], columns or {}, limits=limits)
        self._begun = skipped_batches > 0
        self._columns = mapping.columns[field]
        self._loader = EvaluationLoader(
            self.source, mapping, values, batch=model.batch, skipped_batches=skipped_batches, materials=model.materials
        )

    @property
    def report(self) -> SkipReport:
        """The samples that were skipped so far."""
        return self._loader.report

    def __iter__(self) -> Iterator[tuple[Tensor, EncodedFeatures]]:
        some = self._begun
        for batch in self._loader:
            some = True
            features = self.model.features_of_texts if self._kind == "Text" else self.model.features_of_images
            yield batch.index, features(batch.values)
        if not some:
            bad = [Skipped(key, reason) for key, reason in self.report.samples.items()]
            raise DiagnosticError((too_few_usable(self.source.name, len(bad), 0, 1, bad),))

    def keys(self, places: Tensor) -> list[str]:
        """The names of samples."""
        return [self.source.keys[place] for place in places.tolist()]

    def pixels(self, place: int) -> np.ndarray:
        """The image of a sample, `uint8 [H, W, 3]`; raises `BadSample`."""
        value = first_value(self.source[place], self._columns)
        return decode_image(value, self.source.folder_of(place), self._limits)
