"""`--passes`: what runs, what is refused, and that the loss is the same."""

from __future__ import annotations

import pytest
import torch

import vlmdsl
from vlmdsl.passes import PASSES, chosen_passes
from vlmdsl.testing.laws import example_features


def test_each_pass_can_be_left_out_but_the_one_that_keeps_a_promise() -> None:
    assert chosen_passes("all") == tuple(name for name, _ in PASSES)
    assert chosen_passes("off") == ("retain",)
    assert chosen_passes("dead, fold") == ("fold", "dead", "retain")


@pytest.mark.parametrize(("choice", "code"), [("fold_twice", "V0601"), ("fold,contrast", "V0606"), ("fuse", "V0606")])
def test_a_choice_that_cannot_run_is_a_diagnostic(choice: str, code: str) -> None:
    with pytest.raises(vlmdsl.DiagnosticError) as caught:
        vlmdsl.emit("clip", passes=choice)
    assert [diagnostic.code for diagnostic in caught.value.diagnostics] == [code]


def test_the_plan_and_the_source_are_those_of_what_runs() -> None:
    assert "ops.contrast(" in vlmdsl.emit("clip")
    assert "ops.contrast(" not in vlmdsl.emit("clip", passes="off")
    assert "contrast" in {row.operation for row in vlmdsl.plan("clip").regions}
    assert "cross_entropy" in {row.operation for row in vlmdsl.plan("clip", passes="off").regions}


@pytest.mark.parametrize("recipe", ["clip", "declip", "laclip_mt", "pyramidclip", "alip", "zerovl"])
@pytest.mark.parametrize("passes", ["off", "fold,share", "fold,share,contrast,dead"])
def test_the_loss_is_the_same(recipe: str, passes: str) -> None:
    whole, some = (vlmdsl.compile(recipe, compiled=False, passes=choice).double() for choice in ("all", passes))
    features = example_features(whole, seed=0, batch=6)
    losses = [objective.eval()(**features).loss.item() for objective in (whole, some)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)
    assert torch.isfinite(torch.tensor(losses)).all()
