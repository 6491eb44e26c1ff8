"""Runs in float16: the numbers of float32 but for rounding, in micro-batches too, and resumed bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import vlmdsl
from bundled.runs import DATA, SETTINGS, with_tiny_towers
from vlmdsl.runtime.tracking.metrics import SPEED
from vlmdsl.runtime.training import loss_scale

TWO_TERMS = """
recipe two(image: Image, text: Text)
minimize {
  pairs: contrast(image, text, temperature=0.5)
  alike: 0.1 * sigmoid_contrast(image, text)
}
"""


def trained(out: Path, **settings: object) -> Any:
    chosen = SETTINGS | {"train.checkpoint_every": 3} | {f"train.{name}": value for name, value in settings.items()}
    return vlmdsl.train(TWO_TERMS, data=[DATA], steps=6, settings=chosen, out=out)


def records(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if name not in SPEED} for record in lines]


def test_a_run_in_float16_is_one_in_float32_but_for_rounding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_tiny_towers(monkeypatch)
    monkeypatch.setattr(loss_scale, "_FIRST", 2.0**10)
    exact = records(trained(tmp_path / "exact", term_gradients_every=3).folder)
    for name, micro in (("whole", None), ("micro", 3)):
        rounded = records(trained(tmp_path / name, precision="float16", micro=micro, term_gradients_every=3).folder)
        assert [record["skipped_steps"] for record in rounded] == [0] * 6
        for measure in ("loss", "gradient_norm"):
            expected = [record[measure] for record in exact]
            assert [record[measure] for record in rounded] == pytest.approx(expected, rel=0.1), (name, measure)
        of_terms = [name for name in exact[2] if name.endswith(".gradient_norm")]
        assert len(of_terms) == 2
        assert [rounded[2][name] for name in of_terms] == pytest.approx([exact[2][name] for name in of_terms], rel=0.1)
        assert rounded[0]["loss"] != exact[0]["loss"]


def test_a_run_in_float16_is_resumed_with_its_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_tiny_towers(monkeypatch)
    monkeypatch.setattr(loss_scale, "_FIRST", 2.0**20)
    run, kept = tmp_path / "run", tmp_path / "kept"
    outcome = trained(run, precision="float16")
    shutil.copytree(run, kept)
    end = Path("checkpoints") / "step-00000006"
    scale = json.loads((run / end / "state.json").read_text())["scale"]
    assert 0 < scale["skipped"] < 6
    assert scale["value"] == 2.0 ** (20 - scale["skipped"])
    assert f"since gradients overflowed float16: {scale['skipped']}" in outcome.summary
    shutil.rmtree(run / end)
    vlmdsl.train(resume=run)
    assert records(run) == records(kept)
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        assert (run / end / name).read_bytes() == (kept / end / name).read_bytes()
