"""Numbers drawn once per step: a function of seed, step and name, from the distribution that the recipe names."""

from __future__ import annotations

import hashlib
import json
import pickle

import numpy as np
import torch

import vlmdsl
from vlmdsl.ir import Node, draws
from vlmdsl.runtime.draws import generator, sample_draws, step_draws

RECIPE = """
recipe drawn(image: Image, text: Text)
let lam = beta(2, 6)
let other = beta(2, 6)
let coin = uniform(-1, 3)
minimize contrast(image, mix(text, by=where(coin < 1, lam, other)), targets=lam * paired + (1 - lam) * flipped)
"""


def nodes() -> list[Node]:
    return draws(vlmdsl.compile(RECIPE, compiled=False).program)


def test_a_draw_is_a_function_of_seed_step_and_name() -> None:
    first = step_draws(nodes(), seed=1, step=5)
    assert first == step_draws(nodes(), seed=1, step=5)
    assert sorted(first) == ["coin", "lam", "other"]
    assert all(value.shape == () and value.dtype is torch.float32 for value in first.values())
    assert first["lam"] != first["other"]
    assert first["lam"] != step_draws(nodes(), seed=1, step=6)["lam"]
    assert first["lam"] != step_draws(nodes(), seed=2, step=5)["lam"]


def test_draws_follow_their_distribution() -> None:
    drawn_once = nodes()
    steps = [step_draws(drawn_once, seed=0, step=step) for step in range(2000)]
    lam, coin = (torch.stack([drawn[name] for drawn in steps]) for name in ("lam", "coin"))
    assert abs(lam.mean() - 0.25) < 0.01
    assert abs(lam.var() - 2 * 6 / (8**2 * 9)) < 0.002
    assert coin.min() > -1
    assert coin.max() < 3
    assert abs(coin.mean() - 1) < 0.1


MINED = """
recipe mined(image: Image, text: Text)
let s = similarity(image, text)
let wrong = mine(s, along="rows")
minimize mean(score(image, take(text, wrong))) + mean(
  score(image.tokens, take(text, mine(s, along="columns", k=3)), by=tokenmean)
)
"""


def test_what_a_sample_draws_is_a_function_of_seed_epoch_key_and_name() -> None:
    nodes = draws(vlmdsl.compile(MINED, compiled=False).program)
    assert step_draws(nodes, seed=0, step=0) == {}
    first = sample_draws(nodes, 0, 1, ["a", "b", "c"])
    assert {name: value.shape for name, value in first.items()} == {"wrong_uniform": (3,), "uniform": (3, 3)}
    assert all(value.dtype is torch.float32 and (value >= 0).all() and (value < 1).all() for value in first.values())
    again = sample_draws(nodes, 0, 1, ["c", "a"])
    assert all(torch.equal(again[name], first[name][[2, 0]]) for name in first)
    for seed, epoch in ((1, 1), (0, 2)):
        assert not torch.equal(sample_draws(nodes, seed, epoch, ["a", "b", "c"])["uniform"], first["uniform"])
    assert first["uniform"].unique().numel() == 9


def test_a_generator_is_philox_with_the_digest_of_its_purpose_as_key() -> None:
    for purpose in [(0, "order"), ("process", 0, 3, 0), *((number, "view") for number in range(20))]:
        digest = hashlib.blake2b(json.dumps(purpose).encode(), digest_size=16).digest()
        expected = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
        own = generator(*purpose)
        assert pickle.loads(pickle.dumps(own)).integers(2**63) == own.integers(2**63) == expected.integers(2**63)
        assert (own.permutation(9) == expected.permutation(9)).all()
