"""Blocks read backwards over processes: how many samples each exchanges with whom."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vlmdsl.ir import exchange_counts, whole_blocks


@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 40))
def test_counts_are_those_of_the_partners(processes: int, share: int, block: int) -> None:
    samples = processes * share
    size = block or samples
    blocks = [range(samples)[start : start + size] for start in range(0, samples, size)]
    partners = [sample for block in blocks for sample in reversed(block)]
    for process in range(processes):
        homes = [partner // share for partner in partners[process * share : (process + 1) * share]]
        expected = [homes.count(other) for other in range(processes)]
        assert exchange_counts(process, processes, share, block) == expected
        assert not whole_blocks(share, processes, block) or expected[process] == share
