"""What is printed of recipes with stages and flows."""

from __future__ import annotations

from pathlib import Path

import pytest

import vlmdsl
from vlmdsl.api.diff import diff
from vlmdsl.api.emit import emit
from vlmdsl.api.plan import dump, plan_flows

RECIPES = Path(__file__).parents[2] / "end_to_end" / "recipes"
STAGES, FLOWS = RECIPES / "two_stages.vlo", RECIPES / "two_flows.vlo"


def test_the_plan_has_the_schedule_of_each_flow() -> None:
    text = plan_flows(FLOWS).to_text()
    pairs, texts = text.split("flow texts (15 % of the steps)")
    assert "flow pairs (85 % of the steps)" in pairs
    assert "vision" in pairs.partition("Schedule")[2].partition("compute")[0]
    assert "vision" not in texts
    flows = plan_flows(STAGES).to_json()["flows"]
    assert [(flow["stage"], flow["flow"], flow["share"]) for flow in flows] == [("warm", "", 1.0), ("main", "", 1.0)]  # type: ignore[attr-defined]


def test_a_stage_with_larger_images_is_planned_for_them() -> None:
    own = {"batch": 128, "dim": 64, "vocabulary": 301, "text_tokens": 32, "samples": 2048}
    words = {"overrides": ["stages.main.model.image_size=64", "model.vocabulary=300"]}
    warm, main = (planned for _, planned in plan_flows(STAGES, **words).flows)
    assert warm.to_json() == vlmdsl.plan(STAGES, stage="warm", image_size=32, image_tokens=16, **own).to_json()
    assert main.to_json() == vlmdsl.plan(STAGES, stage="main", image_size=64, image_tokens=64, **own).to_json()


def test_one_flow_is_planned_by_name_as_a_recipe_of_its_own() -> None:
    assert vlmdsl.plan(FLOWS, flow="pairs").regions == vlmdsl.plan("clip").regions
    with pytest.raises(vlmdsl.DiagnosticError) as caught:
        vlmdsl.plan(FLOWS)
    assert [fault.code for fault in caught.value.diagnostics] == ["V0221"]


def test_the_source_and_the_graph_of_each_flow_stand_under_its_title() -> None:
    for printed in (emit(STAGES), dump(STAGES, "ir")):
        assert printed.index("stage warm") < printed.index("stage main from warm")
        assert printed.count("token_loss") >= 1
    assert emit(STAGES).count("def objective(") == 2


def test_the_page_explains_each_stage() -> None:
    page = vlmdsl.explain(STAGES)
    headings = [heading for heading, _ in page.sections]
    assert "stage warm: Formula" in headings
    assert "stage main from warm: Formula" in headings
    assert page.latex.count("\\begin{aligned}") == 2
    assert [part["from"] for part in page.facts["flows"]] == ["", "warm"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("word", ["stage", "flow"])
def test_the_statements_have_pages_whose_examples_are_right(word: str) -> None:
    example = vlmdsl.explain(word).facts["example"]
    assert vlmdsl.check(str(example)) == []


def test_a_difference_is_shown_under_the_flow_that_has_it(tmp_path: Path) -> None:
    other = tmp_path / "other.vlo"
    other.write_text(FLOWS.read_text().replace("random(15%)", "random(30%)"))
    assert diff(FLOWS, FLOWS) == ""
    assert "+  text'_i is text_i, with 30 % of its tokens selected" in diff(FLOWS, other)
    other.write_text(FLOWS.read_text().replace("85%", "75%").replace("15% {", "25% {"))
    assert "+flow pairs (75 % of the steps)" in diff(FLOWS, other)
    assert "program" not in diff(FLOWS, other)
