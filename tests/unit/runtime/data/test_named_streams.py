"""Data sets of the library `datasets` as streams, of folders on this machine: nothing is fetched."""

from __future__ import annotations

import itertools
import json
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from batches import streams_in_forms
from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.ir import Stream
from vlmdsl.runtime.data import BatchLoader, Limits, Requirement, map_fields, open_stream
from vlmdsl.runtime.data.formats.named_stream import NamedDataStream
from vlmdsl.runtime.data.lanes import workers_for_turns
from vlmdsl.runtime.data.limits import DEFAULT_LIMITS
from vlmdsl.runtime.data.source import BadSample
from vlmdsl.runtime.tokenizer import train_tokenizer
from vlmdsl.runtime.values import Batch, ImageBatch, ImageFormat

datasets = pytest.importorskip("datasets", reason="the extra `datasets`")

NEEDS = [Requirement("image", "Image"), Requirement("text", "Text")]
FORMS = ImageFormat(8), train_tokenizer(["sample 0123456789"] * 2, 300), 8
SIZES = (9, 7, 11, 8, 6, 10, 7, 12)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, image: Callable[..., bytes]) -> Path:
    """Eight Parquet files of different lengths in row groups of 4; the second row of the fourth file has a damaged image."""
    folder = tmp_path_factory.mktemp("hub")
    features = datasets.Features(
        {"image": datasets.Image(), "text": datasets.Value("string"), "label": datasets.ClassLabel(names=["dim", "bright"])}
    )
    datasets.disable_progress_bars()
    for number, size in enumerate(SIZES):
        images = [
            {"bytes": b"?" if (number, row) == (3, 1) else image(10 * number + row), "path": None} for row in range(size)
        ]
        texts = [f"sample {number} {row}" for row in range(size)]
        own = datasets.Dataset.from_dict({"image": images, "text": texts, "label": [0] * size}, features=features)
        own.to_parquet(folder / f"train-{number:05d}-of-{len(SIZES):05d}.parquet", batch_size=4)
    return folder


@pytest.fixture
def limits(tmp_path: Path) -> Limits:
    return replace(DEFAULT_LIMITS, cache=str(tmp_path / "cache"))


def stream_of(folder: Path, limits: Limits) -> NamedDataStream:
    stream = open_stream(f"hf:{folder}", limits)
    assert isinstance(stream, NamedDataStream)
    return stream


def take(folder: Path, limits: Limits, streams: list[Stream], count: int, start: int = 0, **options: Any) -> list[Batch]:
    stream = stream_of(folder, limits)
    settings = {"batch": 4, "lanes": 2, "window": 4, "seed": 3} | options
    loader = BatchLoader(stream, map_fields(stream.head, NEEDS), streams_in_forms(streams, *FORMS), **settings)
    loader.load_state_dict({"epoch": 0, "batch": start})
    return list(itertools.islice(loader, count))


def keys(batches: list[Batch]) -> list[list[str]]:
    return [batch.keys for batch in batches]


def problem(spec: str | list[str], limits: Limits) -> Diagnostic:
    with pytest.raises(DiagnosticError) as caught:
        open_stream(spec, limits)
    return caught.value.diagnostics[0]


def test_rows_pass_by_once_in_their_order(shards: Path, limits: Limits) -> None:
    stream = stream_of(shards, limits)
    places = list(stream.places(2))
    assert [stream[place]["text"] for place in places] == [f"sample 2 {row}" for row in range(11)]
    assert stream.keys[places[4]] == f"{shards}:train:2/5"
    assert list(stream.places(2, 6)) == places[6:]
    stream.forget(places)
    with pytest.raises(BadSample, match="has passed"):
        stream[places[0]]
    assert (stream.shards, [stream.count(shard) for shard in range(8)]) == (8, list(SIZES))


def test_the_head_is_of_several_shards(shards: Path, limits: Limits) -> None:
    head = stream_of(shards, limits).head
    assert (len(head), head.columns, head.class_names) == (9 + 11 + 6 + 7, ("image", "label", "text"), ("dim", "bright"))
    assert head[9]["text"] == "sample 2 0"
    assert head.keys[9] == f"{shards}:train:2/1"


def test_a_pass_has_every_sample_and_workers_and_processes_change_nothing(
    shards: Path, limits: Limits, plain_streams: list[Stream]
) -> None:
    alone = take(shards, limits, plain_streams, 24)
    for workers in (1, 2):
        other = take(shards, limits, plain_streams, 24, workers=workers)
        assert keys(other) == keys(alone)
        assert all(torch.equal(pixels(one), pixels(two)) for one, two in zip(alone, other, strict=True))
    shares = [take(shards, limits, plain_streams, 24, rank=rank, world=2, workers=2) for rank in range(2)]
    assert keys(alone) == [[key for share in shares for key in share[number].keys] for number in range(24)]
    for turn in range(4):  # two shards each, of which 15 to 20 rows come in a pass
        read = {key.rpartition(":")[2].partition("/")[0] for batch in alone[turn::4] for key in batch.keys}
        assert read == {str(2 * turn), str(2 * turn + 1)}
    every = {key for batch in alone for key in batch.keys}
    assert len(every) > sum(SIZES) - 8 - 1
    assert f"{shards}:train:3/2" not in every


def test_each_worker_reads_shards_of_its_own(
    shards: Path, limits: Limits, plain_streams: list[Stream], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [workers_for_turns(stream_of(shards, limits), 4, most) for most in range(6)] == [0, 1, 2, 2, 4, 4]
    plainly = NamedDataStream._read

    def watched(stream: NamedDataStream, shard: int, start: int = 0) -> Iterator[Any]:
        with (tmp_path / f"{os.getpid()}.read").open("a") as file:
            file.write(f"{shard} ")
        yield from plainly(stream, shard, start)

    monkeypatch.setattr(NamedDataStream, "_read", watched)
    take(shards, limits, plain_streams, 24, workers=2)
    (tmp_path / f"{os.getpid()}.read").unlink()  # the head
    read = [set(path.read_text().split()) for path in tmp_path.glob("*.read")]
    assert sorted(read, key=min) == [{"0", "1", "4", "5"}, {"2", "3", "6", "7"}]


def pixels(batch: Batch) -> torch.Tensor:
    images = batch.values["image"]
    assert isinstance(images, ImageBatch)
    return images.pixels


@pytest.mark.parametrize("done", [1, 7, 13, 30])
def test_a_resumed_stream_goes_on_exactly_and_reads_no_shard_again_that_it_has_passed(
    shards: Path,
    limits: Limits,
    plain_streams: list[Stream],
    done: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one_lane = {"batch": 2, "lanes": 1}  # of two shards in each of the four turns
    whole = keys(take(shards, limits, plain_streams, done + 8, **one_lane))
    (tmp_path / "no-folder").touch()
    forgetful = replace(limits, cache=str(tmp_path / "no-folder"))
    assert keys(take(shards, forgetful, plain_streams, 8, done, **one_lane)) == whole[done:]
    read: list[tuple[int, int]] = []
    plainly = NamedDataStream._read

    def watched(stream: NamedDataStream, shard: int, start: int = 0) -> Iterator[Any]:
        read.append((shard, start))
        yield from plainly(stream, shard, start)

    stream_of(shards, limits)
    monkeypatch.setattr(NamedDataStream, "_read", watched)
    assert keys(take(shards, limits, plain_streams, 1, done, **one_lane)) == whole[done : done + 1]
    assert len(read[4:]) <= 2  # after the head: the shard of the batch, and perhaps the next one


def test_what_a_window_held_is_freed(shards: Path, limits: Limits, plain_streams: list[Stream]) -> None:
    stream = stream_of(shards, limits)
    loader = BatchLoader(
        stream, map_fields(stream.head, NEEDS), streams_in_forms(plain_streams, *FORMS), batch=4, lanes=2, window=4, seed=3
    )
    for _ in itertools.islice(loader, 40):
        assert len(stream._held) <= 8 * 4


def test_lines_of_json_are_streamed_too(tmp_path: Path, limits: Limits) -> None:
    for number in range(3):
        lines = [json.dumps({"text": f"{number} {row}", "own": row}) for row in range(4)]
        (tmp_path / f"train-{number}.jsonl").write_text("\n".join(lines))
    stream = pickle.loads(pickle.dumps(stream_of(tmp_path, limits)))
    assert [stream[place]["text"] for place in stream.places(1, 2)] == ["1 2", "1 3"]
    assert stream.head.columns == ("own", "text")


def test_other_files_have_another_fingerprint(shards: Path, tmp_path: Path, limits: Limits) -> None:
    first = stream_of(shards, limits).fingerprint()
    assert first == stream_of(shards, limits).fingerprint()
    for number in range(2):
        (tmp_path / f"train-{number}.jsonl").write_text('{"text": "a"}\n')
    before = stream_of(tmp_path, limits).fingerprint()
    (tmp_path / "train-1.jsonl").write_text('{"text": "b"}\n{"text": "c"}\n')
    assert len({first, before, stream_of(tmp_path, limits).fingerprint()}) == 3


def test_what_cannot_be_streamed_is_said(shards: Path, tmp_path: Path, limits: Limits, plain_streams: list[Stream]) -> None:
    assert problem(f"hf:{tmp_path}/nowhere", limits).code == "V0842"
    assert problem(f"hf:{shards},split=nothing", limits).code == "V0842"
    assert problem(f"hf:{shards},images={tmp_path}", limits).code == "V0843"
    assert problem([f"hf:{shards}", f"hf:{shards}"], limits).code == "V0837"
    for number in range(2):
        (tmp_path / f"train-{number}.jsonl").write_text('{"text": "a", "image": ""}\n' * (3 if number else 200_000))
    stream = stream_of(tmp_path, limits)
    (tmp_path / "train-1.jsonl").write_text('{"text": "a"')
    with pytest.raises(DiagnosticError) as caught:
        list(stream.places(1))
    assert caught.value.diagnostics[0].code == "V0842"
    assert "--resume" in caught.value.diagnostics[0].help[0]


def test_a_stream_with_fewer_shards_than_lanes_is_refused(shards: Path, limits: Limits, plain_streams: list[Stream]) -> None:
    with pytest.raises(DiagnosticError) as caught:
        take(shards, limits, plain_streams, 1, batch=16, lanes=16)
    assert caught.value.diagnostics[0].code == "V0837"
