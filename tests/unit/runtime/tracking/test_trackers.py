"""Trackers: what they are given, offline, with the real library where it is installed; one that fails ends no run."""

from __future__ import annotations

import json
import math
import sqlite3
import sys
import time
import tomllib
import warnings
from collections.abc import Mapping
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pytest

import vlmdsl
from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.runtime.tracking import read_metrics, trackers
from vlmdsl.runtime.tracking.trackers import TRACKERS, TrackedRun, Trackers, check_trackers
from vlmdsl.schema import RunConfig

RECORD: dict[str, Any] = {"step": 3, "flow": "pairs", "loss": 1.5, "terms/pairs.contrast": 1.5, "temperature": 0.07}
RESULTS = {"retrieval.image_to_text.R@1": 0.25}


def installed(name: str) -> pytest.MarkDecorator:
    package = TRACKERS[name].package
    return pytest.mark.skipif(find_spec(package) is None, reason=f"`pip install 'vlmdsl[{name}]'`")


@pytest.fixture
def run(tmp_path: Path) -> TrackedRun:
    return TrackedRun(tmp_path, "0123456789abcdef", "clip-1", "mine", {"train.steps": 3, "model.init": None})


def tracked(name: str, run: TrackedRun) -> list[Diagnostic]:
    """A step and an evaluation, in two sittings; the warnings."""
    said: list[Diagnostic] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' own
        for step in (3, 4):
            with Trackers([name], run, said.append) as several:
                several.log({**RECORD, "step": step, "loss": 1.5 / step})
                several.results(step, RESULTS)
    return said


@installed("tensorboard")
def test_tensorboard_has_every_number(run: TrackedRun) -> None:
    assert tracked("tensorboard", run) == []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(run.folder / "tensorboard"))
        events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(3, 0.5), (4, 0.375)]
    assert {"terms/pairs.contrast", "temperature", "evaluation/retrieval.image_to_text.R@1"} <= set(events.Tags()["scalars"])
    assert b"train.steps" in events.Tensors("settings/text_summary")[0].tensor_proto.string_val[0]


@installed("wandb")
def test_wandb_keeps_a_run_that_is_offline(run: TrackedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert tracked("wandb", run) == []
    stored = list((run.folder / "wandb").glob("offline-run-*/run-0123456789abcdef.wandb"))
    assert len(stored) == 2
    end = time.monotonic() + 20  # its service may write for a while after the run is finished
    while not all(b"temperature" in file.read_bytes() for file in stored):
        assert time.monotonic() < end
        time.sleep(0.1)


@installed("mlflow")
def test_mlflow_has_one_run_with_every_number(run: TrackedRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert tracked("mlflow", run) == []
    import mlflow

    client = mlflow.MlflowClient(f"file://{tmp_path}/mlruns")
    (stored,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert (stored.info.run_name, stored.info.status) == ("clip-1", "FINISHED")
    assert stored.data.params == {"train.steps": "3"}
    assert [(point.step, point.value) for point in client.get_metric_history(stored.info.run_id, "loss")] == [
        (3, 0.5),
        (4, 0.375),
    ]
    assert stored.data.metrics["evaluation/retrieval.image_to_text.R_at_1"] == 0.25


@installed("trackio")
def test_trackio_has_one_run_with_every_number(run: TrackedRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    assert tracked("trackio", run) == []
    (database,) = (tmp_path / "trackio").rglob("*.db")
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("select run_name, step, metrics from metrics order by id").fetchall()
    assert {name for name, _, _ in rows} == {"clip-1-0123456789abcdef"}
    logged = [(step, json.loads(numbers)) for _, step, numbers in rows]
    assert [(step, numbers["loss"]) for step, numbers in logged if "loss" in numbers] == [(3, 0.5), (4, 0.375)]
    assert {step for step, numbers in logged if "evaluation/retrieval.image_to_text.R@1" in numbers} == {3, 4}


class Failing:
    """A tracker whose server goes away after the first record."""

    seen: list[Mapping[str, float]]

    def __init__(self, run: TrackedRun) -> None:
        Failing.seen = []

    def log(self, record: Mapping[str, float]) -> None:
        if Failing.seen:
            raise ConnectionError("no\x1b[31mroute\nto host")
        Failing.seen.append(record)

    def results(self, step: int, results: Mapping[str, float]) -> None:
        raise AssertionError("it was given up")

    def close(self) -> None:
        raise AssertionError("it was given up")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a tracker that fails."""
    module = type(sys)("vlmdsl.runtime.tracking.trackers.wandb")
    module.WeightsAndBiases = Failing  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(trackers, "find_spec", lambda package: object())
    return "wandb"


def test_a_tracker_that_fails_is_given_up_once_and_nothing_is_lost(
    failing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"train.batch": 8, "train.compile": False, "train.log_every": 1, "evaluation.limit": 16}
    settings |= {"tracking.trackers": (failing,), "tracking.report": False, "data.val": ("shapes:samples=16",)}
    run = vlmdsl.train("clip", data=["shapes:samples=32"], steps=4, settings=settings, out=tmp_path / "run")
    said = capsys.readouterr().err
    assert said.count("V0856") == 1
    assert "the tracker `wandb` is given up: ConnectionError: no" in said
    assert "\x1b" not in said
    assert len(Failing.seen) == 1
    assert [record["step"] for record in read_metrics(run.folder / "metrics.jsonl")] == [1, 2, 3, 4]
    assert json.loads((run.folder / "evaluation.json").read_text())["step"] == 4


def test_a_tracker_that_does_not_start_is_given_up(run: TrackedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", type(sys)("wandb"))  # which has no `init`
    said = tracked("wandb", run)
    assert [diagnostic.code for diagnostic in said] == ["V0856"] * 2


def test_a_package_that_is_missing_is_named_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda package: None if package == "mlflow" else object())
    check_trackers(["wandb"])
    with pytest.raises(DiagnosticError) as caught:
        check_trackers(["wandb", "mlflow"])
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, diagnostic.help) == ("V0901", ("`pip install 'vlmdsl[mlflow]'`",))


def test_the_setting_names_the_table_and_each_is_an_extra() -> None:
    (listed, *_) = get_args(RunConfig.model_fields["tracking"].annotation.model_fields["trackers"].annotation)
    assert set(get_args(listed)) == set(TRACKERS)
    project = tomllib.loads((Path(__file__).resolve().parents[4] / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(TRACKERS) <= set(project["optional-dependencies"])


def test_numbers_that_are_not_finite_end_nothing(run: TrackedRun) -> None:
    if find_spec("tensorboard") is None:
        pytest.skip("`pip install 'vlmdsl[tensorboard]'`")
    said: list[Diagnostic] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Trackers(["tensorboard"], run, said.append) as several:
            several.log({"step": 1, "loss": math.nan})
    assert said == []
