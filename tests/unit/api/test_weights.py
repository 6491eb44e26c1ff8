"""The weights that a plan counts: those that a run has, trains and keeps moments of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file

import vlmdsl
from vlmdsl.api.weights import planned_weights
from vlmdsl_cli.main import application

DATA = "shapes:samples=40"
FROZEN = {"model.freeze.vision": 1, "model.freeze.language": ("embedding*",)}
ADAPTED = {"model.lora.language.rank": 2}


def as_words(settings: dict[str, object]) -> list[str]:
    values = {name: f"[{', '.join(value)}]" if isinstance(value, tuple) else value for name, value in settings.items()}
    return [*(f"{name}={value}" for name, value in values.items()), f"data.train=[{DATA!r}]"]


@pytest.mark.parametrize("settings", [FROZEN, ADAPTED], ids=["frozen", "adapters"])
def test_what_is_planned_is_what_a_run_keeps(settings: dict[str, object], tmp_path: Path) -> None:
    if settings is ADAPTED:
        pytest.importorskip("peft", reason="the extra `lora` is not installed")
    rows = {row.name: row for row in planned_weights("clip", settings=as_words(settings)).stages[""]}
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
        planned_weights("moco_v3", settings=[*as_words({}), f"train.parallel={way}"], world=4).stages[""]
        for way in ("replicated", "sharded")
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
