"""A kind of field with a tower for it: waves, lists of equally many numbers. Torch is imported where data is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import vlmdsl
from vlmdsl.types import FieldKind, register_field_kind

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from vlmdsl.runtime.modules.towers import Request
    from vlmdsl.runtime.values import FieldColumns, SampleColumns

WAVE = register_field_kind(
    FieldKind("Wave", "a wave: [B, S], float", "a Wave", f"{__name__}:WaveFamily", token_axis="S"),
)


class WaveBatch(NamedTuple):
    """`values [b, S]`, float32."""

    values: Tensor


class WaveFamily:
    """What the runtime does with waves."""

    kind = "Wave"

    def probe(self, samples: Iterable[Mapping[str, object]], field: FieldColumns) -> int | None:
        """S of the first sample that has a wave."""
        from vlmdsl.runtime.values import first_value

        lengths = (len(value) for columns in samples if isinstance(value := first_value(columns, field.columns), list))
        return next(lengths, None)

    def read(self, sample: SampleColumns, field: FieldColumns) -> np.ndarray:
        """S finite numbers; raises `BadSample` for anything else."""
        import numpy as np

        from vlmdsl.runtime.values import BadSample, first_value

        try:
            wave = np.asarray(first_value(sample.columns, field.columns), dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise BadSample(f"{field.name} is not a wave") from error
        if wave.shape != (field.facts,) or not np.isfinite(wave).all():
            raise BadSample(f"{field.name} is not a wave of {field.facts} finite numbers")
        return wave

    def collate(self, samples: Sequence[np.ndarray], form: object) -> WaveBatch:
        """Stacked."""
        import numpy as np
        import torch

        return WaveBatch(torch.from_numpy(np.stack(samples)))


@vlmdsl.primitive(kind="module", takes=("Wave",))
def listener(request: Request) -> nn.Module:
    """A linear tower for waves."""
    import torch
    from torch import nn

    from vlmdsl.runtime.modules.towers import EncodedFeatures, Encoder

    class Listener(Encoder):
        def __init__(self) -> None:
            super().__init__("Wave", request.dimension, request.yields)
            self.linear = nn.Linear(request.facts, request.dimension)

        def forward(self, values: torch.Tensor) -> EncodedFeatures:
            return EncodedFeatures(pooled=self.linear(values))

    return Listener()
