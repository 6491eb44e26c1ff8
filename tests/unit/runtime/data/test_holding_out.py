"""`--val 10%`: a share of the training samples, by their names."""

from __future__ import annotations

import pytest

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.data import open_source
from vlmdsl.runtime.data.holding_out import hold_out, share_held_out
from vlmdsl.runtime.training.assembly import open_sources
from vlmdsl.schema import DataConfig, RunConfig


def test_a_sample_is_on_one_side_and_stays_there() -> None:
    source = open_source("shapes:samples=1000")
    train, held = hold_out(source, 0.1)
    assert len(train) + len(held) == 1000
    assert 70 < len(held) < 130
    assert not set(train.keys) & set(held.keys)
    smaller = hold_out(open_source("shapes:samples=400"), 0.1)[1]
    assert set(smaller.keys) <= set(held.keys)


@pytest.mark.parametrize(("specs", "share"), [(["12.5 %"], 0.125), (["10%", "a.tar"], None), (["110%"], None), ([], None)])
def test_what_is_a_share(specs: list[str], share: float | None) -> None:
    assert share_held_out(specs) == share


def test_a_run_holds_out_a_share() -> None:
    config = RunConfig(data=DataConfig(train=("shapes:samples=100",), val=("20%",)))
    train, held = open_sources(config)
    assert held is not None
    assert len(train) + len(held) == 100
    other = open_sources(config, ("shapes:samples=7",))[1]
    assert other is not None
    assert len(other) == 7


@pytest.mark.parametrize(
    "config", [DataConfig(train=("shapes:samples=2",), val=("0.01%",)), DataConfig(val=("1%",), stream=True)]
)
def test_where_nothing_can_be_held_out(config: DataConfig) -> None:
    with pytest.raises(DiagnosticError) as caught:
        open_sources(RunConfig(data=config))
    assert caught.value.diagnostics[0].code == ("V0837" if config.stream else "V0843")
