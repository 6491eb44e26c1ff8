"""Negatives are drawn with the probabilities of the authors' code: every draw of theirs is one of ours, and none besides."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from oracles.cases import DATA
from vlmdsl.backends.torch import ops
from vlmdsl.backends.torch.values import Memory

STEP = 1e-9
"""How far beside the end of an entry's part of [0, 1) a number is drawn."""


@pytest.mark.parametrize("name", ["albef-itm-alpha0", "albef-itc-tempclamp", "blip-itc", "blip-itm", "blip-itm-alpha0"])
@pytest.mark.parametrize("side", ["t2i", "i2t"])
def test_each_number_draws_the_sample_in_whose_part_it_lies(name: str, side: str) -> None:
    stated = json.loads((DATA / f"{name}.json").read_text())["hyperparameters"]
    floor = stated.get("extra_weight", 1e-4 if name.startswith("blip") else 0.0)
    with np.load(DATA / f"{name}.npz") as arrays:
        tensors = {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}
    query, key = ("text_raw", "image_raw_m") if side == "t2i" else ("image_raw", "text_raw_m")
    x, y = (F.normalize(tensors[stream], dim=-1) for stream in (query, key))
    logits = ops.divide(ops.similarity(x, y, by="dot"), tensors["temp"].clamp(0.001, 0.5))
    weights = tensors[f"out_w_{side}"]
    ends = weights.cumsum(dim=1) / weights.sum(dim=1, keepdim=True)
    for sample in range(len(weights)):
        parts = [place for place in range(len(weights)) if weights[sample, place] > 1e-6 * weights[sample].sum()]
        assert sample not in parts
        for place in parts:
            start = ends[sample, place - 1] if place else torch.zeros((), dtype=torch.float64)
            for level in (start + STEP, (start + ends[sample, place]) / 2, ends[sample, place] - STEP):
                assert _drawn(logits, level, floor)[sample] == place


@pytest.mark.parametrize("name", ["fiber-itc", "fiber-itc-tempclamp"])
@pytest.mark.parametrize("side", ["t2i", "i2t"])
def test_of_a_queue_the_entries_that_were_filled_are_drawn(name: str, side: str) -> None:
    """The pool of FIBER: the batch, then the filled part of its queue; each number draws the entry in whose part it lies."""
    with np.load(DATA / f"{name}.npz") as arrays:
        tensors = {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}
    query, key = ("text", "image") if side == "t2i" else ("image", "text")
    x, y = (F.normalize(tensors[f"{stream}_raw"], dim=-1) for stream in (query, key))
    memory = Memory(tensors[f"{key}_queue"].T, tensors["queue_total"])
    tau = tensors["temp"].clamp(0.001, 1.0)
    logits = ops.unite(ops.divide(ops.similarity(x, y, by="dot"), tau), ops.divide(ops.similarity(x, memory, by="dot"), tau))
    weights = tensors[f"out_w_{side}"]
    weights[:, : len(x)].fill_diagonal_(0.0)  # theirs gives the pair 1e-9 as well
    shares = weights / weights.sum(dim=1, keepdim=True)
    for sample, place in (shares > 1e-6).nonzero().tolist():
        middle = shares[sample].cumsum(dim=0)[place] - shares[sample, place] / 2
        assert _drawn(logits, middle, 1e-9)[sample] == place


def _drawn(logits: ops.Similarities, level: Tensor, floor: float) -> Tensor:
    picks = ops.mine(logits, level.expand(len(logits.rows)), "rows", floor)
    assert picks.real.all()
    return picks.indices[:, 0]
