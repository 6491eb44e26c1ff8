"""Every bundled recipe: a run that is resumed half-way is the run that was not, bit for bit, and so is all of its state."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import vlmdsl
from bundled.objectives import OBJECTIVES
from bundled.runs import DATA, SETTINGS, columns_of, hyper_parameters_of, program_of, with_tiny_towers
from vlmdsl.runtime.tracking.metrics import SPEED

HALF, WHOLE = 2, 4


def records(run: Path) -> list[dict[str, Any]]:
    """The metrics without the speed, which no two runs share."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for record in lines:
        for name in SPEED:
            del record[name]
    return lines


@pytest.mark.parametrize("recipe", OBJECTIVES.values(), ids=OBJECTIVES)
def test_a_resumed_run_is_the_same_bit_for_bit(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_tiny_towers(monkeypatch)
    settings = SETTINGS | {"train.checkpoint_every": HALF}
    columns = columns_of(program_of(recipe))
    run, kept = tmp_path / "run", tmp_path / "kept"
    vlmdsl.train(
        recipe, knobs=hyper_parameters_of(recipe), data=[DATA], map=columns, settings=settings, steps=WHOLE, out=run
    )
    shutil.copytree(run, kept)
    end = Path("checkpoints") / f"step-{WHOLE:08d}"
    shutil.rmtree(run / end)
    vlmdsl.train(resume=run)
    assert json.loads((run / "run.json").read_text())["resumed"]
    for name in ("model.safetensors", "optimizer.safetensors"):
        half, resumed, whole = (
            load_file(folder / name) for folder in (run / end.with_name(f"step-{HALF:08d}"), run / end, kept / end)
        )
        assert resumed.keys() == whole.keys()
        different = [key for key, value in whole.items() if not np.array_equal(value, resumed[key], equal_nan=True)]
        assert different == []
        assert any(not torch.equal(value, half[key]) for key, value in whole.items())
    evaluations = [path.relative_to(kept) for path in kept.glob("evaluation.json")]  # none of an objective of texts alone
    for name in (end / "state.json", end / "tokenizer.json", *evaluations):
        assert (run / name).read_bytes() == (kept / name).read_bytes()
    assert records(run) == records(kept)
    assert len(records(run)) == WHOLE
