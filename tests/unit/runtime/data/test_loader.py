"""The loaders: equal batches for any number of workers and processes and after a resume; bad samples are reported."""

from __future__ import annotations

import gc
import itertools
import math
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import vlmdsl
from batches import loaded_values, streams_in_forms
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.ir import Graph, Node, Reading, Stream, ramps
from vlmdsl.runtime.data import BatchLoader, EvaluationLoader, Requirement, loading, map_fields, open_source
from vlmdsl.runtime.data.loading import workers_for
from vlmdsl.runtime.data.sample import SampleReader
from vlmdsl.runtime.tokenizer import train_tokenizer
from vlmdsl.runtime.values import Batch, ImageBatch, ImageFormat, Noise, ScalarBatch, TextBatch, Value, cat, port
from vlmdsl.types import ScalarType

NEEDS = [Requirement("image", "Image"), Requirement("text", "Text"), Requirement("label", "Label")]
TOKENIZER = train_tokenizer(["sample 0123456789"] * 2, 300)
LAM = Graph().add("draw", type=ScalarType(), name="lam", distribution="beta", arguments=(0.4, 0.4))
FORMS = ImageFormat(16), TOKENIZER, 16


def shapes_loader(streams: list[Stream], **options: int | list[Node]) -> BatchLoader:
    source = open_source("shapes:samples=50,size=20")
    mapping = map_fields(source, [*NEEDS, Requirement("text_rewrites", "Rewrites")])
    options = {"batch": 8, "seed": 3, **options}
    arguments = {"fields": {"label": "Label"}, "draws": [LAM], **options}
    return BatchLoader(source, mapping, streams_in_forms(streams, *FORMS), **arguments)  # type: ignore[arg-type]


def shard_loader(path: Path, streams: list[Stream], **options: int) -> BatchLoader:
    source = open_source(str(path))
    return BatchLoader(source, map_fields(source, NEEDS[:2]), streams_in_forms(streams, *FORMS), **options)  # type: ignore[arg-type]


def take(loader: BatchLoader, count: int) -> list[Batch]:
    return list(itertools.islice(loader, count))


def same(first: Batch, second: Batch) -> bool:
    def tensors(batch: Batch) -> Iterator[torch.Tensor]:
        for value in batch.values.values():
            yield from (part for part in value if part is not None)
        yield batch.index
        yield from batch.draws.values()

    equal = all(torch.equal(one, two) for one, two in zip(tensors(first), tensors(second), strict=True))
    return first.keys == second.keys and equal


def same_tensors(first: Value, second: Value) -> bool:
    return all(torch.equal(one, two) for one, two in zip(first, second, strict=True) if one is not None and two is not None)


def pixels(batch: Batch) -> torch.Tensor:
    value = batch.values["image"]
    assert isinstance(value, ImageBatch)
    return value.pixels


def test_what_a_batch_holds(streams: list[Stream]) -> None:
    (batch,) = take(shapes_loader(streams), 1)
    image, text, label = (batch.values[name] for name in ("image", "text", "label"))
    assert isinstance(image, ImageBatch)
    assert (image.pixels.shape, image.pixels.dtype) == ((8, 3, 16, 16), torch.float32)
    assert isinstance(text, TextBatch)
    assert (text.ids.shape, text.ids.dtype, text.mask.dtype) == ((8, 16), torch.int64, torch.bool)
    assert isinstance(label, ScalarBatch)
    assert label.numbers.dtype == torch.int64
    keys = open_source("shapes:samples=50,size=20").keys
    assert [keys[index] for index in batch.index.tolist()] == batch.keys
    assert len(batch) == len(set(batch.keys)) == 8
    assert 0 <= batch.draws["lam"] <= 1


def test_noise_depends_on_seed_epoch_and_sample_alone(streams: list[Stream]) -> None:
    def drawn(**options: int) -> dict[tuple[int, str], torch.Tensor]:
        loader = shapes_loader(streams, noise={"image": 1000}, **options)  # type: ignore[arg-type]
        rows = {}
        for number, batch in enumerate(take(loader, 12)):
            noise = batch.values[port("image", "noise")]
            assert isinstance(noise, Noise)
            assert port("text", "noise") not in batch.values
            rows |= {(number // 6, key): row for key, row in zip(batch.keys, noise.numbers, strict=True)}
        return rows

    whole = drawn()
    parts = {**drawn(rank=0, world=2), **drawn(rank=1, world=2)}
    assert whole.keys() == parts.keys()
    assert all(torch.equal(row, parts[place]) for place, row in whole.items())
    assert len({row.sum().item() for row in whole.values()}) == len(whole)  # no two alike, epochs included
    together = torch.stack(list(whole.values()))
    assert together.mean().item() == pytest.approx(0.5772, abs=0.02)  # Euler's constant: Gumbel's mean
    assert together.var().item() == pytest.approx(torch.pi**2 / 6, abs=0.05)
    seeded = drawn(seed=4)
    assert not torch.equal(seeded[min(seeded)], whole.get(min(seeded), torch.zeros(1000)))


def test_an_epoch_has_no_sample_twice_and_the_next_another_order(streams: list[Stream]) -> None:
    loader = shapes_loader(streams)
    assert loader.batches_per_epoch == 6
    first, second = (list(itertools.chain(*(batch.keys for batch in take(loader, 6)))) for _ in range(2))
    assert len(set(first)) == len(set(second)) == 48
    assert first != second
    assert loader.state_dict() == {"epoch": 2, "batch": 0}
    assert take(shapes_loader(streams, seed=4), 1)[0].keys != first[:8]


def test_views_are_drawn_again_in_each_epoch(plain_streams: list[Stream], streams: list[Stream]) -> None:
    def image_of(loader: BatchLoader, epoch: int) -> torch.Tensor:
        loader.load_state_dict({"epoch": epoch, "batch": 0})
        batches = take(loader, 1)
        return pixels(batches[0])[batches[0].keys.index(min(batches[0].keys))]

    plain, augmented = shapes_loader(plain_streams, batch=50), shapes_loader(streams, batch=50)
    assert torch.equal(image_of(plain, 0), image_of(plain, 1))
    assert not torch.equal(image_of(augmented, 0), image_of(augmented, 1))


def test_a_view_in_two_forms_is_two_values_of_one_draw(streams: list[Stream]) -> None:
    """As two towers of different sizes and standardisations take it."""
    image = next(stream.source for stream in streams if stream.name == "image")
    wide = ImageFormat(32)
    small = ImageFormat(16, mean=(0.1, 0.2, 0.3), deviation=(0.2, 0.2, 0.2))
    source = open_source("shapes:samples=50,size=64")
    readings = [Reading("wide", image, wide), Reading("small", image, small), Reading("again", image, wide)]
    (batch,) = take(BatchLoader(source, map_fields(source, NEEDS), readings, batch=8), 1)
    levels = {
        name: batch.values[name][0] * torch.tensor(form.deviation).view(3, 1, 1) + torch.tensor(form.mean).view(3, 1, 1)
        for name, form in (("wide", wide), ("small", small), ("again", wide))
    }
    assert torch.equal(levels["wide"], levels["again"])
    halved = torch.nn.functional.avg_pool2d(levels["wide"], 2)
    assert (halved - levels["small"]).abs().mean() < 0.02
    assert (halved.roll(1, 0) - levels["small"]).abs().mean() > 0.1, "any two images are as near"


@pytest.mark.parametrize("done", [1, 6, 9])
def test_a_resumed_loader_goes_on_exactly(streams: list[Stream], done: int) -> None:
    whole = take(shapes_loader(streams), done + 4)
    interrupted, resumed = shapes_loader(streams), shapes_loader(streams)
    take(interrupted, done)
    resumed.load_state_dict(interrupted.state_dict())
    assert all(same(*pair) for pair in zip(whole[done:], take(resumed, 4), strict=True))


def test_worker_processes_change_nothing(streams: list[Stream]) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    alone, helped = take(shapes_loader(streams), 8), take(shapes_loader(streams, workers=2), 8)
    assert all(same(*pair) for pair in zip(alone, helped, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_out_one_batch(streams: list[Stream], world: int) -> None:
    alone = take(shapes_loader(streams), 7)
    shares = [take(shapes_loader(streams, rank=rank, world=world), 7) for rank in range(world)]
    for number, batch in enumerate(alone):
        parts = [share[number] for share in shares]
        assert batch.keys == [key for part in parts for key in part.keys]
        for name, value in batch.values.items():
            assert same_tensors(value, cat([part.values[name] for part in parts]))
        assert all(part.draws == batch.draws for part in parts)


@pytest.fixture
def damaged(pairs: Callable[..., Path], image: Callable[..., bytes]) -> Path:
    """24 samples, of which 2, 5, 7 and 11 are bad."""
    return pairs(24, {"0002.png": image()[:40], "0005.txt": None, "0007.txt": "  \n", "0011.png": None})


BAD = {
    "pairs/0002": "damaged image",
    "pairs/0005": "missing text",
    "pairs/0007": "empty text",
    "pairs/0011": "missing image",
}


def test_bad_samples_are_replaced_counted_and_named(damaged: Path, plain_streams: list[Stream]) -> None:
    loader = shard_loader(damaged, plain_streams, batch=6)
    batches = take(loader, 12)
    for batch in batches:
        assert len(set(batch.keys)) == 6
        assert not set(batch.keys) & BAD.keys()
    assert loader.report.samples == BAD
    assert loader.report.counts == dict.fromkeys(BAD.values(), 1)
    assert loader.report.table().startswith("skipped 4 samples\n")
    assert "  empty text     1  pairs/0007" in loader.report.table()
    good = {f"pairs/{index:04d}" for index in range(24)} - BAD.keys()
    assert {key for batch in batches for key in batch.keys} == good


def test_stand_ins_are_the_same_for_workers_processes_and_resumes(damaged: Path, plain_streams: list[Stream]) -> None:
    alone = take(shard_loader(damaged, plain_streams, batch=6), 8)
    helped = shard_loader(damaged, plain_streams, batch=6, workers=2)
    assert all(same(*pair) for pair in zip(alone, take(helped, 8), strict=True))
    assert helped.report.samples == BAD
    ranks = [shard_loader(damaged, plain_streams, batch=6, rank=rank, world=3) for rank in range(3)]
    shares = [take(loader, 8) for loader in ranks]
    assert [batch.keys for batch in alone] == [[key for share in shares for key in share[n].keys] for n in range(8)]
    ranks[0].report.merge(ranks[1].report)
    ranks[0].report.merge(ranks[2].report)
    assert ranks[0].report.samples == BAD
    resumed = shard_loader(damaged, plain_streams, batch=6)
    resumed.load_state_dict({"epoch": 1, "batch": 1})
    assert all(same(*pair) for pair in zip(alone[5:], take(resumed, 3), strict=True))


@pytest.mark.parametrize(("samples", "good", "batch"), [(24, 20, 24), (12, 1, 4), (12, 3, 4)])
def test_no_batch_is_filled_with_copies(
    pairs: Callable[..., Path], plain_streams: list[Stream], samples: int, good: int, batch: int
) -> None:
    """A copy would be its own negative: with fewer good samples than a batch the run stops by name."""
    path = pairs(samples, {f"{index:04d}.png": b"?" for index in range(good, samples)})
    for workers in (0, 1):
        with pytest.raises(DiagnosticError) as caught:
            take(shard_loader(path, plain_streams, batch=batch, workers=workers), 1)
        (fault,) = caught.value.diagnostics
        assert fault.code == "V0828"
        assert fault.message.startswith(f"{samples - good} of {samples} samples cannot be used, so no batch of {batch}")
        assert fault.notes[0].startswith(f"damaged image  {samples - good}  pairs/")


@pytest.mark.parametrize("seed", range(5))
def test_a_slot_without_good_samples_borrows_one_that_no_other_has(
    pairs: Callable[..., Path], plain_streams: list[Stream], seed: int
) -> None:
    """Exactly a batch of good ones is left, and all processes agree on their slots."""
    path = pairs(12, {f"{index:04d}.png": b"?" for index in range(8)})
    good = {f"pairs/{index:04d}" for index in range(8, 12)}
    alone = take(shard_loader(path, plain_streams, batch=4, seed=seed), 4)
    assert all(set(batch.keys) == good for batch in alone)
    shares = [take(shard_loader(path, plain_streams, batch=4, seed=seed, rank=rank, world=2), 4) for rank in range(2)]
    assert [batch.keys for batch in alone] == [one.keys + two.keys for one, two in zip(*shares, strict=True)]


def test_more_bad_samples_than_the_share_stop_the_run(pairs: Callable[..., Path], plain_streams: list[Stream]) -> None:
    path = pairs(40, {f"{index:04d}.png": b"?" for index in range(12)})
    take(shard_loader(path, plain_streams, batch=4, max_bad_share=0.3), 30)
    with pytest.raises(DiagnosticError) as caught:
        take(shard_loader(path, plain_streams, batch=4, max_bad_share=0.29), 30)
    assert caught.value.diagnostics[0].message == (
        "12 of 40 samples cannot be used, more than the allowed share of 0.29 (`data.max_bad_share`)"
    )


def test_a_shard_that_is_overwritten_while_the_run_goes_on_stops_it(
    pairs: Callable[..., Path], plain_streams: list[Stream]
) -> None:
    loader = shard_loader(pairs(40), plain_streams, batch=4, max_bad_share=0.5)
    messages: list[str] = []
    loader.tell = messages.append
    batches = iter(loader)
    assert len(next(batches)) == 4
    pairs(40, {"0000.txt": "another"})  # as long and as sound as the first
    with pytest.raises(DiagnosticError) as caught:
        list(itertools.islice(batches, 20))
    assert caught.value.diagnostics[0].code in ("V0820", "V0828")
    assert "shard changed while it was in use" in caught.value.diagnostics[0].notes[0]


def test_what_is_skipped_is_reported_each_time_it_has_doubled(
    pairs: Callable[..., Path], plain_streams: list[Stream]
) -> None:
    loader = shard_loader(pairs(64, {f"{index:04d}.png": b"?" for index in range(9)}), plain_streams, batch=8)
    messages: list[str] = []
    loader.tell = messages.append
    take(loader, 8)
    counts = [int(line.split()[1]) for line in messages]
    assert counts == sorted(counts)
    assert all(later >= 2 * earlier for earlier, later in itertools.pairwise(counts))
    assert 4 < counts[-1] <= 9
    assert messages[-1].split(";")[1].startswith(" damaged image")


def test_no_good_sample_at_all(pairs: Callable[..., Path], plain_streams: list[Stream]) -> None:
    path = pairs(4, {f"{index:04d}.png": b"?" for index in range(4)})
    for workers in (0, 1):
        with pytest.raises(DiagnosticError) as caught:
            take(shard_loader(path, plain_streams, batch=2, workers=workers), 1)
        (fault,) = caught.value.diagnostics
        assert fault.code == "V0820"
        assert fault.notes[0].startswith("damaged image  4  pairs/")
        assert fault.notes[1] == f"the data is {path}"


def test_a_worker_that_is_killed_is_reported(plain_streams: list[Stream], monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system does it where memory runs out."""
    loader = shapes_loader(plain_streams, workers=1)
    monkeypatch.setattr(SampleReader, "begin", lambda *_given: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(DiagnosticError, match="V0905: a data loading worker has ended"):
        take(loader, 1)


def test_batches_that_cannot_be_filled_or_split(pairs: Callable[..., Path], plain_streams: list[Stream]) -> None:
    with pytest.raises(DiagnosticError) as caught:
        shard_loader(pairs(4), plain_streams, batch=5, world=2)
    assert [fault.code for fault in caught.value.diagnostics] == ["V0809", "V0821"]
    assert caught.value.diagnostics[1].help == ("`--set train.batch=4`",)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_reads_every_good_sample_in_order(damaged: Path, workers: int) -> None:
    source = open_source(str(damaged))
    fields = {"image": "Image", "text": "Text"}
    loader = EvaluationLoader(source, map_fields(source, NEEDS[:2]), loaded_values(fields, *FORMS), batch=5, workers=workers)
    batches = list(loader)
    assert [key for batch in batches for key in batch.keys] == [key for key in source.keys if key not in BAD]
    assert loader.report.samples == BAD
    for batch in batches:
        ids, mask = TOKENIZER.encode([f"sample {int(key[-4:])}" for key in batch.keys], 16)
        assert same_tensors(batch.values["text"], (ids, mask))
        level = torch.tensor([int(key[-4:]) for key in batch.keys]) / 255 * 2 - 1
        torch.testing.assert_close(pixels(batch).mean((1, 2, 3)), level)


def test_evaluation_looks_at_no_more_than_the_limit() -> None:
    source = open_source("shapes:samples=30", split="val")
    fields = {need.field: need.kind for need in NEEDS}
    loader = EvaluationLoader(source, map_fields(source, NEEDS), loaded_values(fields, *FORMS), batch=8, limit=20)
    sizes = [len(batch) for batch in loader]
    assert sizes == [8, 8, 4]
    assert [len(batch) for batch in loader] == sizes


def test_batch_k_holds_the_numbers_that_follow_the_run_for_step_k(plain_streams: list[Stream]) -> None:
    """A loader that begins later gives the same ones: what a resume needs."""
    recipe = 'ramp(0, 1, over=2 epochs, name="a") * cosine_ramp(0, 1, name="b") * contrast(image, text)'
    nodes = ramps(vlmdsl.compile(recipe, compiled=False).program)
    loaders = [shapes_loader(plain_streams, draws=[], ramps=nodes, steps=12) for _ in range(2)]
    per_epoch = loaders[0].batches_per_epoch
    loaders[1].load_state_dict({"epoch": 0, "batch": 3})
    draws = [batch.draws for batch, _ in zip(loaders[0], range(5), strict=False)]
    later = next(iter(loaders[1])).draws
    for step, numbers in enumerate(draws):
        expected = {"a": step / (2 * per_epoch), "b": (1 - math.cos(math.pi * step / 12)) / 2}
        assert {name: value.item() for name, value in numbers.items()} == pytest.approx(expected, abs=1e-7)
    assert later == draws[3]
    with pytest.raises(ValueError, match="b follows the run"):
        next(iter(shapes_loader(plain_streams, draws=[], ramps=nodes)))


def test_how_many_processes_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.setattr(loading, "_shared_memory", lambda: 2**30)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert [workers_for(None, batches) for batches in (99, 100)] == [0, 5]
    assert [workers_for(setting, 10) for setting in (0, 3)] == [0, 3]
    assert workers_for(None, 1000, loaders=2) == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert workers_for(None, 1000) == 1
    monkeypatch.setattr(loading, "_shared_memory", lambda: 64 * 2**20)
    assert workers_for(None, 1000) == 0
    monkeypatch.setitem(vars(multiprocessing.current_process())["_config"], "daemon", True)
    assert workers_for(3, 1000) == 0, "a daemonic process may not start others"


def test_workers_outlive_the_signals_that_end_a_run(plain_streams: list[Stream]) -> None:
    """These go to all processes of a group, and the step that is taken needs its batch. The loader ends its workers."""
    others = multiprocessing.active_children()
    loader = iter(shapes_loader(plain_streams, workers=1))
    next(loader)
    (worker,) = (process for process in multiprocessing.active_children() if process not in others)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        os.kill(worker.pid or 0, number)
    for _ in range(6):
        next(loader)
    assert worker.is_alive()
    del loader
    gc.collect()
    worker.join(20)
    assert not worker.is_alive()
