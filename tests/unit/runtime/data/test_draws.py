"""Numbers drawn once a step: a function of seed, step and name, from the distribution that the recipe names."""

from __future__ import annotations

import torch

import vlmdsl
from vlmdsl.ir import Node, draws
from vlmdsl.runtime.draws import step_draws

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
    found = [step_draws(drawn_once, seed=0, step=step) for step in range(2000)]
    lam, coin = (torch.stack([drawn[name] for drawn in found]) for name in ("lam", "coin"))
    assert abs(lam.mean() - 0.25) < 0.01
    assert abs(lam.var() - 2 * 6 / (8**2 * 9)) < 0.002
    assert coin.min() > -1
    assert coin.max() < 3
    assert abs(coin.mean() - 1) < 0.1
