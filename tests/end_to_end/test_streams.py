"""Runs on a stream of shards: two passes, resumed bit for bit, on two processes as on one."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vlmdsl
from bundled.runs import SETTINGS, with_tiny_towers
from vlmdsl import DiagnosticError
from vlmdsl.runtime.data import open_source, streams
from vlmdsl.runtime.tracking.metrics import SPEED
from vlmdsl.runtime.training import stages
from vlmdsl.runtime.training.loop import train_steps
from vlmdsl.runtime.values import Batch

CODE = os.pathsep.join([str(Path(vlmdsl.__file__).parents[1] / name) for name in ("", "cli")])
STEPS, HALF = 6, 4
STREAM = SETTINGS | {"data.stream": True, "data.stream_window": 4, "train.checkpoint_every": HALF, "evaluation.limit": 8}

MIXED = """
flow pairs(image, text) share 50% {
  minimize contrast(image, text)
}

flow texts(text) {
  minimize mlm(mask(text, random(15%)))
}
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 scenes in four shards: a pass of three batches of 8."""
    folder = tmp_path_factory.mktemp("shards")
    source = open_source("shapes:samples=24,size=16")
    for number in range(4):
        with tarfile.open(folder / f"s{number}.tar", "w") as archive:
            for index in range(6 * number, 6 * number + 6):
                sample, file = source[index], io.BytesIO()
                Image.fromarray(np.asarray(sample["image"])).save(file, "PNG")
                for ending, data in (("png", file.getvalue()), ("txt", str(sample["text"]).encode())):
                    header = tarfile.TarInfo(f"{index:04d}.{ending}")
                    header.size = len(data)
                    archive.addfile(header, io.BytesIO(data))
    return folder


def records(run: Path) -> list[dict[str, Any]]:
    """The metrics without the speed, which no two runs share."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for record in lines:
        for name in SPEED:
            del record[name]
    return lines


def test_a_resumed_run_on_a_stream_is_the_same_bit_for_bit(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_tiny_towers(monkeypatch)
    monkeypatch.setattr(streams, "_HEAD", 1)  # fewer samples than a batch has
    run, kept = tmp_path / "run", tmp_path / "kept"
    vlmdsl.train("clip", data=[str(shards)], settings=STREAM, steps=STEPS, out=run)
    shutil.copytree(run, kept)
    end = Path("checkpoints") / f"step-{STEPS:08d}"
    shutil.rmtree(run / end)
    vlmdsl.train(resume=run)
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        assert (run / end / name).read_bytes() == (kept / end / name).read_bytes()
    assert records(run) == records(kept)
    assert len({record["loss"] for record in records(run)}) == STEPS
    train = json.loads((run / "run.json").read_text())["data"]["train"]
    assert (train["samples"], train["shards"]) == (None, 4)
    assert train["remarks"] == ["read as a stream of 4 shards; remarks on the samples cover 1 of them"]

    (shards / "s4.tar").write_bytes((shards / "s0.tar").read_bytes())
    shutil.rmtree(run / end)
    try:
        with pytest.raises(DiagnosticError, match="V0818") as caught:
            vlmdsl.train(resume=run)
        assert caught.value.diagnostics[0].notes == ("it was read from other shards (train), or not as a stream",)
    finally:
        (shards / "s4.tar").unlink()


def test_a_data_set_by_name_is_streamed_and_resumed_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra `datasets`")
    with_tiny_towers(monkeypatch)
    source = open_source("shapes:samples=24,size=16")
    (tmp_path / "hub").mkdir()
    datasets.disable_progress_bars()
    for number in range(4):
        samples = [source[index] for index in range(6 * number, 6 * number + 6)]
        rows = {"image": [np.asarray(one["image"]) for one in samples], "text": [one["text"] for one in samples]}
        features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "hub" / f"train-{number}.parquet")
    settings = STREAM | {"data.workers": 0, "data.cache": str(tmp_path / "cache"), "data.stream_lanes": 2}
    run, kept, end = tmp_path / "run", tmp_path / "kept", Path("checkpoints") / f"step-{STEPS:08d}"
    vlmdsl.train("clip", data=[f"hf:{tmp_path}/hub"], settings=settings, steps=STEPS, out=run)
    shutil.copytree(run, kept)
    shutil.rmtree(run / end)
    vlmdsl.train(resume=run)
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        assert (run / end / name).read_bytes() == (kept / end / name).read_bytes()
    train = json.loads((run / "run.json").read_text())["data"]["train"]
    assert (train["samples"], train["shards"]) == (None, 4)
    assert len({record["loss"] for record in records(run)}) == STEPS


def test_each_flow_reads_all_shards_and_resumes(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_tiny_towers(monkeypatch)
    read: list[tuple[str, tuple[str, ...]]] = []

    def recorded(model: Any, optimizer: Any, batches: Iterator[Batch], *rest: Any, **more: Any) -> None:
        def listed() -> Iterator[Batch]:
            for batch in batches:
                read.append((batch.flow, tuple(batch.keys)))
                yield batch

        train_steps(model, optimizer, listed(), *rest, **more)

    monkeypatch.setattr(stages, "train_steps", recorded)
    run, end = tmp_path / "run", Path("checkpoints") / f"step-{2 * HALF:08d}"
    vlmdsl.train(MIXED, expression=True, data=[str(shards)], settings=STREAM, steps=2 * HALF, out=run)
    whole, kept = read[: 2 * HALF], [(run / end / name).read_bytes() for name in ("model.safetensors", "state.json")]
    first_passes = {flow: [keys for name, keys in whole if name == flow][:3] for flow in ("pairs", "texts")}
    for batches in first_passes.values():
        assert len({key for keys in batches for key in keys}) == 24, "a pass of a flow is over all samples"
    assert first_passes["pairs"] != first_passes["texts"]
    read.clear()
    shutil.rmtree(run / end)
    vlmdsl.train(resume=run)
    assert read[:HALF] == whole[HALF:]
    assert [(run / end / name).read_bytes() for name in ("model.safetensors", "state.json")] == kept


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_train_on_a_stream_as_one(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [word for name, value in STREAM.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    environment = os.environ | {"PYTHONPATH": CODE, "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "vlmdsl"]
    command = ["train", "clip", "--data", str(shards), "--steps", str(STEPS), *options, "--out", str(tmp_path / "two")]
    done = subprocess.run([*launch, *command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    vlmdsl.train("clip", data=[str(shards)], settings=STREAM, steps=STEPS, out=tmp_path / "one")
    for one, both in zip(records(tmp_path / "one"), records(tmp_path / "two"), strict=True):
        assert both == pytest.approx(one, rel=1e-4)


def test_what_needs_random_access_is_refused_as_a_stream(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,text\n")
    one_source = "vlo 1\nrecipe debiased(image: Image, text: Text)\nbatch one_source\nminimize contrast(image, text)"
    epochs = "vlo 1\nrecipe r(image: Image, text: Text)\nminimize ramp(0, 1, over=2 epochs) * contrast(image, text)"
    mixed = MIXED.replace("minimize mlm", 'minimize ramp(0, 1, over=1 epochs, after=2 steps, name="rising") * mlm')
    kept = 'vlo 1\nminimize mean(running_mean(score(image, text), per="sample") * score(image, text))'
    for recipe, data, reason in (
        (kept, str(shards), "keeps a number per sample"),
        ("clip", "shapes", "`shapes` is not a tar shard"),
        ("clip", str(tmp_path / "t.csv"), "is not a tar shard"),
        (one_source, str(shards), "batches of one source each"),
        (epochs, str(shards), "`ramp` counts epochs"),
        (mixed, str(shards), "`rising` counts epochs"),
        ("clip", str(tmp_path / "none.tar"), "V0805"),
    ):
        with pytest.raises(DiagnosticError, match=reason):
            vlmdsl.train(recipe, data=[data], settings=STREAM, steps=2, out=tmp_path / "run")
