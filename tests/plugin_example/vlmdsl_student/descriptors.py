"""A kind of field: a vector of each sample that another model computed before. Torch is imported where data is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from vlmdsl.types import FieldKind, VecType, register_field_kind

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from vlmdsl.runtime.values import FieldColumns, SampleColumns

DESCRIPTOR = register_field_kind(
    FieldKind(
        "Descriptor",
        "a vector of each sample: [B, D], float",
        "a Descriptor field",
        f"{__name__}:DescriptorFamily",
        dtype="float",
        axes=("B", "D"),
        reads_as=VecType(),
    )
)


class DescriptorBatch(NamedTuple):
    """`features [b, D]`, float32."""

    features: Tensor


class DescriptorFamily:
    """What the runtime does with fields of the kind."""

    kind = "Descriptor"

    def probe(self, samples: Iterable[Mapping[str, object]], field: FieldColumns) -> int | None:
        """D of the first sample that has a descriptor."""
        from vlmdsl.runtime.values import first_value

        lengths = (len(value) for columns in samples if isinstance(value := first_value(columns, field.columns), list))
        return next(lengths, None)

    def read(self, sample: SampleColumns, field: FieldColumns) -> np.ndarray:
        """A list of D finite numbers; raises `BadSample` for anything else."""
        import numpy as np

        from vlmdsl.runtime.values import BadSample, first_value

        try:
            vector = np.asarray(first_value(sample.columns, field.columns), dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise BadSample(f"{field.name} is not a vector") from error
        if vector.shape != (field.facts,) or not np.isfinite(vector).all():
            raise BadSample(f"{field.name} is not a vector of {field.facts} finite numbers")
        return vector

    def collate(self, samples: Sequence[np.ndarray], form: object) -> DescriptorBatch:
        """Stacked."""
        import numpy as np
        import torch

        return DescriptorBatch(torch.from_numpy(np.stack(samples)))
