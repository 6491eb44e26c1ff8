"""Masks of blocks and the order of kept patches: as the authors' code makes them of the same draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vlmdsl.runtime.draws import generator
from vlmdsl.runtime.values.mask_rules import block_mask

DATA = Path(__file__).parent / "data"


class Replayed:
    """Gives the numbers that the authors' code drew, and sees that they are asked for from the same ranges."""

    def __init__(self, draws: np.ndarray) -> None:
        self._draws = iter(draws)

    def random(self) -> float:
        kind, low, high, value = next(self._draws)
        assert kind == 0
        return float((value - low) / (high - low)) if high != low else 0.0

    def integers(self, low: int, high: int, endpoint: bool) -> int:
        kind, its_low, its_high, value = next(self._draws)
        assert (kind, its_low, its_high, endpoint) == (1, low, high, True)
        return int(value)

    @property
    def exhausted(self) -> bool:
        return next(self._draws, None) is None


@pytest.mark.parametrize("case", [0, 1, 2])
def test_the_same_draws_give_the_same_blocks(case: int) -> None:
    with np.load(DATA / f"beit-blockmask-{case}.npz") as arrays:
        replayed = Replayed(arrays["draws"])
        mask = block_mask(replayed, 14, 14, budget=75)
        np.testing.assert_array_equal(mask, arrays["out_mask"] == 1)
        assert mask.sum() == arrays["out_count"]
    assert replayed.exhausted


def test_blocks_are_distributed_as_in_the_authors_code() -> None:
    masks = np.stack([block_mask(generator(0, run), 14, 14, budget=75) for run in range(1000)])
    counts = masks.sum(axis=(1, 2))
    with np.load(DATA / "beit-blockmask-stats.npz") as expected:
        assert abs(counts.mean() - expected["out_count_mean"]) < 0.15
        assert abs(counts.std() - expected["out_count_std"]) < 0.2
        assert expected["out_count_min"] - 2 <= counts.min() < counts.max() == expected["out_count_max"]
        shares = np.bincount(counts, minlength=76) / 1000
        np.testing.assert_allclose(shares, expected["out_count_hist"] / 4000, atol=0.05)
        np.testing.assert_allclose(masks.mean(axis=0), expected["out_coverage"], atol=0.07)
