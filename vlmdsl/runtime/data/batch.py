"""What the loader hands to the model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Batch", "StreamValues"]


@dataclass(frozen=True)
class StreamValues:
    """One stream of a batch: images `[b, 3, H, W]` float, or token ids `[b, L]` int64 with `mask` (true = a token), or
    regions `[b, R, F]` float with theirs.

    An image and a text joined are `values`, images, and `words`, token ids, whose mask is `mask`. Of images with patches
    dropped, `keep [b, K]` int64 are the patches to encode, counted row by row.
    """

    values: Tensor
    mask: Tensor | None = None
    words: Tensor | None = None
    keep: Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> StreamValues:
        """The same on `device`."""
        mask, words, keep = (
            None if part is None else part.to(device, non_blocking=non_blocking)
            for part in (self.mask, self.words, self.keep)
        )
        return StreamValues(self.values.to(device, non_blocking=non_blocking), mask, words, keep)


@dataclass(frozen=True)
class Batch:
    """This process's share of one batch: encoder inputs by stream name, plain fields `[b]` by field name, sample keys."""

    streams: dict[str, StreamValues]
    fields: dict[str, Tensor]
    keys: list[str]

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same on `device`."""
        return Batch(
            {name: stream.to(device, non_blocking) for name, stream in self.streams.items()},
            {name: field.to(device, non_blocking=non_blocking) for name, field in self.fields.items()},
            self.keys,
        )
