"""Streams: the same batches for any number of workers and processes and after a resume, without an index of the samples."""

from __future__ import annotations

import itertools
import os
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from batches import streams_in_forms
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.ir import Graph, Stream
from vlmdsl.runtime.data import BatchLoader, Requirement, map_fields, open_source, open_stream
from vlmdsl.runtime.data.formats import columnar_stream
from vlmdsl.runtime.data.lanes import Lane
from vlmdsl.runtime.data.streams import TarStream
from vlmdsl.runtime.tokenizer import train_tokenizer
from vlmdsl.runtime.values import Batch, ImageBatch, ImageFormat, Noise, port

NEEDS = [Requirement("image", "Image"), Requirement("text", "Text")]
DRAWN = Graph()
DRAWS = [
    DRAWN.add("draw", name="of_step", distribution="uniform", arguments=(0.0, 1.0)),
    DRAWN.add("draw", name="of_samples", distribution="uniform", arguments=(0.0, 1.0), count=2),
]
FORMS = ImageFormat(8), train_tokenizer(["sample 0123456789"] * 2, 300), 8
SIZES = (11, 7, 9, 8, 10, 6)


@pytest.fixture
def folder(pairs: Callable[..., Path]) -> Path:
    """Six shards of different lengths, 51 samples in all; three of them are bad."""
    for number, size in enumerate(SIZES):
        damage = {"0002.txt": None} if number in (0, 3) else {"0001.png": b"?"} if number == 5 else {}
        path = pairs(size, damage, name=f"s{number}.tar")
    return path.parent


BAD = {"s0/0002", "s3/0002", "s5/0001"}


def loader(folder: Path, streams: list[Stream], **options: int) -> BatchLoader:
    stream = open_stream(str(folder))
    settings = {"batch": 6, "lanes": 3, "window": 5, "seed": 3, "draws": DRAWS} | options
    return BatchLoader(stream, map_fields(stream.head, NEEDS), streams_in_forms(streams, *FORMS), **settings)  # type: ignore[arg-type]


def take(batches: BatchLoader, count: int) -> list[Batch]:
    return list(itertools.islice(batches, count))


def keys(batches: list[Batch]) -> list[list[str]]:
    return [batch.keys for batch in batches]


def pixels(batch: Batch) -> torch.Tensor:
    images = batch.values["image"]
    assert isinstance(images, ImageBatch)
    return images.pixels


def test_every_place_is_a_sample_as_the_index_finds_it(folder: Path) -> None:
    stream, source = open_stream(str(folder)), open_source(str(folder))
    places = [place for shard in range(stream.shards) for place in stream.places(shard)]
    assert [stream.keys[place] for place in places] == list(source.keys)
    assert all(dict(stream[place]) == dict(source[index]) for index, place in enumerate(places))
    assert list(stream.places(1, 4)) == list(stream.places(1))[4:]
    assert [open_stream(str(folder)).count(shard) for shard in range(6)] == list(SIZES)
    assert len(stream.head) == sum(SIZES[number] for number in (0, 1, 3, 4))


def test_a_pass_of_a_lane_has_every_good_sample_at_most_once(folder: Path, plain_streams: list[Stream]) -> None:
    """Lane 0 has shards 0 and 3 with 19 samples, lane 1 has 17, lane 2 has 15: 9, 8 and 7 shares of two."""
    batches = take(loader(folder, plain_streams), 18)
    for batch in batches:
        assert len(set(batch.keys)) == 6
        assert not set(batch.keys) & BAD
        assert [
            key[:2] in lane for key, lane in zip(batch.keys[::2], (("s0", "s3"), ("s1", "s4"), ("s2", "s5")), strict=True)
        ]
    for lane, shares in enumerate((9, 8, 7)):
        own = [key for batch in batches for key in batch.keys[2 * lane : 2 * lane + 2]]
        passes = [own[2 * shares * number : 2 * shares * (number + 1)] for number in range(2)]
        assert passes[0] != passes[1]
        for done in passes:  # but for what stands in for bad samples, which comes in its own turn, too
            assert sum(Counter(done).values()) - len(set(done)) <= len(BAD)
    later = take(loader(folder, plain_streams), 60)
    assert {key for batch in later for key in batch.keys} == set(open_source(str(folder)).keys) - BAD


@pytest.mark.parametrize("options", [{"workers": 2}, {}])
def test_workers_and_processes_change_nothing(folder: Path, plain_streams: list[Stream], options: dict[str, int]) -> None:
    alone = take(loader(folder, plain_streams), 20)
    shares = [take(loader(folder, plain_streams, rank=rank, world=3, **options), 20) for rank in range(3)]
    assert keys(alone) == [[key for share in shares for key in share[n].keys] for n in range(20)]
    for number, batch in enumerate(alone):
        parts = [share[number] for share in shares]
        assert torch.equal(pixels(batch), torch.cat([pixels(part) for part in parts]))
        assert torch.equal(batch.draws["of_samples"], torch.cat([part.draws["of_samples"] for part in parts]))
        assert {part.draws["of_step"].item() for part in parts} == {batch.draws["of_step"].item()}


@pytest.mark.parametrize("done", [0, 1, 7, 8, 9, 40, 200])
def test_a_resumed_stream_goes_on_exactly(folder: Path, plain_streams: list[Stream], done: int) -> None:
    whole = keys(take(loader(folder, plain_streams), done + 12))
    resumed = loader(folder, plain_streams)
    resumed.load_state_dict({"epoch": 0, "batch": done})
    assert keys(take(resumed, 12)) == whole[done:]
    assert resumed.state_dict() == {"epoch": 0, "batch": done + 12}


def test_what_is_drawn_for_a_sample_differs_between_passes(folder: Path, plain_streams: list[Stream]) -> None:
    batches = take(loader(folder, plain_streams, noise={"image": 4}), 18)  # type: ignore[arg-type]
    drawn: dict[str, list[torch.Tensor]] = {}
    for batch in batches:
        noise = batch.values[port("image", "noise")]
        assert isinstance(noise, Noise)
        for key, row in zip(batch.keys, noise.numbers, strict=True):
            drawn.setdefault(key, []).append(row)
    again = [torch.equal(*rows[:2]) for rows in drawn.values() if len(rows) > 1]
    assert len(again) > 30
    assert sum(again) <= 2 * len(BAD)  # one that stands in is drawn alike in its own turn


def test_bad_samples_are_counted_and_a_window_without_good_ones_stops_the_run(
    pairs: Callable[..., Path], plain_streams: list[Stream], folder: Path
) -> None:
    batches = loader(folder, plain_streams)
    take(batches, 10)
    assert set(batches.report.samples) == BAD
    pairs(8, {f"{index:04d}.png": b"?" for index in range(7)}, name="s1.tar")
    with pytest.raises(DiagnosticError) as caught:
        take(loader(folder, plain_streams), 10)
    assert caught.value.diagnostics[0].code == "V0828"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_is_damaged_or_changed_stops_the_run_by_name(
    folder: Path, pairs: Callable[..., Path], plain_streams: list[Stream], workers: int
) -> None:
    path = folder / "s2.tar"
    path.write_bytes(path.read_bytes()[:5000])
    batches = loader(folder, plain_streams, workers=workers)
    with pytest.raises(DiagnosticError, match=r"V0807: the shard `.*s2.tar` cannot be read"):
        take(batches, 10)
    changed = loader(pairs(9, name="s2.tar").parent, plain_streams, workers=workers)
    pairs(9, {"0000.txt": "another"}, name="s2.tar")
    with pytest.raises(DiagnosticError, match="changed while it was in use"):
        take(changed, 10)


def test_lanes_that_cannot_be_split_among_processes_are_refused(folder: Path, plain_streams: list[Stream]) -> None:
    for options, code in (
        ({"lanes": 7, "batch": 7}, "V0837"),
        ({"lanes": 4}, "V0837"),
        ({"lanes": 3, "world": 2}, "V0837"),
        ({"world": 4}, "V0821"),
    ):
        with pytest.raises(DiagnosticError) as caught:
            loader(folder, plain_streams, **options)
        assert caught.value.diagnostics[0].code == code
    with pytest.raises(DiagnosticError, match="V0809: the data has 19 samples, fewer than one batch of 20"):
        take(loader(folder, plain_streams, batch=60), 1)
    with pytest.raises(DiagnosticError, match=r"V0837: .*is not a tar shard"):
        open_stream("shapes:samples=20")


def test_what_is_not_a_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "s.tar")
    with pytest.raises(DiagnosticError, match="V0807"):
        open_stream(str(tmp_path / "s.tar"))


def test_only_what_is_read_is_counted_on_the_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read before the first batch, and only the shards of the lane are afterwards."""
    stream, entered = open_stream(str(folder)), []
    places = TarStream.places
    monkeypatch.setattr(
        TarStream, "places", lambda self, shard, start=0: entered.append(shard) or places(self, shard, start)
    )
    lane = Lane(stream, 1, 3, share=2, window=4, seed=0)
    assert entered == []
    lane.chunk(0)
    assert len(entered) == 1
    lane.chunk(11)
    assert set(entered) == {1, 4}
    copy = pickle.loads(pickle.dumps(lane))
    assert copy.chunk(3) == lane.chunk(3)


def test_members_with_links_and_repeated_keys_in_a_stream(shard: Callable[..., Path]) -> None:
    path = shard("r.tar", {"a.txt": "1", "b.bin": "", "c.cls": "3", "c.txt": "4", ".hidden": "", "c.json": {"n": 5}})
    stream = open_stream(str(path))
    samples = {stream.keys[place]: dict(stream[place]) for place in stream.places(0)}
    assert samples == {"r/a": {"txt": "1"}, "r/b": {}, "r/c": {"cls": 3, "txt": "4", "n": 5}}


def test_parquet_files_are_a_stream(
    tmp_path: Path, image: Callable[..., bytes], plain_streams: list[Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same batches after a resume, in worker processes, and split among processes; files are opened when reached."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet", reason="the extra `arrow`")
    for number, size in enumerate(SIZES):
        rows = {"image": [image(row) for row in range(size)], "text": [f"sample {row}" for row in range(size)]}
        parquet.write_table(pyarrow.table(rows), tmp_path / f"p{number}.parquet", row_group_size=4)
    stream = open_stream(str(tmp_path))
    places = [place for shard in range(6) for place in stream.places(shard)]
    assert [stream.keys[place] for place in places] == list(open_source(str(tmp_path)).keys)
    whole = take(loader(tmp_path, plain_streams), 20)
    monkeypatch.setattr(columnar_stream, "_OPENED", 2)  # files are closed, and opened again
    resumed = loader(tmp_path, plain_streams)
    resumed.go_to(13)
    assert keys(take(resumed, 7)) == keys(whole)[13:]
    shares = [take(loader(tmp_path, plain_streams, rank=rank, world=3, workers=2 * (rank == 0)), 20) for rank in range(3)]
    for number, batch in enumerate(whole):
        assert torch.equal(pixels(batch), torch.cat([pixels(share[number]) for share in shares]))
    (tmp_path / "t.csv").write_text("image,text")
    with pytest.raises(DiagnosticError, match="V0837"):
        open_stream(str(tmp_path / "t.csv"))
