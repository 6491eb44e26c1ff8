"""A run folder is enough to continue it, wherever its files came from, and one of a stranger's reads and writes nothing
beside itself."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vlmdsl
from bundled.runs import SETTINGS, with_tiny_towers
from cli.conftest import Result
from vlmdsl import DiagnosticError
from vlmdsl.runtime.files import seal
from vlmdsl.runtime.training.lock import locked
from vlmdsl_cli.main import main

DATA = ["shapes:samples=8,size=16"]
SMALL = SETTINGS | {"train.batch": 4, "train.checkpoint_every": 1, "train.steps": 2, "evaluation.limit": 8}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    with_tiny_towers(monkeypatch)


@pytest.fixture
def run_command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    def call(*words: str) -> Result:
        capsys.readouterr()
        code = main(words)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


def trained(recipe: str | Path, out: Path, **settings: Any) -> Path:
    return vlmdsl.train(recipe, data=DATA, settings=SMALL | settings, out=out).folder


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        with_tiny_towers(patch)
        return trained("clip", tmp_path_factory.mktemp("runs") / "clip")


def code_of(action: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(DiagnosticError) as caught:
        action()
    (diagnostic,) = caught.value.diagnostics
    return diagnostic.code, diagnostic.message


def test_files_from_anywhere_are_kept_and_the_run_needs_nothing_else(tmp_path: Path) -> None:
    home, away = tmp_path / "home" / "recipes", tmp_path / "away"
    (home / "parts").mkdir(parents=True)
    away.mkdir()
    (home / "mine.vlo").write_text(
        f'vlo 1\n\nrecipe mine(image: Image, text: Text)\nuse "./recipe.vlo" as near\nuse "../lib.vlo" as above\n'
        f'use "{away}/far.vlo" as far\nuse "./parts/deep.vlo" as deep\n\n'
        "minimize one(image, text) + two(image, text) + three(image, text) + four(image, eda(text))\n"
    )
    (home / "recipe.vlo").write_text("vlo 1\n\ndef one(a, b) = contrast(a, b)\n")
    (home.parent / "lib.vlo").write_text("vlo 1\n\ndef two(a, b) = 0.5 * contrast(a, b)\n")
    (away / "far.vlo").write_text('vlo 1\n\nuse "./further.vlo" as further\n\ndef three(a, b) = other(a, b)\n')
    (away / "further.vlo").write_text("vlo 1\n\ndef other(a, b) = 0.25 * contrast(a, b)\n")
    (home / "parts" / "deep.vlo").write_text("vlo 1\n\ndef four(a, b) = 0.125 * contrast(a, b)\n")
    (away / "synonyms.txt").write_text("red, scarlet\nblue, azure\n")
    run = trained(home / "mine.vlo", tmp_path / "run", **{"data.synonyms": str(away / "synonyms.txt")})
    assert (run / "recipe.vlo").read_text() == (home / "mine.vlo").read_text()
    assert (run / "parts" / "deep.vlo").is_file()
    whole = {file.name: file.read_bytes() for file in (run / "checkpoints" / "step-00000002").iterdir()}
    evaluation = (run / "evaluation.json").read_bytes()
    moved = tmp_path / "moved"
    run.rename(moved)
    for gone in (home.parent, away):
        shutil.rmtree(gone)
    shutil.rmtree(moved / "checkpoints" / "step-00000002")
    assert vlmdsl.train(resume=moved).folder == moved
    assert {file.name: file.read_bytes() for file in (moved / "checkpoints" / "step-00000002").iterdir()} == whole
    assert (moved / "evaluation.json").read_bytes() == evaluation
    assert vlmdsl.evaluate(moved).evaluation == json.loads(evaluation)


@pytest.mark.parametrize(
    "name",
    ["recipe.vlo", "config.yaml", "run.json", "metrics.jsonl", "curves.png", "evaluation.json", "untrained.json", ".lock",
     "checkpoints", "checkpoints/step-00000002", "checkpoints/step-00000002/model.safetensors"],
)  # fmt: skip
def test_a_link_out_of_the_folder_is_not_followed(name: str, sound: Path, tmp_path: Path) -> None:
    outside, run = tmp_path / "outside", tmp_path / "run"
    shutil.copytree(sound, run)
    path = run / name
    if path.exists():
        path.rename(outside)
    else:
        outside.write_text("mine")
    path.symlink_to(outside)
    before = contents(outside)
    for action in (lambda: vlmdsl.evaluate(run), lambda: vlmdsl.train(resume=run)):
        if "step" in name:  # the older checkpoint is taken
            action()
        else:
            code, message = code_of(action)
            assert (code, name in message) == ("V0850", True)
    assert contents(outside) == before


def contents(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {str(file): file.read_bytes() for file in files}


def test_a_planted_temporary_file_is_not_written_through(sound: Path, tmp_path: Path) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    shutil.copytree(sound, run)
    shutil.rmtree(run / "checkpoints" / "step-00000002")
    outside.mkdir()
    (outside / "precious").write_text("mine")
    for name in ("config.yaml", "run.json", "metrics.jsonl", "evaluation.json"):
        (run / f".partial-{os.getpid()}-{name}").symlink_to(outside / "precious")
    (run / "checkpoints" / ".partial-step-00000002").symlink_to(outside)
    vlmdsl.train(resume=run)
    assert contents(outside) == {str(outside / "precious"): b"mine"}


def changed(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """`run.json`, as a stranger may have written it: sealed again."""
    facts = json.loads((run / "run.json").read_text())
    change(facts)
    (run / "run.json").write_text(json.dumps(seal(facts)))


@pytest.mark.parametrize("place", ["../outside.vlo", "/etc/passwd", "a/../../outside.vlo", "..", "", "a\0b", "a\\..\\b"])
def test_a_path_out_of_the_folder_is_refused(place: str, sound: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    changes: list[Callable[[dict[str, Any]], object]] = [
        lambda facts: facts["files"].update({place: "0" * 64}),
        lambda facts: facts["kept"].update({"data.synonyms": place}),
        lambda facts: facts["recipe"].update(uses=[{"by": "recipe.vlo", "path": "./x.vlo", "file": place}]),
        lambda facts: facts["kept"].update({"out": "recipe.vlo"}),
    ]
    for change in changes:
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(sound, run)
        changed(run, change)  # type: ignore[arg-type]
        code, message = code_of(lambda: vlmdsl.train(resume=run))
        assert (code, "run.json" in message) == ("V0850", True)


def test_a_recipe_of_a_run_reads_no_file_beside_it(sound: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(sound, run)
    (tmp_path / "secret.vlo").write_text("vlo 1\n\ndef one(a, b) = contrast(a, b)\n")
    text = 'vlo 1\n\nrecipe mine(image: Image, text: Text)\nuse "../secret.vlo" as near\n\nminimize one(image, text)\n'
    (run / "recipe.vlo").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    changed(run, lambda facts: facts["files"].update({"recipe.vlo": digest}))
    with pytest.raises(DiagnosticError) as caught:
        vlmdsl.evaluate(run)
    assert "V0202" in [diagnostic.code for diagnostic in caught.value.diagnostics]


@pytest.mark.parametrize("name", ["\x1b[31mred", "a\u202eb", "bell\x07", "$\\frac$", "x" * 300])
def test_names_of_a_stranger_control_no_terminal(
    name: str, sound: Path, tmp_path: Path, run_command: Callable[..., Result]
) -> None:
    folder = tmp_path / "run"

    def check_output(change: Callable[[], object]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(sound, folder)
        change()
        for words in (("eval", str(folder)), ("train", "--resume", str(folder))):
            result = run_command(*words)
            assert result.code in (0, 2), result.stderr
            shown = result.stdout + result.stderr
            assert not [letter for letter in shown if letter in "\x1b\x07\u202e"]

    check_output(lambda: changed(folder, lambda facts: facts["recipe"].update(name=name)))
    check_output(lambda: changed(folder, lambda facts: facts["data"]["train"].update(name=name)))
    check_output(lambda: changed(folder, lambda facts: facts["recipe"]["given_knobs"].update({name: 1})))
    check_output(lambda: edited(folder / "metrics.jsonl", lambda record: record.update({name: 1.0})))
    check_output(
        lambda: edited(folder / "evaluation.json", lambda results: results["zero_shot"]["chance"].update({name: 0.5}))
    )


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    records = [
        json.loads(line) for line in (path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()])
    ]
    change(records[0])
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_a_pickle_is_not_loaded(sound: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(sound, run)
    for step in (1, 2):
        (run / "checkpoints" / f"step-{step:08d}" / "model.safetensors").write_bytes(
            b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
        )
    assert code_of(lambda: vlmdsl.evaluate(run))[0] == "V0850"
    assert not (tmp_path / "ran").exists()


def test_two_at_once_are_refused(sound: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(sound, run)
    with locked(run):
        assert code_of(lambda: vlmdsl.train(resume=run))[0] == "V0851"
        (tmp_path / "new").mkdir()
    with locked(tmp_path / "new"):
        assert code_of(lambda: trained("clip", tmp_path / "new"))[0] == "V0851"
    assert vlmdsl.train(resume=run).folder == run


@pytest.mark.parametrize("out", ["x\0y", "x" * 300, "/etc/passwd/run", "y/" * 3000, "a\udcff"])
def test_a_path_that_cannot_be_a_folder_is_reported(
    out: str, run_command: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["train", "clip", "--out"], ["train", "--resume"], ["eval"]):
        result = run_command(*words, out)
        assert result.code == 2, result.stderr
        assert "V0854" in result.stderr or "V0816" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_data_that_changed_is_reported(tmp_path: Path) -> None:
    from PIL import Image

    rows = ["image,text", *(f"{number}.png,text {number}" for number in range(8))]
    for number in range(9):
        Image.new("RGB", (16, 16)).save(tmp_path / f"{number}.png")
    table = tmp_path / "pairs.csv"
    table.write_text("\n".join(rows) + "\n")
    run = vlmdsl.train("clip", data=[str(table)], settings=SMALL, out=tmp_path / "run").folder
    table.write_text("\n".join([*rows, "8.png,text 8"]) + "\n")
    code, message = code_of(lambda: vlmdsl.train(resume=run))
    assert (code, "set of samples" in message) == ("V0818", True)


def test_held_out_data_is_named_as_in_train(sound: Path, tmp_path: Path, run_command: Callable[..., Result]) -> None:
    shutil.copytree(sound, tmp_path / "run")
    for option in ("--val", "--data"):
        result = run_command("eval", str(tmp_path / "run"), option, "shapes:samples=7,size=16", "--json")
        assert (result.code, json.loads(result.stdout)["samples"]) == (0, 7), result.stderr
