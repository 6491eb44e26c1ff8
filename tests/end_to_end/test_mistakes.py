"""Mistakes with a run folder: each is reported with its reason and what to do, by the code that explains it."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import vlmdsl
from vlmdsl.api.classify import classify
from vlmdsl.api.data import convert_data
from vlmdsl.api.encode import encode
from vlmdsl.api.export import export
from vlmdsl.api.report import report
from vlmdsl.api.search import search
from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.runtime.files import seal, writing
from vlmdsl.runtime.training.run_folder import RunFolder

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings: dict[str, object] = {
        "train.batch": 8, "train.compile": False, "train.checkpoint_every": 2, "evaluation.limit": 8,
        "evaluation.neighbours": 0, "tracking.report": False,
    }  # fmt: skip
    out = tmp_path_factory.mktemp("runs") / "clip-1"
    vlmdsl.train("clip", data=["shapes:samples=24"], steps=4, settings=settings, out=out)
    return out


def problem(call: Callable[[], object]) -> Diagnostic:
    with pytest.raises(DiagnosticError) as caught:
        call()
    return caught.value.diagnostics[0]


def test_one_of_the_checkpoints_of_a_run_is_loaded_and_exported(run: Path, tmp_path: Path) -> None:
    earlier = run / "checkpoints" / "step-00000002"
    model, newest = vlmdsl.load(earlier), vlmdsl.load(run)
    assert (model.step, newest.step) == (2, 4)
    assert not torch.equal(model.encode_image(PICTURE), newest.encode_image(PICTURE))
    export(earlier, tmp_path / "earlier")
    assert torch.equal(vlmdsl.load(tmp_path / "earlier").encode_image(PICTURE), model.encode_image(PICTURE))
    assert "not measured" in (tmp_path / "earlier" / "README.md").read_text()
    export(run, tmp_path / "newest")
    assert "not measured" not in (tmp_path / "newest" / "README.md").read_text()


@pytest.mark.parametrize("use", [vlmdsl.load, vlmdsl.evaluate, report], ids=["load", "evaluate", "report"])
def test_a_folder_that_is_not_a_run(use: Callable[[Path], object], tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        fault = problem(lambda folder=folder: use(folder))  # type: ignore[misc]
        assert (fault.code, "vlmdsl train" in fault.help[0]) == ("V0816", True)


def test_a_class_that_is_named_twice(run: Path) -> None:
    fault = problem(lambda: classify(run, "shapes:samples=2", ["dog", "cat", " dog"]))
    assert (fault.code, "`dog` is named before" in fault.message) == ("V0860", True)


@pytest.mark.parametrize("templates", [["a photo"], ["a {} and {}"], ["{}", "two"]], ids=["none", "two", "second"])
def test_a_template_has_one_place_for_the_class(templates: list[str], run: Path) -> None:
    fault = problem(lambda: vlmdsl.load(run).classify(PICTURE, ["dog", "cat"], templates=templates))
    assert (fault.code, "does not have one {}" in fault.message) == ("V0860", True)


def test_a_text_that_is_not_unicode(run: Path) -> None:
    for texts in (["a", "b\udcff"], "\ud800"):
        fault = problem(lambda texts=texts: vlmdsl.load(run).encode_text(texts))  # type: ignore[misc]
        assert (fault.code, "not valid Unicode" in fault.message) == ("V0860", True)


def test_pictures_that_are_all_damaged(run: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_text("no picture")
    data = str(tmp_path / "pictures")
    for use in (
        lambda: classify(run, data, ["dog", "cat"]),
        lambda: search(run, data, "a dog"),
        lambda: encode(run, data, out=tmp_path / "features.npy"),
    ):
        assert problem(use).code == "V0820"


def test_what_a_recipe_does_not_train(run: Path) -> None:
    fault = problem(lambda: vlmdsl.load(run).caption(PICTURE))
    assert (fault.code, "vlmdsl recipes" in fault.help[0]) == ("V0861", True)


def test_damaged_checkpoints_and_a_run_of_another_version(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "damaged")
    for weights in (tmp_path / "damaged").glob("checkpoints/*/model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:100])
    fault = problem(lambda: vlmdsl.load(tmp_path / "damaged"))
    assert (fault.code, "no checkpoint is whole" in fault.help[-1], len(fault.notes)) == ("V0850", True, 1)
    shutil.copytree(run, tmp_path / "other")
    record = tmp_path / "other" / "run.json"
    record.write_text(json.dumps(seal({**json.loads(record.read_text()), "format": 9})))
    message = problem(lambda: vlmdsl.load(tmp_path / "other")).message
    assert "`format`: it was written by another version of vlmdsl" in message


def test_places_that_cannot_be_written(run: Path, tmp_path: Path) -> None:
    fault = problem(lambda: encode(run, ["shapes:samples=2"], tmp_path / "nowhere" / "features.npy"))
    assert (fault.code, "create it first" in fault.help[0]) == ("V0903", True)
    results = tmp_path / "results.json"
    assert problem(lambda: vlmdsl.evaluate(run, out=tmp_path / "nowhere" / "results.json")).code == "V0903"
    other = vlmdsl.evaluate(run, data=["shapes:samples=12,seed=7"], out=results)
    assert json.loads(results.read_text()) == other.evaluation
    for place in (tmp_path / "folder.npy", tmp_path / f"{'x' * 300}.npy"):
        (tmp_path / "folder.npy").mkdir(exist_ok=True)
        assert problem(lambda place=place: encode(run, ["shapes:samples=2"], place)).code == "V0903"  # type: ignore[misc]
        fault = problem(lambda place=place: vlmdsl.evaluate(run, out=place))  # type: ignore[misc]
        assert (fault.code, "remove" in "".join(fault.help)) == ("V0903", False)
    assert "a folder is in its place" in problem(lambda: search(run, "shapes:samples=2", "x", grid=tmp_path)).message
    if Path("/proc/self").is_dir():  # where nobody can create a folder
        assert problem(lambda: export(run, "/proc/vlmdsl-export")).code == "V0903"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    assert problem(lambda: export(run, tmp_path / "full")).help == ("choose another folder",)
    assert "--resume" in problem(lambda: vlmdsl.train("clip", out=run)).help[-1]
    convert_data("shapes:samples=2", tmp_path / "shards")
    assert "another folder" in problem(lambda: convert_data("shapes:samples=2", tmp_path / "shards")).help[0]


def test_a_run_that_cannot_be_written_to_is_measured(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, expected = (run / "evaluation.json").read_text(), vlmdsl.evaluate(run).evaluation

    def denied(folder: RunFolder, results: object) -> None:
        with writing(folder.evaluation):
            raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(RunFolder, "write_evaluation", denied)
    result = vlmdsl.evaluate(run)
    assert result.evaluation == expected
    assert "evaluation.json`: Permission denied; the results are not kept" in result.table
    assert (run / "evaluation.json").read_text() == before


def test_nothing_is_held_out(tmp_path: Path) -> None:
    settings: dict[str, object] = {"train.batch": 8, "train.compile": False, "tracking.report": False}
    recipe = "minimize contrast(augment(image), augment(image))"
    data = tmp_path / "data"
    convert_data("shapes:samples=16", data)
    run = vlmdsl.train(recipe, expression=True, data=[f"{data}/*.tar"], steps=1, settings=settings, out=tmp_path / "run")
    assert "`--data` names other data" in vlmdsl.evaluate(run.folder).table
