"""Whole runs on the built-in data: what a run leaves, what it says about faults, and that being killed changes nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import vlmdsl
from undrawn import curves_drawn
from vlmdsl import DiagnosticError
from vlmdsl.runtime.tracking.metrics import SPEED
from vlmdsl.runtime.values import TextBatch

SMALL = {
    "train.batch": 16,
    "train.compile": False,
    "train.log_every": 1,
    "train.checkpoint_every": 3,
    "train.device": "cpu",
    "evaluation.limit": 80,
}
DATA = ["shapes:samples=64"]
CODE = os.pathsep.join([str(Path(vlmdsl.__file__).parents[1]), str(Path(vlmdsl.__file__).parents[1] / "cli")])


def codes(**arguments: Any) -> list[str]:
    with pytest.raises(DiagnosticError) as caught:
        vlmdsl.train(**arguments)
    return sorted(diagnostic.code for diagnostic in caught.value.diagnostics)


def lines(folder: Path) -> list[dict[str, Any]]:
    """The metrics without the speed, which no two runs share."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        assert all(record.pop(name) > 0 for name in SPEED)
    return records


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of six steps."""
    out = tmp_path_factory.mktemp("runs") / "clip"
    with curves_drawn():
        return vlmdsl.train("clip", data=DATA, steps=6, settings=SMALL, out=out).folder


def test_a_run_leaves_its_record(finished: Path) -> None:
    assert sorted(path.name for path in finished.iterdir()) == [
        "checkpoints", "config.yaml", "curves.png", "evaluation.json", "examples.json", "metrics.jsonl", "recipe.vlo",
        "report.html", "retrieval.png", "run.json", "untrained.json",
    ]  # fmt: skip
    assert (finished / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in sorted((finished / "checkpoints").iterdir())] == ["step-00000003", "step-00000006"]
    assert not [path for path in finished.rglob("*") if path.suffix in (".pt", ".pkl", ".bin")]
    facts = json.loads((finished / "run.json").read_text())
    assert facts["recipe"]["name"] == "clip"
    assert len(facts["recipe"]["digests"]["clip.vlo"]) == 64
    assert facts["data"]["train"]["samples"] == 64
    assert facts["started"]["versions"]["torch"] == torch.__version__
    assert vlmdsl.check((finished / "recipe.vlo").read_text()) == []


def test_the_evaluation_stands_beside_chance_and_the_untrained_model(finished: Path) -> None:
    evaluation = json.loads((finished / "evaluation.json").read_text())
    for direction in ("image_to_text", "text_to_image"):
        group = evaluation["retrieval"][direction]
        assert 0 <= group["R@1"] <= group["R@10"] <= 1
        assert group["chance"]["R@1"] == pytest.approx(1 / evaluation["samples"], rel=0.3)
        assert group["untrained"].keys() == {"R@1", "R@5", "R@10"}
    assert evaluation["step"] == 6


def test_a_run_is_the_same_twice(finished: Path, tmp_path: Path) -> None:
    again = vlmdsl.train("clip", data=DATA, steps=6, settings=SMALL, out=tmp_path / "again").folder
    assert lines(again) == lines(finished)
    other = vlmdsl.train("clip", data=DATA, steps=6, seed=1, settings=SMALL, out=tmp_path / "other").folder
    assert lines(other) != lines(finished)


def test_the_model_is_there_to_be_used(tmp_path: Path) -> None:
    trainer = vlmdsl.Trainer("filip", data=DATA, steps=1, settings=SMALL, out=tmp_path / "run")
    with pytest.raises(RuntimeError, match="fit"):
        _ = trainer.model
    trainer.fit()
    text = TextBatch(*trainer.tokenizer.encode(["a red circle"], 16))
    features = trainer.model.encode("language", text)
    assert features.tokens is not None
    assert features.tokens.shape == (1, 16, 64)


def test_faults_are_reported_together_before_anything_runs(tmp_path: Path) -> None:
    assert codes(recipe="contrast(image, txet)", overrides=["train.stepz=3", "train.batch=1"]) == ["V0201", "V0811", "V0812"]
    assert codes(recipe="unicl", data=[str(tmp_path)]) == ["V0805"]
    assert codes(recipe="clip", data=["shapes:samples=4"], settings=SMALL, out=tmp_path / "a") == ["V0809"]
    assert not (tmp_path / "a").exists()


def test_a_field_that_the_data_lacks_is_reported_before_the_first_step(tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text("image,text\na.png,one\nb.png,two\n")
    assert codes(recipe="unicl", data=[str(table)], out=tmp_path / "run") == ["V0801"]


def test_a_run_is_not_overwritten_nor_continued_as_another(finished: Path, tmp_path: Path) -> None:
    assert codes(recipe="clip", data=DATA, settings=SMALL, out=finished) == ["V0815"]
    assert codes(resume=tmp_path) == ["V0816"]
    assert codes(resume=finished, overrides=["train.batch=8"], seed=2) == ["V0818", "V0818"]
    assert codes(resume=finished, recipe="siglip") == ["V0818"]
    assert codes(resume=finished, knobs={"temperature": 0.1}) == ["V0818"]


def test_a_run_is_continued_to_more_steps_where_nothing_before_changes(tmp_path: Path) -> None:
    """The rate is constant after the warm-up: the longer run is the same, bit for bit, as one that was as long at first."""
    settings = SMALL | {"schedule.final": 1.0, "schedule.warmup_steps": 1, "evaluation.limit": 8}
    whole = vlmdsl.train("clip", data=DATA, steps=5, settings=settings, out=tmp_path / "whole").folder
    parted = vlmdsl.train("clip", data=DATA, steps=3, settings=settings, out=tmp_path / "parted").folder
    vlmdsl.train(resume=parted, steps=5)
    last = "checkpoints/step-00000005/model.safetensors"
    assert (parted / last).read_bytes() == (whole / last).read_bytes()
    assert (parted / "config.yaml").read_text().count("steps: 5") == 1
    with pytest.raises(DiagnosticError) as caught:
        vlmdsl.train(resume=parted, steps=4)
    assert "5 steps are done already" in caught.value.diagnostics[0].notes


def test_what_another_number_of_steps_would_have_changed_is_said(tmp_path: Path) -> None:
    settings = SMALL | {"schedule.warmup_steps": 1, "evaluation.limit": 8}
    run = vlmdsl.train("clip", data=DATA, steps=3, settings=settings, out=tmp_path / "run").folder
    with pytest.raises(DiagnosticError) as caught:
        vlmdsl.train(resume=run, steps=5)
    (fault,) = caught.value.diagnostics
    assert (fault.code, fault.notes[0]) == ("V0818", "it had 3, now 5")
    assert fault.notes[1].startswith("the learning rate of step 3 was 0, and of a run of 5 steps it is 0.001")


def test_steps_are_counted_in_epochs(tmp_path: Path) -> None:
    run = vlmdsl.train("clip", data=DATA, settings=SMALL | {"train.epochs": 1.5, "evaluation.limit": 8}, out=tmp_path / "a")
    assert lines(run.folder)[-1]["step"] == 6  # of 64 samples in batches of 16
    vlmdsl.train(resume=run.folder)
    assert "steps: 6" in (run.folder / "config.yaml").read_text()


def test_a_recipe_of_several_files_is_kept_whole(tmp_path: Path) -> None:
    (tmp_path / "parts.vlo").write_text("vlo 1\n\ndef twice(a, b) = 2 * contrast(a, b)\n")
    recipe = tmp_path / "mine.vlo"
    recipe.write_text(
        'vlo 1\n\nrecipe mine(image: Image, text: Text)\nuse "./parts.vlo" as parts\n\nminimize twice(image, text)\n'
    )
    run = vlmdsl.train(recipe, data=DATA, steps=3, settings=SMALL, out=tmp_path / "run").folder
    assert (run / "parts.vlo").read_text() == (tmp_path / "parts.vlo").read_text()
    recipe.write_text("nonsense")
    assert vlmdsl.train(resume=run).folder == run
    assert json.loads((run / "run.json").read_text())["resumed"][0]["processes"] == 1


def test_an_evaluation_can_be_repeated(finished: Path) -> None:
    before = json.loads((finished / "evaluation.json").read_text())
    assert vlmdsl.evaluate(finished).evaluation == before
    marked = json.loads(json.dumps(before))
    marked["zero_shot"]["untrained"]["top-1"] = -1.0  # found again only if the untrained model is not measured again
    (finished / "evaluation.json").write_text(json.dumps(marked))
    assert vlmdsl.evaluate(finished).evaluation == marked
    (finished / "evaluation.json").write_text(json.dumps(marked | {"conditions": {}}))
    assert vlmdsl.evaluate(finished).evaluation == before
    smaller = vlmdsl.evaluate(finished, data=["shapes"], overrides=["evaluation.limit=50"])
    assert smaller.evaluation["samples"] == 50
    assert json.loads((finished / "evaluation.json").read_text()) == before


def test_a_resumed_run_reads_what_the_untrained_model_could(finished: Path, tmp_path: Path) -> None:
    def resumed(change: dict[str, Any]) -> dict[str, Any]:
        """The evaluation of the run, resumed at its third step, where `untrained.json` says something of its own."""
        run = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(finished, run)
        shutil.rmtree(run / "checkpoints" / "step-00000006")
        (run / "evaluation.json").unlink()
        (run / "untrained.json").write_text(json.dumps(json.loads((run / "untrained.json").read_text()) | change))
        return dict(vlmdsl.train(resume=run).evaluation)

    before = json.loads((finished / "evaluation.json").read_text())
    untrained = json.loads((finished / "untrained.json").read_text())
    assert (untrained["step"], untrained["zero_shot"]["top-1"]) == (0, before["zero_shot"]["untrained"]["top-1"])
    marked = {"zero_shot": untrained["zero_shot"] | {"untrained": {"top-1": -1.0}}}
    assert resumed(marked)["zero_shot"] == before["zero_shot"] | {"untrained": {"top-1": -1.0}}
    assert resumed(marked | {"conditions": {}}) == before  # measured under others: measured again, of the same weights


def test_texts_and_images_that_are_not_unique_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "one.png")
    rows = [f"one.png,{text}" for text in ["a dog", "a cat", "a dog", *(f"text {number}" for number in range(13))]]
    (tmp_path / "pairs.csv").write_text("\n".join(["image,text", *rows]) + "\n")
    run = vlmdsl.train("clip", data=[str(tmp_path / "pairs.csv")], steps=1, settings=SMALL, out=tmp_path / "run").folder
    noted = json.loads((run / "run.json").read_text())["data"]["train"]
    assert (noted["duplicate_texts"], noted["duplicate_images"]) == ({"text": 0.125}, {"image": 1.0})
    messages = capsys.readouterr().err
    assert "note: 12% of the inspected `text` are not unique" in messages
    assert "note: 100% of the inspected `image` are not unique" in messages


def test_what_is_skipped_is_reported_and_noted(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "one.png")
    (tmp_path / "damaged.png").write_bytes(b"no image")
    rows = ["damaged.png,a text", "one.png,", *(f"one.png,text {number}" for number in range(16))]
    (tmp_path / "pairs.csv").write_text("\n".join(["image,text", *rows]) + "\n")
    result = vlmdsl.train("clip", data=[str(tmp_path / "pairs.csv")], steps=2, settings=SMALL, out=tmp_path / "run")
    skipped = json.loads((tmp_path / "run" / "run.json").read_text())["skipped"]["train"]
    assert sum(skipped["skipped"].values()) == 2
    assert "training data: skipped 2 samples\n    " in result.summary  # what follows the first line belongs to it
    assert all(reason in result.summary for reason in skipped["skipped"])


def test_a_run_that_diverges_says_so_and_leaves_its_record(tmp_path: Path) -> None:
    settings = SMALL | {"optimizer.learning_rate": 1e30, "train.clip_gradient_norm": None, "schedule.warmup_steps": 0}
    out = tmp_path / "run"
    with pytest.raises(DiagnosticError, match="the term `contrast` is not finite at step"):
        vlmdsl.train("clip", data=DATA, steps=9, settings=settings, out=out)
    assert lines(out)
    assert (out / "curves.png").is_file()


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_train_as_one(finished: Path, tmp_path: Path) -> None:
    options = [word for name, value in SMALL.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "vlmdsl"]
    command = [*launch, "train", "clip", "--data", *DATA, "--steps", "6", "--out", str(tmp_path / "two"), *options]
    environment = os.environ | {"PYTHONPATH": CODE, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run folder") == 1
    for one, two in zip(lines(finished), lines(tmp_path / "two"), strict=True):
        assert two == pytest.approx(one, rel=1e-4)
    assert json.loads((tmp_path / "two" / "run.json").read_text())["started"]["processes"] == 2


PROGRAM = """
import sys, torch, vlmdsl
torch.set_num_threads(1)
settings = {settings}
if sys.argv[1] == "start":
    vlmdsl.train("clip", data={data}, steps=12, settings=settings, out=sys.argv[2])
else:
    vlmdsl.train(resume=sys.argv[2])
"""


KEPT = SMALL | {"train.keep": 4, "data.workers": 1}


def started(word: str, folder: Path) -> subprocess.Popen[bytes]:
    program = PROGRAM.format(settings=KEPT, data=DATA)
    environment = os.environ | {"PYTHONPATH": CODE}
    return subprocess.Popen([sys.executable, "-c", program, word, str(folder)], env=environment, stderr=subprocess.PIPE)


def kill_after(process: subprocess.Popen[bytes], metrics: Path, count: int) -> None:
    """SIGKILL as soon as `count` lines of metrics are there; a run that ended before was not killed."""
    while process.poll() is None:
        if metrics.is_file() and metrics.read_bytes().count(b"\n") >= count:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    process.communicate()


@pytest.mark.slow
def test_a_run_that_is_killed_and_resumed_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    whole, threads = tmp_path / "whole", torch.get_num_threads()
    torch.set_num_threads(1)
    vlmdsl.train("clip", data=DATA, steps=12, settings=KEPT, out=whole)
    torch.set_num_threads(threads)
    killed = tmp_path / "killed"
    draws = random.Random(os.getpid())
    first, second = draws.randint(1, 6), draws.randint(7, 11)
    kill_after(started("start", killed), killed / "metrics.jsonl", first)
    kill_after(started("resume", killed), killed / "metrics.jsonl", second)
    assert not (killed / "evaluation.json").is_file(), f"not killed after {second} steps"
    _, said = started("resume", killed).communicate()
    assert (killed / "evaluation.json").is_file(), said.decode()
    assert lines(killed) == lines(whole), f"killed after {first} and {second} steps"
    for step in (3, 12):
        for name in ("model.safetensors", "optimizer.safetensors"):
            place = Path("checkpoints") / f"step-{step:08d}" / name
            one, other = load_file(whole / place), load_file(killed / place)
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in one), place
    states = [(folder / "checkpoints/step-00000012/state.json").read_text() for folder in (whole, killed)]
    assert states[0] == states[1]
    evaluations = [json.loads((folder / "evaluation.json").read_text()) for folder in (whole, killed)]
    assert evaluations[0] == evaluations[1]


def test_steps_on_the_command_line_replace_the_epochs_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("train: {epochs: 1.5}\nschedule: {final: 1, warmup_steps: 0}\n")
    settings = SMALL | {"evaluation.limit": 8, "tracking.report": False}
    run = vlmdsl.train("clip", data=DATA, config=file, settings=settings, steps=2, out=tmp_path / "run").folder
    assert lines(run)[-1]["step"] == 2
    counted = vlmdsl.train("clip", data=DATA, config=file, settings=settings, out=tmp_path / "counted").folder
    assert lines(counted)[-1]["step"] == 6
    vlmdsl.train(resume=counted, settings={"train.epochs": 1.5})
    vlmdsl.train(resume=counted, steps=7)
    assert lines(counted)[-1]["step"] == 7
    with pytest.raises(DiagnosticError) as caught:
        vlmdsl.train(resume=counted, settings={"train.epochs": 2})
    (fault,) = caught.value.diagnostics
    assert (fault.code, fault.message.rpartition(" ")[2]) == ("V0818", "`train.epochs`")
