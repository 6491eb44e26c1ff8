"""Runs of several stages and flows: what they begin with, where they resume, and which flow each step is of."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.utils import counters

import vlmdsl
from vlmdsl.runtime.data import Mixture
from vlmdsl.runtime.tracking.metrics import SPEED
from vlmdsl.runtime.training.checkpoint import stage_of

RECIPES = Path(__file__).parent / "recipes"
STAGES, FLOWS = RECIPES / "two_stages.vlo", RECIPES / "two_flows.vlo"
SETTINGS: dict[str, object] = {
    "train.batch": 8,
    "train.compile": False,
    "tracking.report": False,
    "train.log_every": 1,
    "train.checkpoint_every": 1,
    "train.keep": 20,
    "evaluation.limit": 16,
}
WHOLE = "step-00000005"


def train(recipe: Path | None, out: Path, *, resume: Path | None = None, **settings: object) -> vlmdsl.RunResult:
    if resume:
        return vlmdsl.train(resume=resume)
    own = {"stages.main.train.steps": 3} if recipe == STAGES else {"train.seed": 6}
    steps = 2 if recipe == STAGES else 5  # with the seed, both flows have some of them
    return vlmdsl.train(recipe, data=["shapes:samples=40"], steps=steps, out=out, settings={**SETTINGS, **own, **settings})


def tensors(run: Path, step: str = WHOLE) -> dict[str, torch.Tensor]:
    folder = run / "checkpoints" / step
    return load_file(folder / "model.safetensors") | load_file(folder / "optimizer.safetensors")


def assert_same(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def resumed_from(run: Path, copy: Path, step: int) -> Path:
    """A copy of a run as it was after `step` steps, trained to its end."""
    shutil.copytree(run, copy)
    for checkpoint in (copy / "checkpoints").iterdir():
        if int(checkpoint.name.removeprefix("step-")) > step:
            shutil.rmtree(checkpoint)
    stored = json.loads((copy / "checkpoints" / f"step-{step:08d}" / "state.json").read_text())
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_text("".join(lines[: stored["records"]]))
    train(None, copy, resume=copy)
    return copy


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(STAGES, tmp_path_factory.mktemp("stages") / "run").folder


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(FLOWS, tmp_path_factory.mktemp("flows") / "run").folder


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_run_resumes_in_the_stage_in_which_it_was_stopped(staged: Path, tmp_path: Path, step: int) -> None:
    resumed = resumed_from(staged, tmp_path / "copy", step)
    assert_same(tensors(staged), tensors(resumed))
    same = [{name: value for name, value in line.items() if name not in SPEED} for line in metrics(staged)]
    assert same == [{name: value for name, value in line.items() if name not in SPEED} for line in metrics(resumed)]
    assert [line["stage"] for line in metrics(resumed)] == ["warm"] * 2 + ["main"] * 3


def test_checkpoints_say_their_stage(staged: Path) -> None:
    states = [json.loads((folder / "state.json").read_text()) for folder in sorted((staged / "checkpoints").iterdir())]
    assert [(state["step"], state["stage"]) for state in states] == [
        (1, "warm"), (2, "warm"), (3, "main"), (4, "main"), (5, "main"),
    ]  # fmt: skip


def test_a_stage_begins_with_the_weights_of_the_one_that_it_names(staged: Path) -> None:
    end, after = tensors(staged, "step-00000002"), tensors(staged, "step-00000003")
    frozen = [name for name in after if name.startswith("encoders.vision.") and "/" not in name]
    assert frozen
    assert all(torch.equal(end[name], after[name]) for name in frozen)
    counts = [value.item() for name, value in after.items() if name.endswith("/step")]
    assert set(counts) == {1.0}, "the optimiser begins again"


def test_the_end_of_a_stage_is_kept_for_those_that_start_from_it(staged: Path) -> None:
    end = load_file(staged / "stages" / "warm" / "step-00000002" / "model.safetensors")
    assert_same(end, load_file(staged / "checkpoints" / "step-00000002" / "model.safetensors"))


def test_a_run_with_stages_is_evaluated(staged: Path) -> None:
    again = vlmdsl.evaluate(staged)
    assert again.evaluation == json.loads((staged / "evaluation.json").read_text())
    assert again.evaluation["conditions"]["stage"] == "main"
    warm = again.evaluation["stages"]["warm"]
    assert (warm["step"], warm["conditions"]["stage"]) == (2, "warm")


COLUMNS = """
recipe columns(image: Image, text: Text, words: Text, document: Text)
stage first {
  minimize mlm(mask(words, random(15%)))
}
stage second {
  flow pairs(image, text) share 99% {
    minimize contrast(image, text)
  }
  flow documents(document) {
    minimize mlm(mask(document, random(15%)))
  }
}
"""


def test_columns_are_for_the_stages_and_flows_that_read_them(tmp_path: Path) -> None:
    """Those that only an earlier stage or another flow reads disturb neither the others nor an evaluation."""
    columns = {"words": "text_ko", "document": "caption", "text_rewrites": "text_rewrites"}
    settings = {**SETTINGS, "train.checkpoint_every": 100, "data.map": columns}
    run = vlmdsl.train(COLUMNS, data=["shapes:samples=40"], steps=1, settings=settings, out=tmp_path / "run")
    assert vlmdsl.evaluate(run.folder).evaluation == run.evaluation
    elsewhere = vlmdsl.evaluate(run.folder, data=["shapes:samples=12,seed=7"], map=columns)
    assert elsewhere.evaluation["samples"] == 12


def test_the_model_of_a_run_with_stages_is_that_of_its_last_stage(staged: Path) -> None:
    model = vlmdsl.Trainer(resume=staged).model
    stored = load_file(staged / "checkpoints" / WHOLE / "model.safetensors")
    assert_same(stored, model.state_dict())


def test_a_stage_has_settings_of_its_own_and_may_start_from_any_earlier_one(tmp_path: Path) -> None:
    recipe = tmp_path / "three.vlo"
    recipe.write_text(STAGES.read_text() + "\nstage last from warm {\n  minimize contrast(image, text)\n}\n")
    own = {"stages.last.optimizer.learning_rate": 1e-5, "stages.last.train.batch": 16}
    run = vlmdsl.train(
        recipe, data=["shapes:samples=40"], steps=1, settings={**SETTINGS, **own}, out=tmp_path / "run"
    ).folder
    assert [line["stage"] for line in metrics(run)] == ["warm", "main", "last"]
    assert [line["learning_rate"] for line in metrics(run)] == pytest.approx([1e-4, 1e-4, 5e-7])
    assert metrics(run)[-1]["contrast.chance"] == pytest.approx(math.log(16))
    warm, last = (tensors(run, f"step-{step:08d}") for step in (1, 3))
    moved = [(last[name] - warm[name]).abs().max().item() for name in warm if "encoders" in name and "/" not in name]
    assert max(moved) < 1e-5, "one step of a tiny learning rate from the end of the first stage"


def test_each_step_is_of_the_flow_that_seed_and_step_say(mixed: Path) -> None:
    mixture = Mixture({"pairs": 0.85, "texts": 0.15}, seed=6, stage="")
    assert [line["flow"] for line in metrics(mixed)] == [mixture.flow(step) for step in range(5)]
    assert {line["flow"] for line in metrics(mixed)} == {"pairs", "texts"}
    for line in metrics(mixed):
        assert [name for name in line if name.startswith("terms/")] == [
            "terms/pairs.contrast" if line["flow"] == "pairs" else "terms/texts.mlm"
        ]


@pytest.mark.parametrize("step", [1, 3])
def test_a_mixture_resumes_with_the_batches_that_are_next(mixed: Path, tmp_path: Path, step: int) -> None:
    assert_same(tensors(mixed), tensors(resumed_from(mixed, tmp_path / "copy", step)))


PER_SAMPLE = """
recipe table(image: Image, text: Text)

flow pairs(image, text) share 60% {
  let kept = running_mean(score(image, text), per="sample", momentum=0)
  minimize contrast(image, text, weight=ramp(0, 1, over=50%, name="rising") + 1 - mixture(kept))
}

flow texts(text) {
  minimize ramp(0.1, 1, over=50%, name="growing") * mlm(mask(text, random(15%)))
}
"""


def test_schedules_follow_the_stage_and_epochs_the_flow_and_both_resume(tmp_path: Path) -> None:
    recipe = tmp_path / "table.vlo"
    recipe.write_text(PER_SAMPLE)
    run = vlmdsl.train(
        recipe, data=["shapes:samples=24"], steps=8, settings={**SETTINGS, "train.seed": 6}, out=tmp_path / "run"
    ).folder
    for step, line in enumerate(metrics(run)):
        rising = min(step / 4, 1)
        pair = line["flow"] == "pairs"
        assert line["rising" if pair else "growing"] == pytest.approx(rising if pair else 0.1 + 0.9 * rising)
    assert [line["flow"] for line in metrics(run)].count("pairs") >= 4, "an epoch of the flow ends, so its mixture is fitted"
    probability = tensors(run, "step-00000008")["objective.state.weight_probability"]
    assert probability.isfinite().all()
    resumed = resumed_from(run, tmp_path / "copy", 3)
    kept, again = (tensors(each, "step-00000008") for each in (run, resumed))
    assert_same(
        {name: value.nan_to_num() for name, value in kept.items()}, {n: value.nan_to_num() for n, value in again.items()}
    )


@pytest.mark.parametrize("setting", [{"data.workers": 1}, {"train.micro": 3}], ids=["workers", "micro"])
def test_workers_and_micro_batches_change_nothing_in_a_mixture(
    mixed: Path, tmp_path: Path, setting: dict[str, object]
) -> None:
    other = train(FLOWS, tmp_path / "run", **setting).folder
    if "data.workers" in setting:
        assert_same(tensors(mixed), tensors(other))
    losses = [[line["loss"] for line in metrics(run)] for run in (mixed, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_flow_does_not_move_what_it_does_not_use(mixed: Path) -> None:
    flows = [line["flow"] for line in metrics(mixed)]
    step = flows.index("texts") + 1
    assert step > 1
    before, after = (tensors(mixed, f"step-{number:08d}") for number in (step - 1, step))
    vision = [name for name in after if name.startswith("encoders.vision.")]
    assert all(torch.equal(before[name], after[name]) for name in vision)
    assert not all(torch.equal(before[name], after[name]) for name in after if name.startswith("encoders.language."))


def test_settings_of_unknown_stages_and_flows_are_refused(tmp_path: Path) -> None:
    for recipe, name in (
        (STAGES, "stages.mian.train.steps"),
        (STAGES, "flows.a.data.workers"),
        (FLOWS, "flows.b.data.workers"),
    ):
        with pytest.raises(vlmdsl.DiagnosticError) as caught:
            vlmdsl.Trainer(recipe, settings={name: 1}, out=tmp_path)
        assert [fault.code for fault in caught.value.diagnostics] == ["V0811"]


def test_a_checkpoint_of_a_stage_that_the_recipe_lacks_is_not_used(staged: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(staged, run)
    text = STAGES.read_text().replace("stage main", "stage final")
    (run / "recipe.vlo").write_text(text)
    renamed = tmp_path / "renamed.vlo"
    renamed.write_text(text)
    for use, code in (
        (lambda: vlmdsl.train(resume=run), "V0850"),
        (lambda: vlmdsl.evaluate(run), "V0850"),
        (lambda: vlmdsl.train(renamed, resume=staged), "V0818"),
        (lambda: stage_of(staged / "checkpoints" / WHOLE, ["warm", "final"]), "V0853"),
    ):
        with pytest.raises(vlmdsl.DiagnosticError) as caught:
            use()
        assert [fault.code for fault in caught.value.diagnostics] == [code]
    reason = "it was written in the stage `main`, but the recipe has the stages `warm`, `final`"
    assert caught.value.diagnostics[0].message.endswith(reason)


def test_a_finished_run_with_stages_resumes_without_a_step(staged: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(staged, run)
    vlmdsl.train(resume=run)
    for name in ("metrics.jsonl", "evaluation.json", f"checkpoints/{WHOLE}/state.json"):
        assert (run / name).read_bytes() == (staged / name).read_bytes(), name


def test_a_run_with_flows_is_evaluated(mixed: Path) -> None:
    assert vlmdsl.evaluate(mixed).evaluation == json.loads((mixed / "evaluation.json").read_text())


def test_a_column_is_mapped_to_a_field_that_one_of_the_flows_reads(tmp_path: Path) -> None:
    recipe = """recipe languages(image: Image, korean: Text, text: Text)
flow first(image, korean) share 50% { minimize contrast(image, korean) }
flow second(image, text) { minimize contrast(image, text) }
"""
    settings = {**SETTINGS, "data.map": {"korean": "text_ko"}}
    run = vlmdsl.train(recipe, data=["shapes:samples=40"], steps=2, settings=settings, out=tmp_path / "run")
    assert run.evaluation["retrieval"]["texts"] == run.evaluation["flows"]["second"]["retrieval"]["texts"] == 16
    assert vlmdsl.evaluate(run.folder).evaluation == run.evaluation


def test_captions_of_every_flow_are_measured(tmp_path: Path) -> None:
    """Of images in one language and in another one, and of texts alone."""
    recipe = """recipe writes(image: Image, korean: Text, text: Text)
encoder writer = text_decoder(depth=1, width=16, heads=2)
flow korean(image, korean) share 40% { minimize next_token(linear(writer(korean, image)), korean) }
flow english(image, text) share 40% { minimize next_token(linear(writer(text, image)), text) }
flow alone(text) share 20% { minimize next_token(linear(writer(text)), text) }
"""
    settings = {**SETTINGS, "data.map": {"korean": "text_ko"}, "evaluation.limit": 4}
    run = vlmdsl.train(recipe, data=["shapes:samples=40"], steps=1, settings=settings, out=tmp_path / "run")
    english, alone = run.evaluation["flows"]["english"]["captions"], run.evaluation["flows"]["alone"]["captions"]
    assert (run.evaluation["captions"]["written"], english["written"], alone["written"]) == (4, 4, 0)
    assert english.keys() >= {"token accuracy", "exact", "untrained"}
    assert alone["token accuracy"] >= 0
    assert vlmdsl.evaluate(run.folder).evaluation == run.evaluation


def test_the_stages_of_a_recipe_hand_over_a_tower_with_one_stem(tmp_path: Path) -> None:
    """The preset has overlapping convolutions, which the stage that predicts dropped patches cannot have."""
    knobs = {"depth": 1, "width": 16, "heads": 2, "crops": 1, "small": 1}
    run = vlmdsl.train("kelip", knobs=knobs, data=["shapes:samples=40"], steps=1, settings=SETTINGS, out=tmp_path / "run")
    first, second = (tensors(run.folder, f"step-{step:08d}") for step in (1, 2))
    assert first["encoders.vision.stem.weight"].shape == second["encoders.vision.stem.weight"].shape
    results = run.evaluation
    assert results["stages"]["pixels"]["reconstruction"]["error"] > 0
    assert results["flows"]["english"]["retrieval"].keys() == results["retrieval"].keys()


def test_the_fine_stage_of_fiber_begins_with_the_towers_and_the_fusion_of_the_coarse_one(tmp_path: Path) -> None:
    """Pairs and boxes are two data sets; a fine stage that learns nothing ends with what it began with."""
    settings = {**SETTINGS, "stages.fine.data.train": ("shapes:samples=24,objects=2",), "stages.fine.train.steps": 2}
    settings |= {"stages.fine.optimizer.learning_rate": 1e-30, "stages.fine.optimizer.weight_decay": 0.0}
    run = vlmdsl.train(
        "fiber", knobs={"depth": 1, "size": 16, "negatives": 2}, data=["shapes:samples=40"], steps=1, settings=settings,
        out=tmp_path / "run",
    )  # fmt: skip
    coarse, fine = (load_file(run.folder / f"checkpoints/step-0000000{step}/model.safetensors") for step in (1, 3))
    own = {name for name in fine if name.startswith(("encoders.", "fusions."))}
    assert {name for name in own if name not in coarse} == {"encoders.vision.token_projection.weight"}
    shared = own & coarse.keys()
    for name in shared:
        torch.testing.assert_close(fine[name], coarse[name], rtol=0, atol=1e-20)
    resumed = resumed_from(run.folder, tmp_path / "resumed", 1)
    assert_same(tensors(run.folder, "step-00000003"), tensors(resumed, "step-00000003"))
    assert run.evaluation["grounding"].keys() >= {"accuracy", "mAP"}
    assert run.evaluation["stages"]["coarse"]["matching"]


def test_data_of_a_later_part_is_checked_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,words\n1,a b\n2,c d\n")
    table = [str(tmp_path / "t.csv")]
    for recipe, own, code, hint in (
        (STAGES, {"stages.main.train.batch": 64}, "V0809", "`--set stages.main.train.batch=40` or more data"),
        (STAGES, {"stages.main.data.train": table}, "V0801", "the stage `main`; `stages.main.data` sets"),
        (FLOWS, {"flows.texts.data.train": table}, "V0801", "the flow `texts`; `flows.texts.data` sets"),
    ):
        settings = {**SETTINGS, **{name: tuple(value) if isinstance(value, list) else value for name, value in own.items()}}
        with pytest.raises(vlmdsl.DiagnosticError) as caught:
            vlmdsl.train(recipe, data=["shapes:samples=40"], steps=1, settings=settings, out=tmp_path / "run")
        assert {fault.code for fault in caught.value.diagnostics} == {code}
        assert all(hint in " ".join((*fault.notes, *fault.help)) for fault in caught.value.diagnostics)
        assert not (tmp_path / "run").exists()


def test_each_flow_is_compiled_once_however_they_alternate(tmp_path: Path) -> None:
    halves = (FLOWS.read_text().replace("85%", "50%")).replace("15% {", "50% {")
    recipe = tmp_path / "halves.vlo"
    recipe.write_text(halves)
    flows = [Mixture({"pairs": 0.5, "texts": 0.5}, seed=6, stage="").flow(step) for step in range(5)]
    assert sum(before != after for before, after in pairwise(flows)) >= 2
    counters.clear()
    vlmdsl.train(
        recipe, data=["shapes:samples=40"], steps=5, out=tmp_path / "run",
        settings={**SETTINGS, "train.seed": 6, "train.compile": True, "evaluation.limit": 8},
    )  # fmt: skip
    assert counters["stats"]["unique_graphs"] == 2
