"""The plan of a run: the sizes of its towers and data, and the weights that it has, trains and keeps moments of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file

import vlmdsl
from vlmdsl.api.plan import plan_flows
from vlmdsl.runtime.training.weights import ModuleWeights
from vlmdsl.runtime.values import ImageFormat
from vlmdsl_cli.main import application

DATA = "shapes:samples=40"
FROZEN = {"model.freeze.vision": 1, "model.freeze.language": ("embedding*",)}
ADAPTED = {"model.lora.language.rank": 2}


def as_words(settings: dict[str, object]) -> list[str]:
    values = {name: f"[{', '.join(value)}]" if isinstance(value, tuple) else value for name, value in settings.items()}
    return [*(f"{name}={value}" for name, value in values.items()), f"data.train=[{DATA!r}]"]


def weights_of(recipe: str, overrides: list[str], world: int = 1) -> tuple[ModuleWeights, ...]:
    planned = plan_flows(recipe, overrides=overrides, world=world).weights
    assert planned is not None
    return planned.stages[""]


@pytest.mark.parametrize("settings", [FROZEN, ADAPTED], ids=["frozen", "adapters"])
def test_what_is_planned_is_what_a_run_keeps(settings: dict[str, object], tmp_path: Path) -> None:
    if settings is ADAPTED:
        pytest.importorskip("peft", reason="the extra `lora` is not installed")
    rows = {row.name: row for row in weights_of("clip", as_words(settings))}
    more = {"train.batch": 8, "train.compile": False, "evaluation.limit": 8, "tracking.report": False, "train.device": "cpu"}
    run = vlmdsl.train("clip", data=[DATA], steps=1, settings=settings | more, out=tmp_path / "run")
    stored, moments = (
        load_file(run.folder / "checkpoints" / "step-00000001" / f"{name}.safetensors") for name in ("model", "optimizer")
    )
    kept = {name: value for name, value in moments.items() if not name.endswith("/step")}
    for tower in ("vision", "language"):
        own = f"encoders.{tower}."
        assert rows[tower].moments == sum(value.nbytes for name, value in kept.items() if name.startswith(own)), tower
        assert rows[tower].size == sum(value.nbytes for name, value in stored.items() if name.startswith(own)), tower
        assert rows[tower].gradients == 4 * rows[tower].trained == rows[tower].moments // 2
    adapters, trained = rows["language"].adapters, rows["language"].trained
    assert adapters == sum(value.numel() for name, value in stored.items() if "lora_" in name)
    assert (0 < adapters < trained < rows["language"].weights) == (settings is ADAPTED)  # the new projection is trained too


def test_processes_that_share_weights_have_their_part_each() -> None:
    alone, spread = (
        weights_of("moco_v3", [*as_words({}), f"train.parallel={way}"], world=4) for way in ("replicated", "sharded")
    )
    for whole, part in zip(alone, spread, strict=True):
        assert part.weights == whole.weights
        assert part.size == pytest.approx(whole.size / (1 if whole.name == "objective" else 4), rel=0.01)
    (teachers,) = (row for row in alone if row.name == "teachers")
    assert teachers.weights > 0 == teachers.trained == teachers.moments


def test_the_command_shows_them_with_settings_only() -> None:
    words = ["plan", "clip", "--set", "model.freeze.vision=1", "--set", f"data.train=[{DATA!r}]"]
    shown, as_json = CliRunner().invoke(application, words), CliRunner().invoke(application, [*words, "--json"])
    assert shown.exit_code == 0, shown.output
    assert "weights on each process" in shown.output
    assert "together" in shown.output
    (rows,) = json.loads(as_json.output)["weights"]["stages"].values()
    assert rows[0]["name"] == "vision"
    assert 0 < rows[0]["trained"] < rows[0]["weights"]
    assert "weights on each process" not in CliRunner().invoke(application, words[:2]).output


USUAL = {"batch": 128, "dim": 64, "image_size": 32, "image_tokens": 16, "text_tokens": 32, "vocabulary": 300, "samples": 40}
SIZES: list[tuple[str, dict[str, object], dict[str, int]]] = [
    # recipe, settings, sizes of that run besides the usual ones
    ("clip", {}, {}),
    ("filip", {"model.image_size": 64, "train.micro": 8, "train.batch": 32}, {"image_size": 64, "image_tokens": 64}),
    ("filip", {"model.image_encoder": "vit:tiny_patch4", "model.text_length": 12}, {"image_tokens": 64, "text_tokens": 12}),
    ("mae", {"model.image_encoder": "vit:tiny_patch4"}, {"image_tokens": 64}),
    ("simvlm", {"data.map.document": "clean_text", "model.text_length": 20, "model.dimension": 32},
     {"text_tokens": 20, "dim": 32}),
    ("nlip", {"data.map.concepts": "template(source)"}, {}),
    ("ra_clip", {"data.reference": ("shapes:samples=30",)}, {"references": 30}),
]  # fmt: skip


@pytest.mark.parametrize(("recipe", "settings", "own"), SIZES)
def test_a_plan_with_settings_is_for_the_sizes_of_the_run(
    recipe: str, settings: dict[str, object], own: dict[str, int]
) -> None:
    settings = settings | {"model.vocabulary": 300}
    batches = {name: settings[f"train.{name}"] for name in ("batch", "micro") if f"train.{name}" in settings}
    run = plan_flows(recipe, overrides=as_words(settings)).flows
    same = plan_flows(recipe, **(USUAL | own | batches)).flows
    assert [planned.to_json() for _, planned in run] == [planned.to_json() for _, planned in same]
    larger = plan_flows(recipe, overrides=as_words(settings), **{name: 2 * size for name, size in own.items()}).flows
    assert not own or [planned.to_json() for _, planned in larger] != [planned.to_json() for _, planned in run]


def test_the_tokens_of_a_tower_that_does_not_say_how_large_its_patches_are_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stated = plan_flows("filip", overrides=as_words({})).to_json()
    monkeypatch.setattr(ImageFormat, "patches", lambda _form, _share: 0)
    assert plan_flows("filip", overrides=as_words({})).to_json() == stated
