"""No mutated program makes anything raise that reads recipes: 2,000 of the 20,000 of `benchmarks/results/fuzz.json`."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_mutated_programs_never_raise() -> None:
    spec = importlib.util.spec_from_file_location("fuzz", BENCHMARKS / "fuzz.py")
    assert spec is not None
    assert spec.loader is not None
    fuzz = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = fuzz  # dataclasses look their module up
    spec.loader.exec_module(fuzz)
    report = fuzz.fuzz(2_000)
    assert report.failures == []
    assert report.programs == 2_000
    assert report.correct > 100
    assert len(report.codes) > 50


def test_the_committed_result_is_of_20_000_programs_without_a_failure() -> None:
    result = json.loads((BENCHMARKS / "results" / "fuzz.json").read_text("utf-8"))
    assert result["programs"] == 20_000
    assert result["failures"] == []
    assert result["slowest_seconds"] < 2
