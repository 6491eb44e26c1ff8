"""Which flow each step is of."""

from __future__ import annotations

import pytest

from vlmdsl.runtime.data import Mixture, seed_of

SHARES = {"pairs": 0.7, "images": 0.15, "texts": 0.15}


def test_the_flow_of_a_step_is_a_function_of_seed_stage_and_step() -> None:
    steps = range(0, 3000, 7)
    flows = [Mixture(SHARES, 0, "a").flow(step) for step in steps]
    again = Mixture(SHARES, 0, "a")
    assert [again.flow(step) for step in reversed(steps)] == flows[::-1]
    assert [Mixture(SHARES, 1, "a").flow(step) for step in steps] != flows
    assert [Mixture(SHARES, 0, "b").flow(step) for step in steps] != flows


@pytest.mark.parametrize("step", [0, 1, 1023, 1024, 1025, 2500])
def test_the_steps_before_a_step_are_counted_by_flow(step: int) -> None:
    mixture = Mixture(SHARES, 0, "")
    flows = [mixture.flow(each) for each in range(step)]
    assert mixture.before(step) == {name: flows.count(name) for name in SHARES}


def test_flows_have_about_their_share() -> None:
    counts = Mixture(SHARES, 0, "").before(20_000)
    for name, share in SHARES.items():
        assert counts[name] / 20_000 == pytest.approx(share, abs=0.01)


def test_flows_and_stages_have_orders_of_their_own_and_a_recipe_without_them_that_of_the_run() -> None:
    assert seed_of(7, "", "") == 7
    assert len({seed_of(7, stage, flow) for stage in ("", "a", "b") for flow in ("", "c", "d")}) == 9
