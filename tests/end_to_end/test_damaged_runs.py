"""Every file of a run folder, damaged in every way: a code that names the file, or the older checkpoint, never a bug."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import vlmdsl
from bundled.runs import SETTINGS, with_tiny_towers
from vlmdsl import DiagnosticError
from vlmdsl.runtime.tracking.metrics import SPEED
from vlmdsl.runtime.values import TextBatch

DATA = ["shapes:samples=8,size=16"]
SMALL = SETTINGS | {"train.batch": 4, "train.checkpoint_every": 1, "evaluation.limit": 8}
RECIPE = 'vlo 1\n\nrecipe mine(image: Image, text: Text)\nuse "./parts.vlo" as parts\n\nminimize twice(image, eda(text))\n'
PARTS = "vlo 1\n\ndef twice(a, b) = 2 * contrast(a, b)\n"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    with_tiny_towers(monkeypatch)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two steps with a checkpoint each, a used file and a file of synonyms."""
    home = tmp_path_factory.mktemp("home")
    (home / "mine.vlo").write_text(RECIPE)
    (home / "parts.vlo").write_text(PARTS)
    (home / "synonyms.txt").write_text("red, scarlet\n")
    with pytest.MonkeyPatch.context() as patch:
        with_tiny_towers(patch)
        settings = SMALL | {"data.synonyms": str(home / "synonyms.txt")}
        vlmdsl.train(home / "mine.vlo", data=DATA, settings=settings, steps=2, out=home / "run")
    for name in ("mine.vlo", "parts.vlo", "synonyms.txt"):
        (home / name).unlink()
    return home / "run"


CHECKPOINTS = [Path("checkpoints") / f"step-{step:08d}" for step in (2, 1)]
CHECKPOINT_FILES = ["state.json", "model.safetensors", "optimizer.safetensors", "tokenizer.json"]
ALWAYS_READ = ["recipe.vlo", "parts.vlo", "kept/data.synonyms.txt", "config.yaml", "run.json"]
MEASURED_AGAIN = ["evaluation.json", "untrained.json"]
HARMLESS = "without its last line break"


def damages(content: bytes) -> dict[str, bytes | None]:
    """Every way in which a file is damaged; None: it is not there, or a folder is."""
    middle = len(content) // 2
    ways: dict[str, bytes | None] = {f"cut at {tenth}0 %": content[: len(content) * tenth // 10] for tenth in (1, 3, 5, 8)}
    ways |= {HARMLESS: content[:-1], "zeroed": bytes(len(content)), "empty": b"", "no UTF-8": b"\xff\xfe" + content}
    ways["flipped bit"] = content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]
    ways |= {value[:8]: f"{value}\n".encode() for value in ("[]", "{}", "null", "3", '"text"', "NaN", "[" * 100_000)}
    return ways | {"garbage line": content + b"\x00\xff garbage \x1b[31m\n", "removed": None, "folder": None}


def damage(path: Path, how: str) -> None:
    content = damages(path.read_bytes())[how]
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    elif how == "folder":
        path.mkdir()


def end_of(action: Callable[[], object], file: str) -> str:
    """`fine`, or the code of the one diagnostic, whose message names the file."""
    try:
        action()
    except DiagnosticError as error:
        (diagnostic,) = error.diagnostics
        assert file in diagnostic.message, diagnostic.message
        return diagnostic.code
    return "fine"


def ends(sound: Path, scratch: Path, files: list[Path], how: str) -> tuple[str, str]:
    """What evaluating and resuming a run end with, of which some files are damaged."""
    ends_of_both = []
    for action in (vlmdsl.evaluate, lambda run: vlmdsl.train(resume=run)):
        run = scratch / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(sound, run)
        for file in files:
            damage(run / file, how)
        ends_of_both.append(end_of(lambda run=run, action=action: action(run), files[0].name))  # type: ignore[misc]
    return ends_of_both[0], ends_of_both[1]


@pytest.mark.parametrize("name", ALWAYS_READ)
def test_a_damaged_file_of_the_run_is_named(name: str, sound: Path, tmp_path: Path) -> None:
    for how in damages(b"0"):
        expected = "fine" if (name, how) == ("run.json", HARMLESS) else "V0850"
        assert ends(sound, tmp_path, [Path(name)], how) == (expected, expected), how


@pytest.mark.parametrize("name", MEASURED_AGAIN)
def test_a_damaged_evaluation_is_named(name: str, sound: Path, tmp_path: Path) -> None:
    # A bit may turn a digit into another: these files are for people too, who may add to them, so they bear no SHA-256.
    for how in sorted(set(damages(b"0")) - {"flipped bit", "3", "null", '"text"', "cut at 30 %", "cut at 80 %"}):
        expected = "fine" if how in (HARMLESS, "removed") else "V0850"
        assert ends(sound, tmp_path, [Path(name)], how) == (expected, expected), how


def test_damaged_metrics_are_named(sound: Path, tmp_path: Path) -> None:
    # A bit may turn a digit into another, and which one is flipped depends on the speed that the run had.
    for how in [*(how for how in list(damages(b"0"))[::2] if how != "flipped bit"), "removed"]:
        assert ends(sound, tmp_path, [Path("metrics.jsonl")], how)[1] == "V0850", how


@pytest.mark.parametrize("name", CHECKPOINT_FILES)
def test_of_a_damaged_checkpoint_the_older_one_is_taken(
    name: str, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last, first = (folder / name for folder in CHECKPOINTS)
    for how in ("cut at 50 %", "flipped bit", "zeroed", "[]", "removed", "folder"):
        assert ends(sound, tmp_path, [last, first], how) == ("V0850", "V0850"), how
        capsys.readouterr()
        assert ends(sound, tmp_path, [last], how) == ("fine", "fine"), how
        notes = [line for line in capsys.readouterr().err.splitlines() if str(last) in line]
        assert len(notes) == 2
        assert all(note.startswith("note: ") and "step" in note.rpartition(";")[2] for note in notes), notes
        for file in (last, Path("metrics.jsonl")):
            assert_equal_but_for_speed(tmp_path / "run" / file, sound / file)


def assert_equal_but_for_speed(one: Path, other: Path) -> None:
    if one.suffix != ".jsonl":
        assert one.read_bytes() == other.read_bytes()
        return
    records = [[json.loads(line) for line in path.read_text().splitlines()] for path in (one, other)]
    for record in (*records[0], *records[1]):
        for name in SPEED:
            del record[name]
    assert records[0] == records[1]


def test_files_of_one_checkpoint_in_another_are_damage(sound: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name in CHECKPOINT_FILES[:3]:
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(sound, run)
        last, first = (run / folder / name for folder in CHECKPOINTS)
        shutil.move(first, run / "held")
        shutil.move(last, first)
        shutil.move(run / "held", last)
        assert end_of(lambda: vlmdsl.evaluate(run), name) == "V0850"
    shutil.rmtree(run)
    shutil.copytree(sound, run)
    shutil.rmtree(run / CHECKPOINTS[1])
    (run / CHECKPOINTS[0]).rename(run / CHECKPOINTS[1])
    assert end_of(lambda: vlmdsl.train(resume=run), "state.json") == "V0850"


def test_a_checkpoint_of_another_run_is_named(sound: Path, tmp_path: Path) -> None:
    for settings in ({"train.seed": 1}, {"model.dimension": 10}):
        other = vlmdsl.train("clip", data=DATA, settings=SMALL | settings, steps=2, out=tmp_path / str(settings)).folder
        run = tmp_path / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(sound, run)
        shutil.rmtree(run / CHECKPOINTS[0])
        shutil.copytree(other / CHECKPOINTS[0], run / CHECKPOINTS[0])
        assert end_of(lambda: vlmdsl.train(resume=run), "step-00000002") == "V0853"  # noqa: B023
        assert end_of(lambda: vlmdsl.evaluate(run), "step-00000002") == "V0853"  # noqa: B023


def test_the_model_of_a_run_is_there_without_fit(sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound, tmp_path / "run")
    trainer = vlmdsl.Trainer(resume=tmp_path / "run")
    stored = load_file(sound / CHECKPOINTS[0] / "model.safetensors")
    assert all(torch.equal(stored[name], tensor) for name, tensor in trainer.model.state_dict().items())
    text = TextBatch(*trainer.tokenizer.encode(["a red circle"], 8))
    assert trainer.model.encode("language", text).pooled is not None
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert end_of(lambda: vlmdsl.Trainer(resume=tmp_path / "run").model, "run") == "V0816"
