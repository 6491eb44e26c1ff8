"""What attention keeps of the tokens of a text while they are decoded one after the other."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["KeyValueCache"]


class KeyValueCache:
    """Keys and values of the tokens that a decoder has read of `n` texts, so that a call takes only the tokens after them.

    Those of the tokens are stored in the order of the calls, up to `capacity` in all; those of a context are computed in the
    first call. Texts of one context come one after the other, as the beams of a search do, and share its keys and values. No
    gradient is meant to flow through a cache: decode under `torch.no_grad`.

    Parameters
    ----------
    capacity
        The most tokens that calls may have together, padding included.

    Examples
    --------
    >>> cache = KeyValueCache(capacity=5)
    >>> cache.extend(torch.tensor([[True, True], [True, False]])).tolist()  # two texts, the second one shorter
    [[0, 1], [0, 0]]
    >>> cache.extend(torch.tensor([[True], [True]])).tolist()
    [[2], [1]]
    """

    def __init__(self, capacity: int) -> None:
        self.capacity, self.size = capacity, 0
        self.earlier: Tensor | None = None
        """Which places of earlier calls hold a token, `[n, T]`; None in the first call."""
        self._real: Tensor | None = None
        self._tokens: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        self._contexts: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def extend(self, mask: Tensor) -> Tensor:
        """Begin a call with further tokens of the texts, where `mask [n, L]` is true: their positions in these, `[n, L]`;
        0 for padding. ValueError for more tokens than there is room for."""
        self.earlier, self.size = self._real, self.size + mask.shape[1]
        if self.size > self.capacity:
            raise ValueError(f"a cache for {self.capacity} tokens is to take {self.size}")
        places = mask.cumsum(dim=1) - 1
        if self.earlier is None:
            self._real = mask
        else:
            places = places + self.earlier.sum(dim=1, keepdim=True)
            self._real = torch.cat([self.earlier, mask], dim=1)
        return torch.where(mask, places, 0)

    def of_tokens(self, attention: nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values of all tokens so far, `[n, heads, T, W / heads]`, from those of this call."""
        if attention not in self._tokens:
            shape = (*key.shape[:2], self.capacity, key.shape[3])
            self._tokens[attention] = key.new_zeros(shape), value.new_zeros(shape)
        keys, values = self._tokens[attention]
        present = slice(self.size - key.shape[2], self.size)
        keys[:, :, present], values[:, :, present] = key, value
        return keys[:, :, : self.size], values[:, :, : self.size]

    def of_context(self, attention: nn.Module, compute: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """The keys and values of the context, which are computed in the first call."""
        if attention not in self._contexts:
            self._contexts[attention] = compute()
        return self._contexts[attention]

    def reorder(self, origins: Tensor) -> None:
        """Let each text continue text number `origins [n]`, which must be of the same context."""
        if self._real is None or torch.equal(origins, torch.arange(len(origins), device=origins.device)):
            return
        self._real = self._real[origins]
        for stored in self._tokens.values():
            for part in stored:
                part[:, :, : self.size] = part[origins, :, : self.size]
