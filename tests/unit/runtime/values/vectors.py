"""A kind of field as a plug-in adds it: one vector of each sample, such as a feature that another model computed before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vlmdsl.runtime.values import BadSample, FieldColumns, SampleColumns, first_value
from vlmdsl.types import FieldKind, VecType

VECTOR = FieldKind(
    "Vector",
    "a vector of each sample: [B, D], float",
    "a Vector field",
    f"{__name__}:VectorFamily",
    dtype="float",
    axes=("B", "D"),
    reads_as=VecType(),
)


class VectorBatch(NamedTuple):
    """`features [b, D]`, float32."""

    features: Tensor


class VectorFamily:
    """Fields of kind Vector."""

    kind = "Vector"

    def probe(self, samples: Iterable[Mapping[str, object]], field: FieldColumns) -> int | None:
        """D of the first sample that has a vector."""
        lengths = (len(value) for columns in samples if isinstance(value := first_value(columns, field.columns), list))
        return next(lengths, None)

    def read(self, sample: SampleColumns, field: FieldColumns) -> np.ndarray:
        """A list of D finite numbers; raises `BadSample`."""
        value = first_value(sample.columns, field.columns)
        try:
            vector = np.asarray(value, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise BadSample(f"{field.name} is not a vector") from error
        if vector.shape != (field.facts,) or not np.isfinite(vector).all():
            raise BadSample(f"{field.name} is not a vector of {field.facts} finite numbers")
        return vector

    def collate(self, samples: Sequence[np.ndarray], form: object) -> VectorBatch:
        """Stacked."""
        return VectorBatch(torch.from_numpy(np.stack(samples)))
