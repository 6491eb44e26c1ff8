"""Blocks of consecutive samples of the global batch, each read backwards: the partner of each sample, and its process.

A block is counted from the first sample of the batch of all processes; the last one is shorter where the size does not
divide the batch, and is read backwards within itself. A size of 0 is one block of the whole batch. Every sample is the
partner of its partner, and the one in the middle of a block of odd size its own.
"""

from __future__ import annotations

__all__ = ["exchange_counts", "whole_blocks"]


def whole_blocks(share: int, processes: int, block: int) -> bool:
    """Whether no block has samples of two processes with `share` samples each: nothing is exchanged then."""
    return processes == 1 or (block > 0 and share % block == 0)


def exchange_counts(process: int, processes: int, share: int, block: int) -> list[int]:
    """How many partners of the samples of `process` each of the `processes` holds, itself included.

    As many go the other way. Only the first and the last block of a process can have samples of others.
    """
    samples, first = share * processes, process * share
    counts = [
        _shared(first if other < process else first + share - 1, first, other * share, share, samples, block or samples)
        for other in range(processes)
    ]
    counts[process] = 0
    counts[process] = share - sum(counts)
    return counts


def _shared(border: int, first: int, other: int, share: int, samples: int, block: int) -> int:
    """How many samples of the block at `border` lie in the share from `first` on and have their partner in the share from
    `other` on."""
    start = border // block * block
    end = min(start + block, samples)
    mirrored = start + end - other - share  # where the partners of the other share begin
    low, high = max(start, first, mirrored), min(end, first + share, mirrored + share)
    return max(high - low, 0)
