"""Recipes whose towers are more than one a modality, from the command's function to the evaluation of their features."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import vlmdsl
from vlmdsl.diagnostics import DiagnosticError

SMALL = {
    "train.batch": 16,
    "train.compile": False,
    "tracking.report": False,
    "train.log_every": 1,
    "train.device": "cpu",
    "evaluation.limit": 80,
}


@pytest.mark.parametrize("name", ["oner", "ra_clip"])
def test_it_trains_and_its_features_are_evaluated(name: str, tmp_path: Path) -> None:
    trained = vlmdsl.train(name, data=["shapes:samples=64"], steps=5, settings=SMALL, out=tmp_path / name)
    evaluation = trained.evaluation
    assert evaluation["retrieval"]["image_to_text"].keys() >= {"R@1", "R@5", "R@10"}
    assert evaluation["zero_shot"].keys() >= {"top-1", "chance", "untrained"}


def test_a_retrieving_run_resumes_bit_identically_on_a_set_that_is_made_again(tmp_path: Path) -> None:
    data, settings = ["shapes:samples=64"], {**SMALL, "train.checkpoint_every": 2, "evaluation.retrieval": False}
    whole = vlmdsl.train("ra_clip", data=data, steps=4, settings=settings, out=tmp_path / "whole").folder
    half = vlmdsl.train("ra_clip", data=data, steps=4, settings=settings, out=tmp_path / "half").folder
    shutil.rmtree(half / "checkpoints" / "step-00000004")
    vlmdsl.train(resume=half, steps=4)
    resumed, expected = (load_file(folder / "checkpoints/step-00000004/model.safetensors") for folder in (half, whole))
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)
    assert not [name for name in expected if "references" in name]


def test_a_run_retrieves_by_faiss_what_it_does_by_the_exact_search(tmp_path: Path) -> None:
    pytest.importorskip("faiss", reason="the extra `ann` is not installed")
    quiet = {**SMALL, "evaluation.retrieval": False, "evaluation.zero_shot": False, "evaluation.neighbours": 0}
    weights = []
    for search in ("exact", "faiss"):
        settings = {**quiet, "data.reference_search": search, "data.reference_share": 0.5}
        run = vlmdsl.train("ra_clip", data=["shapes:samples=64"], steps=3, settings=settings, out=tmp_path / search)
        weights.append(load_file(run.folder / "checkpoints/step-00000003/model.safetensors"))
    torch.testing.assert_close(*weights)


def test_a_run_tells_that_faiss_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    settings = {**SMALL, "data.reference_search": "faiss"}
    with pytest.raises(DiagnosticError, match="V0901"):
        vlmdsl.train("ra_clip", data=["shapes:samples=64"], steps=1, settings=settings, out=tmp_path / "run")


def test_a_run_tells_the_searches_there_are(tmp_path: Path) -> None:
    with pytest.raises(DiagnosticError, match=r"(?s)reference_search.*'exact' or 'faiss'"):
        vlmdsl.train("ra_clip", settings={"data.reference_search": "hnsw"}, steps=1, out=tmp_path / "run")
