"""The heads of a model: which modules there are, and what they make of the features of the towers."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from vlmdsl.ir import Head, Node, Stream
from vlmdsl.runtime.encoders.heads import MultilayerHead
from vlmdsl.runtime.named import NamedModules

__all__ = ["Chain", "Heads"]

Chain: TypeAlias = tuple[Head, ...]
"""Heads on one another; the first is on the tower."""


class Heads(nn.Module):
    """One module for every head on the same tower and the same heads below it; `streams` say which there are.

    `dimensions` are the lengths of the towers' pooled features. Heads that no stream gives a gradient keep their weights and
    stay in evaluation mode.
    """

    def __init__(self, dimensions: Mapping[str, int], streams: Iterable[Stream]) -> None:
        super().__init__()
        self.parts = NamedModules()
        self._names: dict[tuple[str, Chain], str] = {}
        learning: set[str] = set()
        for encoder in dict.fromkeys(stream.encoder for stream in streams):
            entering = dimensions[encoder.tower]
            for chain in prefixes(encoder.heads):
                name = self._register(encoder.tower, chain, entering)
                entering = chain[-1].widths(entering)[-1]
                if encoder.teacher is None and not chain[-1].frozen:
                    learning.add(name)
        self.frozen = frozenset(self.parts.keys() - learning)
        for name in self.frozen:
            self.parts[name].requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Heads:
        """As of any module, but frozen heads stay in evaluation mode."""
        super().train(mode)
        for name in self.frozen:
            self.parts[name].eval()
        return self

    def forward(self, tower: str, streams: Sequence[Stream], pooled: Mapping[Node, Tensor]) -> dict[str, Tensor]:
        """The features of each stream with heads, by its name, from the pooled features of each source.

        A source goes through a head once, however many streams use what comes out.
        """
        reached: dict[Chain, dict[Node, Tensor]] = {(): dict(pooled)}
        for chain in dict.fromkeys(chain for stream in streams for chain in prefixes(stream.encoder.heads)):
            below = reached[chain[:-1]]
            wanted = dict.fromkeys(stream.source for stream in streams if stream.encoder.heads[: len(chain)] == chain)
            with torch.set_grad_enabled(torch.is_grad_enabled() and not chain[-1].frozen):
                made = self.part(tower, chain)([below[source] for source in wanted])
            reached[chain] = dict(zip(wanted, made, strict=True))
        return {stream.name: reached[stream.encoder.heads][stream.source] for stream in streams if stream.encoder.heads}

    def part(self, tower: str, chain: Chain) -> nn.Module:
        """The module of the last head of a chain."""
        return self.parts[self._names[tower, _learned(chain)]]

    def copied(self, streams: Iterable[Stream]) -> Heads:
        """A copy of those heads that these streams go through, without gradient: a teacher's."""
        streams = list(streams)
        used = {
            self._names[stream.encoder.tower, _learned(chain)]
            for stream in streams
            for chain in prefixes(stream.encoder.heads)
        }
        made = copy.deepcopy(self)
        for name in self.parts.keys() - used:
            del made.parts[name]
        made.frozen = self.frozen & used
        return made.requires_grad_(False)

    def _register(self, tower: str, chain: Chain, entering: int) -> str:
        """The name of the chain's last head, made if it is new."""
        known = self._names.get((tower, _learned(chain)))
        if known is not None:
            return known
        name, number = f"{tower}_{chain[-1].name}", 2
        while name in self.parts:
            name, number = f"{tower}_{chain[-1].name}_{number}", number + 1
        self.parts[name] = MultilayerHead(chain[-1], entering)
        self._names[tower, _learned(chain)] = name
        return name


def prefixes(heads: Chain) -> list[Chain]:
    """The chains that end in each of these heads, the lowest first."""
    return [heads[: depth + 1] for depth in range(len(heads))]


def _learned(chain: Chain) -> Chain:
    """What tells modules apart: not whether a gradient reaches them."""
    return tuple(head.learned for head in chain)
