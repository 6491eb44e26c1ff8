"""`make gpu` without a GPU: what it says there, and that its own logic works where a CPU takes the GPU's place."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from end_to_end.test_benchmarks import load


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    for name in ("commits", "hand_written", "contrast", "plan_memory", "gpu_checks"):
        load(name)
    return load("gpu")


def only(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, run: Any, **options: Any) -> None:
    """One check, called `own`."""
    monkeypatch.setattr(gpu, "CHECKS", {"own": type(next(iter(gpu.CHECKS.values())))("what it shows", 30, run, **options)})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so(gpu: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert gpu.main(["--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "there is no CUDA device" in said
    assert "nothing was checked" in said
    assert not [*tmp_path.iterdir()]


def test_all_checks_take_ten_minutes_at_most(gpu: ModuleType) -> None:
    assert sum(check.limit for check in gpu.CHECKS.values()) <= 600
    assert {"precision", "compile", "kernels", "memory", "contrast", "nccl", "tests"} == gpu.CHECKS.keys()


@pytest.mark.slow
def test_checks_run_by_name_and_leave_a_file(gpu: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert gpu.main(["--device", "cpu", "--only", "memory", "nccl", "--out", str(tmp_path)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].startswith("passed   memory ")
    assert rows[1].startswith("left out nccl ")
    (path,) = tmp_path.iterdir()
    result = json.loads(path.read_text("utf-8"))
    assert result["versions"]["torch"] == torch.__version__
    assert result["device"]["cores"] >= 1
    assert result["checks"]["memory"]["state"] == "passed"
    assert result["checks"]["memory"]["numbers"]["cases"]["clip 1024 dense"]["measured_mib"] > 1
    assert result["checks"]["nccl"]["reason"] == "it needs a CUDA device"
    assert result["passed"] is False  # not all of them ran


def test_a_check_that_takes_too_long_is_ended(gpu: ModuleType) -> None:
    outcome = gpu.outcome_of("precision", "cpu", 0.3)
    assert (outcome["state"], outcome["reason"]) == ("FAILED", "it took longer than 0 s")
    assert outcome["seconds"] < 10


def test_a_check_that_fails_is_written_with_its_numbers(
    gpu: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(device: str) -> dict[str, Any]:
        raise gpu.CheckError(f"the loss on {device} is too high", {"loss": 3.25})

    def here(name: str, device: str, limit: float) -> dict[str, Any]:
        outcome: dict[str, Any] = gpu.own_outcome(name, device)
        return {"state": "FAILED" if outcome["reason"] else "passed", "seconds": 1.0, **outcome}

    monkeypatch.setattr(gpu, "outcome_of", here)
    for run, code, passed in ((fails, 1, False), (lambda device: {"loss": 1.0}, 0, True)):
        only(gpu, monkeypatch, run)
        assert gpu.main(["--device", "cpu", "--out", str(tmp_path)]) == code
        (path,) = tmp_path.iterdir()
        result = json.loads(path.read_text("utf-8"))
        assert result["passed"] is passed
    assert "FAILED   own            1.0 s  the loss on cpu is too high" in capsys.readouterr().out


def test_results_of_other_checks_stay_with_the_same_versions(gpu: ModuleType, tmp_path: Path) -> None:
    row = {"state": "passed", "seconds": 1.0, "reason": "", "numbers": {}}
    gpu.written({"memory": row}, "cpu", tmp_path)
    path = gpu.written({"compile": row}, "cpu", tmp_path)
    assert [*json.loads(path.read_text("utf-8"))["checks"]] == ["compile", "memory"]
    stored = json.loads(path.read_text("utf-8"))
    stored["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(stored))
    assert [*json.loads(gpu.written({"memory": row}, "cpu", tmp_path).read_text("utf-8"))["checks"]] == ["memory"]
