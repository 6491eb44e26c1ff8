"""What can be done with a value of any class."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vlmdsl.runtime.modules.towers import EncodedFeatures
from vlmdsl.runtime.values import (
    NOT_SELECTED,
    ImageBatch,
    KeptPatches,
    MaskedTokens,
    RegionBatch,
    TextBatch,
    cat,
    count,
    length,
    pad,
    shorten,
    split,
    take,
    to,
)
from vlmdsl.runtime.values.mask import selected_places


def texts(samples: int, longest: int, seed: int = 0) -> TextBatch:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (samples,), generator=generator)
    mask = torch.arange(longest) < lengths[:, None]
    return TextBatch(torch.randint(1, 99, (samples, longest), generator=generator) * mask, mask)


def test_a_value_is_padded_along_the_axis_of_its_mask_alone() -> None:
    features = EncodedFeatures(torch.ones(2, 3), torch.ones(2, 3, 4), torch.ones(2, 3, dtype=torch.bool), None)
    longer = pad(features, 5)
    assert longer.pooled is features.pooled, "D is as long as L, and no token axis"
    assert longer.tokens is not None
    assert longer.mask is not None
    assert longer.tokens.shape == (2, 5, 4)
    assert longer.mask.sum(1).tolist() == [3, 3]
    assert longer.tokens[:, 3:].eq(0).all()
    assert shorten(longer, 3).tokens.equal(features.tokens)  # type: ignore[union-attr, arg-type]
    regions = pad(RegionBatch(torch.ones(1, 2, 7), torch.ones(1, 2, dtype=torch.bool)), 3)
    assert (regions.features.shape, regions.mask.tolist()) == ((1, 3, 7), [[True, True, False]])


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6)), min_size=1, max_size=4))
def test_what_is_put_together_comes_apart_again(sizes: list[tuple[int, int]]) -> None:
    values = [texts(samples, longest, seed) for seed, (samples, longest) in enumerate(sizes)]
    whole = cat(values)
    assert length(whole) == max(longest for _, longest in sizes)
    for part, value in zip(split(whole, [count(value) for value in values]), values, strict=True):
        assert all(map(torch.equal, shorten(part, value.ids.shape[1]), value))
    rows = torch.arange(count(whole)).flip(0)
    assert take(whole, rows).ids.equal(whole.ids[rows])


def test_values_without_a_mask_are_not_padded() -> None:
    assert cat([ImageBatch(torch.ones(1, 3, 4, 4)), ImageBatch(torch.zeros(2, 3, 4, 4))]).pixels.shape == (3, 3, 4, 4)
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        cat([KeptPatches(torch.ones(1, 4)), KeptPatches(torch.ones(1, 5))])


def test_a_missing_member_stays_missing() -> None:
    masked = MaskedTokens(torch.ones(4, 3))
    assert to(masked, "meta").places is None
    assert [part.places for part in split(masked, [1, 3])] == [None, None]
    assert take(masked, slice(2)).targets.shape == (2, 3)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.9])
def test_some_of_masked_texts_have_their_own_selected_tokens(share: float) -> None:
    """Places are packed: the row of one sample holds those of others."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 99, (9, 12), generator=generator)
    targets = ids.where(torch.rand(9, 12, generator=generator) < share, NOT_SELECTED)
    masked = MaskedTokens(targets, selected_places(targets, share))
    states = torch.randn(9, 12, 3, generator=generator)

    def pairs(value: MaskedTokens, states: Tensor) -> set[tuple[float, ...]]:
        picked, were = value.selected(states)
        real = were.flatten() != NOT_SELECTED
        return {
            (int(was), *state) for was, state in zip(were.flatten()[real], picked.flatten(0, 1)[real].tolist(), strict=True)
        }

    whole = pairs(masked, states)
    assert len(whole) == int((targets != NOT_SELECTED).sum())
    parts = split(masked, [4, 0, 5])
    assert set.union(*(pairs(part, own) for part, own in zip(parts, states.split([4, 0, 5]), strict=True))) == whole
    assert pairs(cat(parts), states) == whole
    rows = torch.tensor([7, 2])
    assert pairs(take(masked, rows), states[rows]) == pairs(MaskedTokens(targets[rows]), states[rows])


def test_masked_texts_of_other_lengths_are_put_together() -> None:
    long = torch.full((2, 8), NOT_SELECTED)
    long[1, 7] = 5
    short = torch.full((1, 3), NOT_SELECTED)
    short[0, 0] = 6
    whole = cat([MaskedTokens(long, torch.tensor([[15], [NOT_SELECTED]])), MaskedTokens(short)])
    assert whole.targets.shape == (3, 8)
    assert whole.places is not None
    assert whole.selected(torch.arange(24.0).view(3, 8, 1))[0].flatten()[:2].tolist() == [15, 16]
