"""A run folder is never overwritten, and its metrics are cut to the step from which a run resumes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.files import write_atomically
from vlmdsl.runtime.training.run_folder import RunFolder


def code_of(action: object, *arguments: object) -> str:
    with pytest.raises(DiagnosticError) as caught:
        action(*arguments)  # type: ignore[operator]
    return caught.value.diagnostics[0].code


def test_the_first_free_folder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = [RunFolder.create(None, recipe).path.as_posix() for recipe in ("clip", "clip", "filip")]
    assert names == ["runs/clip-1", "runs/clip-2", "runs/filip-1"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert RunFolder.create(str(tmp_path / "empty"), "clip").path.is_dir()
    (tmp_path / "empty" / "a").write_text("precious")
    assert code_of(RunFolder.create, str(tmp_path / "empty"), "clip") == "V0815"
    assert code_of(RunFolder.create, str(tmp_path / "empty" / "a"), "clip") == "V0815"


def test_only_a_run_is_resumed(tmp_path: Path) -> None:
    assert code_of(RunFolder.existing, str(tmp_path)) == "V0816"
    assert code_of(RunFolder.existing, str(tmp_path / "nowhere")) == "V0816"
    for name in ("recipe.vlo", "config.yaml", "run.json"):
        (tmp_path / name).write_text("{}")
    assert code_of(RunFolder.existing, str(tmp_path)) == "V0850"


def test_metrics_end_where_the_run_goes_on(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.forget_after(3)
    assert not folder.metrics.exists()
    lines = [json.dumps({"step": step, "loss": 0.5}) + "\n" for step in (2, 4, 6)]
    folder.metrics.write_text("".join(lines) + '{"step": 4, "lo')
    folder.forget_after(4)
    assert folder.metrics.read_text() == "".join(lines[:2])


def test_an_atomic_write_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, "1")
    write_atomically(path, "2")
    assert path.read_text() == "2"
    assert list(tmp_path.iterdir()) == [path]
