"""What the loader hands to the model."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["NOT_ASKED", "Batch", "StreamValues"]

NOT_ASKED = -100
"""In place of a token that no mask chose."""


@dataclass(frozen=True)
class StreamValues:
    """One stream of a batch: images `[b, 3, H, W]` float, or token ids `[b, L]` int64 with `mask` (true = a token), or
    regions `[b, R, F]` float with theirs.

    Of a masked text, `targets` `[b, L]` int64 holds what the chosen tokens were, `NOT_ASKED` elsewhere; `asked`
    `[b, M]` says where they are, counted row by row, if M < L places hold them all.
    An image and a text joined are `values`, images, and `words`, token ids, whose mask is `mask`; blended, `share [b]` float
    is that of the image. Of images with patches dropped, `keep [b, K]` int64 are the patches to encode, counted row by row.
    For towers that draw in training, `noise [b, N]` float32 is standard Gumbel noise.
    """

    values: Tensor
    mask: Tensor | None = None
    words: Tensor | None = None
    targets: Tensor | None = None
    keep: Tensor | None = None
    noise: Tensor | None = None
    share: Tensor | None = None
    asked: Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> StreamValues:
        """The same on `device`."""

        def moved(part: Tensor | None) -> Tensor | None:
            return None if part is None else part.to(device, non_blocking=non_blocking)

        values = self.values.to(device, non_blocking=non_blocking)
        further = (self.mask, self.words, self.targets, self.keep, self.noise, self.share, self.asked)
        return StreamValues(values, *(moved(part) for part in further))


@dataclass(frozen=True)
class Batch:
    """This process's share of one batch: encoder inputs by stream name, plain fields `[b]` by field name, sample keys, and
    the numbers drawn for the step, 0-d by name."""

    streams: dict[str, StreamValues]
    fields: dict[str, Tensor]
    keys: list[str]
    draws: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same on `device`."""
        return Batch(
            {name: stream.to(device, non_blocking) for name, stream in self.streams.items()},
            {name: values.to(device, non_blocking=non_blocking) for name, values in self.fields.items()},
            self.keys,
            {name: draw.to(device, non_blocking=non_blocking) for name, draw in self.draws.items()},
        )
