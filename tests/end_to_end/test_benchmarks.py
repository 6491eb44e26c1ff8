"""The studies of `benchmarks/` speak of recipes, hyper-parameters and terms that exist."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import vlmdsl
from vlmdsl.api.comparison import measures_of
from vlmdsl.api.driver import build, build_flows
from vlmdsl.ir.digest import digest
from vlmdsl.runtime.data import requirements
from vlmdsl.runtime.modules.towers import vit
from vlmdsl.schema import RunConfig

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)  # as if it were run: scripts may take things from their neighbours
        spec.loader.exec_module(module)
    return module


def test_the_scales_of_the_evidence_fit_their_recipes() -> None:
    evidence = load("evidence")
    for recipe, scale in evidence.SCALES.items():
        flows = build_flows(recipe, knobs=scale.knobs)
        assert set(scale.overfits or ()) <= {term.name for built in flows for term in built.written.terms}, recipe
        assert scale.stages.keys() | scale.scenes_of.keys() <= {built.stage.name for built in flows}, recipe
        assert scale.asked_of.keys() | scale.not_asked.keys() | scale.not_by_heart.keys() <= evidence.KINDS.keys(), recipe
        chosen = scale.knobs or scale.settings or scale.columns or scale.steps or scale.scenes != evidence.Scale.scenes
        assert bool(chosen) >= bool(scale.tried), recipe
        assert bool(chosen) == bool(scale.because), recipe
        assert (scale.overfits is not None) == bool(scale.aim), recipe
        fields = {need.field for built in flows for need in requirements(built.written)}
        assert scale.columns.keys() | scale.drawings.keys() | scale.pair_columns.keys() <= fields, recipe
        assert {before.recipe for before in scale.before} <= evidence.SCALES.keys(), recipe
        assert scale.measures_drawings in {"", *evidence.KINDS}, recipe
        assert scale.steps.keys() <= {"overfit", "learns", "openmoji", "text alone"}, recipe


def test_an_entry_is_known_by_what_it_was_made_of() -> None:
    evidence = load("evidence")
    steps = evidence.Steps(1, 2, 3)
    assert evidence.identity("clip", steps).keys() == {"digest", "modules", "knobs", "steps"}
    lit = evidence.identity("lit", steps)
    assert lit["steps"] == {"overfit": evidence.SCALES["lit"].steps["overfit"], "learns": 2, "openmoji": 3}
    assert evidence.identity("slip", steps)["records"] == evidence.SCALES["slip"].records > 1
    assert evidence.identity("pali", steps)["before"][0]["recipe"] == "cappa"
    clippo = evidence.identity("clippo", steps)
    assert clippo["data"] == {"scenes": "shapes:objects=2", "columns": {"text": "caption"}}


def test_pairs_are_run_again_only_beside_what_is_of_the_same_recipe_and_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = load("evidence")
    steps, result = evidence.Steps(5, 2, 3), {"passed": True, "statement": "5 steps"}
    monkeypatch.setattr(evidence, "_overfit", lambda *_: result)
    entry = {**evidence.identity("clip", evidence.Steps(1, 2, 3)), "versions": evidence.versions(), "seconds": 9.0}
    again = evidence.with_pairs_again(entry, "clip", steps)
    assert again["overfit"] == result
    assert again["steps"] == {"overfit": 5, "learns": 2, "openmoji": 3}
    assert again["seconds"] >= 9.0
    with pytest.raises(SystemExit, match="all of it"):
        evidence.with_pairs_again(entry, "clip", evidence.Steps(5, 4, 3))


def test_an_entry_changes_with_how_a_tower_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = load("evidence")
    before = [evidence.identity(recipe, evidence.Steps(1, 2, 3))["modules"] for recipe in ("mae", "groupvit", "mae")]
    assert before[0] == before[2] != before[1]
    deeper = {**vit.PRESETS, "tiny_patch4": replace(vit.PRESETS["tiny_patch4"], depth=3)}
    monkeypatch.setattr(vit, "PRESETS", deeper)
    after = [evidence.identity(recipe, evidence.Steps(1, 2, 3))["modules"] for recipe in ("mae", "groupvit")]
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_the_contenders_of_every_effect_are_correct() -> None:
    for name, effect in load("effects").EFFECTS.items():
        built = [build(one.recipe, expression=one.expression, knobs=one.knobs) for one in effect.contenders]
        assert len({digest(each.written) for each in built}) == len(built) > 1, f"{name} compares a recipe with itself"
        assert all(each.written.terms for each in built), name


@pytest.mark.parametrize(
    ("trained", "untrained", "passed"), [(0.3, 0.0025, True), (0.04, 0.0025, False), (0.3, 0.29, False)]
)
def test_retrieval_must_be_far_above_chance_and_above_the_untrained_model(
    trained: float, untrained: float, passed: bool
) -> None:
    share = {"trained": trained, "untrained": untrained, "chance": 0.0025}
    bounds = load("bounds")
    measures = bounds.shown(["samples", "retrieval.image_to_text.R@1", "nearest_neighbours.top-1"])
    assert measures.keys() == {"retrieval.image_to_text.R@1", "nearest_neighbours.top-1"}
    assert bounds.aimed(measures) == ["retrieval.image_to_text.R@1"]
    assert measures["retrieval.image_to_text.R@1"].bound.holds(share, 400) == passed


@pytest.mark.parametrize(
    ("bound", "passed"),
    [
        ({"at_least": 0.4}, True),
        ({"at_least": 0.41}, False),
        ({"at_most": 0.39}, False),
        ({"times": {"copying": 1.9}}, True),
        ({"times": {"copying": 2.1}}, False),
        ({"above": {"copying": 0.19}}, True),
        ({"above": {"copying": 0.21}}, False),
        ({"below": ("copying",)}, False),
        ({"times": {"not measured": 0.1}}, False),
        ({"below": ("not measured",)}, False),
    ],
)
def test_bounds_are_limits_beside_what_needs_no_learning(bound: dict[str, Any], passed: bool) -> None:
    limits = load("bounds").Bound(**bound)
    assert limits.holds({"trained": 0.4, "untrained": 0.0, "chance": 0.1, "copying": 0.2}, 100) == passed
    assert limits.words()


def test_measures_are_shown_beside_all_their_baselines() -> None:
    group = {"error": 0.4, "chance": {"error": 1.0}, "untrained": {"error": 9.0}, "baselines": {"copying": {"error": 0.7}}}
    evaluation = {"samples": 8, "stages": {"pixels": {"samples": 8, "reconstruction": {"images": 8, **group}}}}
    (name,) = measures = load("bounds").shown(measures_of(evaluation))
    assert name == "stages.pixels.reconstruction.error"
    shares = load("evidence")._beside_baselines(evaluation, name)
    assert shares == {"trained": 0.4, "untrained": 9.0, "chance": 1.0, "copying": 0.7}
    assert measures[name].text(shares).startswith("stages pixels: error of dropped patches")
    assert "40.0 % (untrained 900.0 %, chance 100.0 %, copying 70.0 %)" in measures[name].text(shares)


def test_a_kind_of_measure_may_be_asked_of_the_stage_that_is_for_it() -> None:
    bounds = load("bounds")
    names = ["captions.counts", "reconstruction.error", "stages.writes.captions.counts", "stages.first.captions.counts"]
    measures = bounds.shown(names)
    assert bounds.aimed(measures) == names
    assert bounds.aimed(measures, {"captions": "writes"}) == ["reconstruction.error", "stages.writes.captions.counts"]
    assert bounds.aimed(measures, not_asked=["captions"]) == ["reconstruction.error"]
    assert bounds.aimed(measures, {"captions": "first"}, ["dropped patches"]) == ["stages.first.captions.counts"]


def test_what_is_learned_by_heart_is_named_as_in_an_evaluation() -> None:
    evidence = load("evidence")

    def attempt(stage: str, measure: str) -> Any:
        return evidence.Attempt(stage, 10, 64, {}, {measure: 0.95}, "")

    by_heart = evidence._by_heart([attempt("writes", "captions.token accuracy"), attempt("names", "grounding.accuracy")])
    assert by_heart == {"stages.writes.captions.token accuracy": 0.95, "grounding.accuracy": 0.95}
    bounds = load("bounds")
    measures = bounds.shown(by_heart)
    assert [measures[name].title for name in by_heart] == [
        "stages writes: captions, next tokens given the true ones before them",
        "names of boxes, accuracy",
    ]
    assert bounds.aimed(measures, not_asked=["captions"]) == ["grounding.accuracy"]


def test_settings_are_chosen_and_reported_on_different_scenes() -> None:
    evidence = load("evidence")
    scenes = evidence.held_out_scenes
    chosen = evidence.Scale(scenes="shapes:label=colour", tried=3)
    assert scenes(chosen, choosing=True) == {"data.val": ("shapes:label=colour,seed=0",)}
    assert scenes(chosen, choosing=False) == {"data.val": ("shapes:label=colour,seed=100",)}
    more = evidence.Scale(settings={"data.val": ("shapes",)}, tried=3)
    assert scenes(more, choosing=False) == {"data.val": ("shapes:seed=100",)}
    assert scenes(evidence.Scale(), choosing=False) == {}
    assert scenes(evidence.Scale(tried=3, reported=7), choosing=False) == {"data.val": ("shapes:seed=7",)}


def test_two_commits_are_distinguished_by_one_bit() -> None:
    differences = load("compare_commits").differences
    before = {"weight": torch.tensor([1.0, 2.0]), "queue": torch.zeros(2)}
    assert differences(before, {name: value.clone() for name, value in before.items()}) == []
    flipped = {**before, "weight": torch.nextafter(before["weight"], torch.tensor(3.0))}
    assert differences(before, flipped) == ["weight: differs by 1.2e-07"]
    renamed = {"weight": before["weight"], "memory": torch.zeros(3)}
    assert differences(before, renamed) == ["only after: memory", "only before: queue"]


SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("*.py") if "def main(" in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_says_what_it_measures(name: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    script = load(name)
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 0
    summary = (script.__doc__ or "").partition("\n")[0]
    assert len(summary) > 40
    assert " ".join(summary.split()[:5]) in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("layout", ["table", "folder", "joined-uuid", "stream"])
def test_the_memory_of_sources_is_measured_on_data_that_is_read(tmp_path: Path, layout: str) -> None:
    memory = load("source_memory")
    samples = {"stream": 160_000}.get(layout, 100)
    figures = memory.measure(layout, memory.LAYOUTS[layout](tmp_path, samples), samples)
    assert figures["samples"] == samples


LIMITS = {
    "clip-8192": {"memory_to_dense": 1 / 8, "time_to_dense": 1.3},
    "siglip-8192": {"memory_to_dense": 1 / 8, "time_to_dense": 1.3},
    "siglip-4096": {"memory_to_usual_compiled": 1.0, "time_to_usual_eager": 1.0},
    "tokenmax-256": {"memory_to_usual_eager": 0.1, "time_to_usual_eager": 1.0},
}
LOWERINGS = json.loads((BENCHMARKS / "results" / "lowerings.json").read_text("utf-8"))["results"]


@pytest.mark.parametrize("result", LOWERINGS, ids=lambda result: result["case"])
def test_the_chunked_form_is_measured_within_its_limits(result: dict[str, Any]) -> None:
    """Memory and time beside the dense form, or beside the loss as it is usually written."""
    row = result["variants"]["chunked"]
    for name, limit in LIMITS[result["case"]].items():
        ratio = row[name][0] if name.startswith("time") else row[name]
        assert ratio <= limit, name


def test_token_losses_without_logits_need_less_memory_and_no_more_time() -> None:
    """A whole step of a model, as it was measured by `benchmarks/predicted_tokens.py`."""
    result = json.loads((BENCHMARKS / "results" / "predicted_tokens.json").read_text("utf-8"))
    for case in result["cases"]:
        assert case["time_ratio"] <= 1.03, case
        assert case["memory_ratio"] <= (0.15 if case["predicted"] == "all" else 1.03), case


def test_a_step_in_micro_batches_is_measured_within_its_limits() -> None:
    """Beyond the second forward pass at most a tenth of the plain step; no more memory than the hand-written version."""
    result = json.loads((BENCHMARKS / "results" / "micro_batches.json").read_text("utf-8"))
    peaks = {name: row["peak_mib"] for name, row in result["variants"].items()}
    assert (result["samples"], result["micro"]) == (1024, 64)
    assert result["overhead"] <= 0.1
    assert peaks["cached"] <= min(peaks["hand-written"], 0.1 * peaks["plain"])


@pytest.mark.parametrize(("recipe", "queue"), [("clip", 0), ("siglip", 0), ("filip", 0), ("otter", 0), ("declip", 64)])
def test_hand_written_losses_are_those_of_the_recipes(recipe: str, queue: int) -> None:
    """What a plan is compared with computes the same: loss and gradients."""
    hand_written, plan_memory = load("hand_written"), load("plan_memory")
    sizes = {"size": queue} if queue else {}
    objective = vlmdsl.compile(recipe, compiled=False, **sizes).eval()
    features = plan_memory.features(objective, plan_memory.Case(recipe, 8, dim=16, vocabulary=50, knobs=sizes))
    if "image_mask" in features:
        features["image_mask"].fill_(True)
    numbers = hand_written.learned(recipe, 16, queue)
    loss = objective(**features).loss
    if queue:
        numbers["queue"] = objective.state.read()["texts"].values.clone()
    by_hand = hand_written.HAND_WRITTEN[recipe](numbers, **features)
    torch.testing.assert_close(by_hand, loss, rtol=1e-5, atol=1e-5)
    leaves = [value for value in features.values() if value.requires_grad]
    ours, theirs = (torch.autograd.grad(each, leaves, allow_unused=True) for each in (loss, by_hand))
    for one, other in zip(ours, theirs, strict=True):
        assert one is other is None or torch.allclose(one, other, rtol=1e-4, atol=1e-6)


def test_gradient_norms_of_terms_cost_below_two_percent_of_a_run() -> None:
    """At the default of `train.term_gradients_every`, with what `benchmarks/term_gradients.py` has measured."""
    results = json.loads((BENCHMARKS / "results" / "term_gradients.json").read_text("utf-8"))
    assert results["every"] == RunConfig().train.term_gradients_every
    shares = {recipe: row["measurement_in_steps"] / results["every"] for recipe, row in results["recipes"].items()}
    assert max(shares.values()) < 0.02, shares
