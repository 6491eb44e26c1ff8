"""Plans: numbers that can be worked out by hand, and a text that says them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from unit.passes.programs import Build, alip, clip, filip, shared, siglip
from vlmdsl.api.driver import build
from vlmdsl.backends.plan import Plan, make_plan
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.ir import Program
from vlmdsl.passes import optimise
from vlmdsl.source import SourceMap, SourceText, Span

ROOT = Path(__file__).resolve().parents[4]


def planned(program: Program, **sizes: object) -> Plan:
    return make_plan(optimise(program), **sizes)


def test_clip_on_one_process_is_three_products_and_one_matrix() -> None:
    plan = planned(clip(), batch=1000, dim=64)
    (row,) = plan.regions
    assert (row.units_forward, row.units_backward) == (1, 2)
    assert row.flops_forward == 2 * 1000 * 1000 * 64
    assert plan.flops == 3 * row.flops_forward
    matrix, features = 4 * 1000 * 1000, 4 * 1000 * 64
    assert row.stored == matrix
    assert plan.stored == matrix + 2 * features
    assert plan.gradients == plan.features == 2 * features
    assert plan.peak == plan.stored + matrix + features
    assert plan.received == 0
    assert row.collectives == ()
    assert row.lowering == "dense"
    assert set(row.rejected) == {"chunked", "kernel"}


@pytest.mark.parametrize(("block", "leaving"), [(0, 8), (4, 0), (6, 4), (12, 8)])
def test_only_samples_whose_partner_is_another_processs_travel(block: int, leaving: int) -> None:
    """Of 32 samples on 4 processes, blocks of 6 take 10 to 13 of the second to others, blocks of 12 all of them."""
    build = Build()
    mixed = build.mix(build.pooled("text", unit=False), build.constant(0.3), **({"block": block} if block else {}))
    matrix = build.similarity(build.pooled("image", "Image"), build.normalize(mixed))
    plan = planned(build.program("mixed", loss=build.both_ways(matrix, build.paired())), batch=32, world=4, dim=64)
    received = [part.received for row in plan.regions for part in row.collectives if part.kind == "all-to-all"]
    assert received == [leaving * 64 * 4] * (2 if leaving else 0)


def test_what_is_mined_is_exchanged_and_not_the_batch() -> None:
    """Of 32 samples on 4 processes each receives 8 picked ones, 3 in 4 of them of others, and 3 blocks of the matrix."""
    recipe = 'let n = mine(similarity(image, text), along="columns", k=2)\n'
    recipe += "minimize mean(score(take(image, n), text.tokens, by=tokenmean))"
    plan = make_plan(build(recipe).planned, batch=32, world=4, dim=64)
    received = {
        part.what: part.received for row in plan.regions for part in row.collectives if row.operation != "similarity"
    }
    assert received == {
        "the matrix, transposed": 3 * 8 * 8 * 4,
        "which samples are picked": 32 * 2 * 8 * 3 // 4,
        "the picked samples": 8 * 2 * 64 * 4 * 3 // 4,
        "their gradient": 8 * 2 * 64 * 4 * 3 // 4,
    }
    assert next(row.stored for row in plan.regions if row.operation == "fetch") == 8 * 2 * 64 * 4


def test_picked_samples_are_kept_as_they_are_fetched() -> None:
    """Of 64 samples on 4 processes each fetches the 32 tokens of 16 texts: [b, L, W], not those of the batch."""
    recipe = 'let n = mine(similarity(image, text), along="rows")\nminimize matched(text | image, take(text, n) | image)'
    plan = make_plan(build(recipe).planned, batch=64, world=4, dim=8)
    (fetch,) = [row for row in plan.regions if row.operation == "fetch"]
    assert (
        fetch.stored
        == 16 * 32 * 8 * 4
        == plan.stored - plan.features - sum(row.stored for row in plan.regions if row is not fetch)
    )
    assert "similarity matrices and picked samples" in plan.to_text()
    assert "picked samples" not in make_plan(build("clip").planned).to_text()


def test_half_of_the_features_travel_and_the_statistics() -> None:
    plan = planned(clip(), batch=800, world=4, dim=64, dtype="bfloat16")
    received = {collective.kind: collective.received for collective in plan.regions[0].collectives}
    features = 800 * 64 * 2 * 3 // 4
    assert received == {"all-gather": features, "reduce-scatter": features, "all-reduce": 2 * 4 * 800 * 4 * 3 // 4}
    assert plan.hand_written is not None
    assert plan.hand_written.received == 4 * features
    assert plan.hand_written.units == 2 * plan.units
    assert plan.regions[0].stored == 200 * 800 * 2
    assert plan.features == 2 * 200 * 64 * 2 + 800 * 64 * 2, "the own vectors, and those gathered of one side"


def test_a_frozen_side_needs_no_product_and_sends_no_gradient_back() -> None:
    build = Build()
    matrix = build.similarity(build.pooled("image", "Image"), build.pooled("text", frozen=True))
    plan = planned(build.program("locked", loss=build.both_ways(matrix, build.paired())), batch=16, world=2)
    assert plan.regions[0].units_backward == 1
    assert [collective.kind for collective in plan.regions[0].collectives] == ["all-gather", "all-reduce"]
    assert [(call.module, call.gradient) for call in plan.calls] == [("vision", True), ("language", False)]


def test_a_direction_alone_joins_no_statistics() -> None:
    build = Build()
    matrix = build.similarity(build.pooled("image", "Image"), build.pooled("text"))
    loss = build.mean(build.cross_entropy(matrix, build.paired()))
    kinds = [c.kind for c in planned(build.program("rows", loss=loss), batch=16, world=2).regions[0].collectives]
    assert kinds == ["all-gather", "reduce-scatter"]


def test_tokens_cost_a_unit_for_each_pair_of_tokens() -> None:
    plan = planned(filip(), batch=32, image_tokens=5, text_tokens=3)
    assert plan.regions[0].units_forward == 15
    assert plan.regions[0].units_backward == 30
    assert plan.hand_written is not None
    assert plan.hand_written.units == 45


def test_streams_of_one_tower_are_one_call() -> None:
    calls = planned(alip(), batch=64, world=2).calls
    assert [(call.module, call.values, call.samples) for call in calls] == [
        ("vision", ("image",), 32),
        ("language", ("text", "caption"), 64),
    ]


def test_a_shared_matrix_is_paid_once_and_its_readers_are_named_with_their_lines() -> None:
    program = shared()
    text = SourceText("two.vlo", "vlo 1\nfirst\nsecond\n")
    sources = SourceMap()
    sources.add(text)
    for term, start in zip(program.terms, (6, 12), strict=True):
        program.graph.answer_for(term.node, [Span("two.vlo", start, start + 4)])
    plan = planned(program, batch=64, sources=sources)
    assert plan.units == 3
    (row,) = [row for row in plan.shared if row.value == "dot of image and text"]
    assert row.readers == ("pairs: contrast", "classes: contrast")
    assert row.lines == ("two.vlo:2", "two.vlo:3")


def test_readers_of_a_stream_are_those_of_what_is_made_of_it() -> None:
    """What is done to features sample by sample (a stopped gradient, a gate) reads a stream for its own reader."""
    plan = make_plan(build("moco").planned)
    (row,) = [row for row in plan.shared if row.value.endswith("_teacher, encoded")]
    assert row.readers == ("score", "enqueue")


def test_every_criterion_reads_its_matrix() -> None:
    program = build("mean(row_sum(softplus(similarity(image, text)))) - mean(score(image, text))").planned
    assert "loss: row sum" in [region.name for region in make_plan(program).regions]


def test_behind_a_head_features_are_as_long_as_it_gives() -> None:
    """MoCo's keys are of 128 numbers, whatever the tower's are of; MoCo v3's of 256, by hand too."""
    plan = make_plan(build("moco", knobs={"size": 1000}).planned, batch=100, dim=512)
    assert plan.state[0].size == 4 * 1000 * 128 + 8, "and how many entered, as an integer"
    assert plan.flops == 2 * 2 * 100 * 1000 * 128
    assert plan.shared[0].readers[0] == "contrast: dot of image and keys" == plan.regions[0].name
    plan = make_plan(build("moco_v3").planned, batch=100, dim=512)
    assert plan.hand_written is not None
    assert plan.hand_written.flops == 4 * 2 * 100 * 100 * 256 == plan.flops, "rows against a teacher: one product each"


@pytest.mark.parametrize("recipe", ["moco", "unicl"])
def test_what_has_no_usual_form_is_not_compared_with_one(recipe: str) -> None:
    assert make_plan(build(recipe).planned).hand_written is None


def test_a_gradient_that_is_stopped_is_not_counted() -> None:
    """Where texts are stopped, images alone have a gradient."""
    learning = make_plan(build("contrast(image, text)").planned, batch=64, dim=32)
    stopped = make_plan(build("contrast(image, stop(text))").planned, batch=64, dim=32)
    assert learning.gradients == 2 * stopped.gradients == 2 * 64 * 32 * 4


MEASURED = json.loads((ROOT / "benchmarks" / "results" / "plan_memory.json").read_text())["cases"]


def names(case: dict[str, Any]) -> str:
    return f"{case['recipe']}-{case['batch']}-{case['lowering']}"


def plan_of(case: dict[str, Any]) -> Plan:
    sizes = {name: case[name] for name in ("batch", "dim", "vocabulary")}
    return make_plan(build(case["recipe"], knobs=case["knobs"]).planned, lowering=case["lowering"], **sizes)


@pytest.mark.parametrize("case", MEASURED, ids=names)
def test_the_peak_is_near_what_was_measured(case: dict[str, Any]) -> None:
    """`benchmarks/plan_memory.py` measures; a change of the formulas must not leave the measurements."""
    assert plan_of(case).peak / 2**20 == pytest.approx(case["measured_mib"], rel=0.15)


@pytest.mark.parametrize("case", [case for case in MEASURED if "hand_written" in case], ids=names)
def test_the_hand_written_peak_is_near_what_was_measured(case: dict[str, Any]) -> None:
    by_hand = plan_of(case).hand_written
    assert by_hand is not None
    assert by_hand.peak / 2**20 == pytest.approx(case["hand_written"]["measured_mib"], rel=0.15)


def test_the_hand_written_loss_is_measured_at_three_sizes_of_each_recipe() -> None:
    sizes = {(case["recipe"], case["batch"]) for case in MEASURED if "hand_written" in case}
    for recipe in ("clip", "siglip", "filip", "declip", "otter"):
        assert len([size for name, size in sizes if name == recipe]) >= 3


def test_what_is_not_a_region_says_so() -> None:
    plan = planned(siglip(), batch=64)
    assert [row.operation for row in plan.regions] == ["similarity", "sigmoid_loss"]
    assert "not a contrastive region" in plan.regions[1].reason


def test_text_and_json_say_the_same_numbers() -> None:
    plan = planned(clip(), batch=4096, world=8, dtype="bfloat16")
    text = plan.to_text()
    assert "batch 4,096 (512 per process)" in text
    assert "1 + 2" in text
    assert "4 MiB" in text
    assert "not implemented in this version" in text
    data = json.loads(json.dumps(plan.to_json()))
    assert data["regions"][0]["stored"] == 4 * 2**20
    assert Plan.model_validate(data) == plan


@pytest.mark.parametrize(
    ("sizes", "code", "words"),
    [
        ({"batch": 100, "world": 3}, "V0602", "99 or 102"),
        ({"batch": 0}, "V0602", "at least 1"),
        ({"dtype": "int8"}, "V0603", "bfloat16"),
    ],
)
def test_impossible_sizes_are_diagnosed(sizes: dict[str, object], code: str, words: str) -> None:
    with pytest.raises(DiagnosticError) as caught:
        planned(clip(), **sizes)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == code
    assert words in diagnostic.message + " ".join(diagnostic.help)
