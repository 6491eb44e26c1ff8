"""Which patches are kept: as in the authors' code, given their noise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vlmdsl.runtime.modules.towers.blocks import keep_tokens
from vlmdsl.runtime.values import kept

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize(
    "oracle", ["flip-masking", "flip-masking-75", "flip-masking-bias", "mae-masking", "segclip-masking"]
)
def test_the_same_patches_in_the_same_order(oracle: str) -> None:
    share = json.loads((DATA / f"{oracle}.json").read_text())["hyperparameters"]["mask_ratio"]
    with np.load(DATA / f"{oracle}.npz") as arrays:
        noise = arrays["noise"] + (arrays["bias"] if "bias" in arrays.files else 0)
        if oracle == "segclip-masking":
            noise[:, 0] = -1  # the class token, which theirs keeps by its noise
        keep = np.stack([kept(row, share) for row in noise])
        tokens = keep_tokens(torch.from_numpy(arrays["x"]), torch.from_numpy(keep))
        np.testing.assert_array_equal(tokens.numpy(), arrays["out_x_kept"])
        dropped = np.ones(noise.shape)
        np.put_along_axis(dropped, keep, 0, axis=1)
        np.testing.assert_array_equal(dropped, arrays["out_mask"])
        if "out_ids_restore" in arrays.files:
            np.testing.assert_array_equal(arrays["out_ids_restore"].argsort(axis=1)[:, : keep.shape[1]], keep)


@pytest.mark.parametrize(("patches", "share"), [(15, 0.75), (49, 0.6), (10, 0.8), (196, 0.75), (7, 0.9)])
def test_what_does_not_divide_is_dropped(patches: int, share: float) -> None:
    """int(L (1 - r)) patches are kept, none of seven if nine of ten are to go."""
    noise = np.random.default_rng(0).random(patches)
    keep = kept(noise, share)
    assert len(keep) == int(patches * (1 - share))
    assert keep.tolist() == sorted(range(patches), key=lambda place: noise[place])[: len(keep)]
