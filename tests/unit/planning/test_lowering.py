"""Which operations have a second form, and which form is chosen: by sizes, by budget, by what is asked for a term."""

from __future__ import annotations

import pytest

import vlmdsl
from vlmdsl.api.driver import build
from vlmdsl.planning import schedule_of
from vlmdsl.planning.lowering import LoweringRequest, lowered
from vlmdsl.planning.workload import Workload

TWO_TERMS = """vlo 1
recipe two(image: Image, text: Text, note: Text)
minimize {
  pairs: contrast(image, text)
  sigmoids: sigmoid_contrast(image, note)
}
"""


def in_blocks(recipe: str, batch: int, request: LoweringRequest | None = None, *, world: int = 1) -> list[str]:
    """The operations that run in blocks."""
    program = build(recipe).planned
    schedule = schedule_of(program, Workload(batch, world, 512, "float32", 49, 32), request)
    return [str(node.operation) for node in program.nodes() if node in schedule.chunked]


def test_the_choice_follows_the_matrix_and_the_budget() -> None:
    assert in_blocks("clip", 8192) == []
    assert in_blocks("clip", 16384) == ["contrast"]
    assert in_blocks("clip", 16384, world=4) == [], "each process holds a quarter of the rows"
    assert in_blocks("clip", 1024, LoweringRequest(budget=2**20)) == ["contrast"]


def test_a_sigmoid_loss_and_the_products_that_it_reads_are_chosen_together() -> None:
    assert in_blocks("siglip", 16384) == ["similarity", "sigmoid_loss"]


def test_all_pairs_of_tokens_are_chunked_much_earlier() -> None:
    assert in_blocks("filip", 8) == []
    assert in_blocks("filip", 64) == ["similarity"]


@pytest.mark.parametrize(
    "criterion",
    [
        "mean(sigmoid_loss(s, targets=paired)) + mean(row_mean(s))",
        "mean(sigmoid_loss(s * s, targets=paired))",
        "mean(sigmoid_loss(transpose(s), targets=paired))",
        'mean(hinge(s, along="rows", margin=0.2))',
    ],
)
def test_a_matrix_that_something_else_reads_is_made(criterion: str) -> None:
    recipe = f"vlo 1\nlet s = similarity(image, text)\nminimize {criterion}\n"
    assert in_blocks(recipe, 16384, LoweringRequest("chunked")) == []


def test_a_term_is_chosen_by_name_before_what_is_asked_for_all() -> None:
    assert in_blocks(TWO_TERMS, 64, LoweringRequest.of({"sigmoids": "chunked"})) == ["similarity", "sigmoid_loss"]
    assert in_blocks(TWO_TERMS, 64, LoweringRequest.of({"*": "chunked", "sigmoids": "dense"})) == ["contrast"]
    assert in_blocks(TWO_TERMS, 16384, LoweringRequest.of({"pairs": "dense"})) == ["similarity", "sigmoid_loss"]


@pytest.mark.parametrize(
    ("lowering", "code"), [("tiled", "V0604"), ({"pairs": "kernel"}, "V0604"), ({"itc": "chunked"}, "V0605")]
)
def test_what_is_not_there_is_a_diagnostic(lowering: str | dict[str, str], code: str) -> None:
    with pytest.raises(vlmdsl.DiagnosticError) as caught:
        vlmdsl.plan(TWO_TERMS, lowering=lowering)
    assert [diagnostic.code for diagnostic in caught.value.diagnostics] == [code]


def test_a_term_with_one_form_cannot_be_asked_for_the_other() -> None:
    with pytest.raises(vlmdsl.DiagnosticError, match="it has one form only"):
        vlmdsl.plan("otter", lowering={vlmdsl.plan("otter").regions[-1].terms[0]: "chunked"})


def test_the_plan_says_what_runs_why_and_what_it_costs() -> None:
    program, workload = build("clip").planned, Workload(16384, 1, 512, "float32", 49, 32)
    [dense], [blocks] = (
        lowered(program, workload, schedule_of(program, workload, LoweringRequest(name)).lowerings)
        for name in ("dense", "chunked")
    )
    assert (dense.lowering.name, blocks.lowering.name) == ("dense", "chunked")
    assert blocks.cost.forward + blocks.cost.backward == dense.cost.forward + dense.cost.backward + 1.0
    assert (blocks.cost.stored + blocks.cost.transient) * 8 < dense.cost.stored + dense.cost.transient
    [chosen] = schedule_of(program, workload).lowerings.values()
    assert "exceed" in chosen.reason


def test_a_term_may_be_left_to_the_sizes() -> None:
    request = LoweringRequest.of({"*": "dense", "pairs": "auto"})
    assert not request.fixed
    assert in_blocks(TWO_TERMS, 64, request) == []
    assert in_blocks(TWO_TERMS, 16384, request) == ["contrast"]
