"""400 seeded damages to shards, folders and tables: each is read without what is bad, which is counted, or refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[3]
GIBIBYTE = 2**30


@pytest.fixture(scope="module")
def outcomes() -> tuple[list[dict[str, Any]], dict[str, int]]:
    """What became of each, in a process of its own with little memory and time for each; and how much memory it took."""
    script = Path(__file__).with_name("damage") / "run.py"
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), str(TESTS.parent / "cli"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    run = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    *results, total = [json.loads(line) for line in run.stdout.splitlines()]
    return results, total


def test_no_damage_ends_in_a_traceback_or_takes_long(outcomes: tuple[list[dict[str, Any]], dict[str, int]]) -> None:
    results, total = outcomes
    assert len(results) == 400 > total["cases"] > 250  # every kind of damage, and those that are drawn more than once
    crashes = [one for one in results if not (one["outcome"] == "read" or one["outcome"].startswith("V08"))]
    assert crashes == []
    assert [one for one in results if one["seconds"] > 5] == []
    assert total["peak"] < 1.5 * GIBIBYTE


def test_damage_is_counted_or_refused_in_each_of_many_ways(outcomes: tuple[list[dict[str, Any]], dict[str, int]]) -> None:
    results, _ = outcomes
    codes = Counter(one["outcome"] for one in results)
    assert codes.keys() >= {"read", "V0801", "V0805", "V0807", "V0824", "V0828", "V0829", "V0835"}
    assert 150 < codes["read"] < 300
    reasons = Counter(reason for one in results if one["outcome"] == "read" for reason in one["skipped"])
    assert reasons.keys() >= {
        "damaged image", "image too large", "missing image", "missing text", "empty text", "text is not UTF-8",
        "damaged json", "json too large", "json object with a key twice", "class is not an integer",
        "more cells than columns", "line is not a json object", "image file not found",
        "image file outside the folder of the data", "file too large",
        "image file is not a regular file", "image file cannot be opened", "image of floating-point levels",
        "image is a URL, and nothing is downloaded",
    }  # fmt: skip


def test_what_is_unusual_but_legal_is_read_whole(outcomes: tuple[list[dict[str, Any]], dict[str, int]]) -> None:
    results, _ = outcomes
    legal = [one for one in results if one["legal"]]
    assert len(legal) > 50
    for one in legal:
        assert (one["outcome"], one["skipped"], one["remarks"] if one["used"] < 8 else []) == ("read", {}, []), one
