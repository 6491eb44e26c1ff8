"""Batches of one source each: pure, complete over an epoch, as frequent as their source, the same after a resume."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batches import streams_in_forms
from vlmdsl.api.driver import build
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.ir import Stream
from vlmdsl.runtime.data import BatchLoader, groups_by_source, map_fields, open_source, requirements
from vlmdsl.runtime.data.order import Order
from vlmdsl.runtime.tokenizer import train_tokenizer
from vlmdsl.runtime.values import ImageFormat

RECIPE = "vlo 1\nrecipe debiased(image: Image, text: Text)\nbatch one_source\nminimize contrast(image, text)"
TOKENIZER = train_tokenizer(["sample 0123456789"] * 2, 300)


def chosen(order: Order, epoch: int, number: int) -> list[int]:
    place = order.place(epoch, number)
    return [next(order.candidates(place, slot)) for slot in range(order.batch)]


def groups_of(sizes: list[int]) -> list[np.ndarray]:
    ends = np.cumsum(sizes).tolist()
    return [np.arange(end - size, end) for size, end in zip(sizes, ends, strict=True)]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=5), st.integers(1, 8), st.integers(0, 3))
def test_an_epoch_is_made_of_full_batches_of_one_group_without_repetition(sizes: list[int], batch: int, epoch: int) -> None:
    groups = groups_of(sizes)
    order = Order(sum(sizes), batch, 3, groups)
    batches = [chosen(order, epoch, number) for number in range(order.per_epoch)]
    assert len(batches) == sum(size // batch for size in sizes)
    assert all(any(set(indices) <= set(group.tolist()) for group in groups) for indices in batches)
    assert len(set(itertools.chain(*batches))) == len(batches) * batch


def test_a_batch_is_of_a_source_as_often_as_the_source_is_large() -> None:
    order = Order(80, 4, 0, groups_of([60, 20]))
    first = Counter(chosen(order, epoch, 0)[0] < 60 for epoch in range(400))
    assert first[True] == pytest.approx(300, abs=40)


def test_what_is_left_over_in_one_epoch_is_used_in_another() -> None:
    order = Order(10, 4, 0, groups_of([5, 5]))
    seen = {index for epoch in range(10) for number in range(2) for index in chosen(order, epoch, number)}
    assert seen == set(range(10))


def test_a_group_of_all_samples_is_as_no_groups() -> None:
    with_groups, without = Order(10, 3, 1, [np.arange(10)]), Order(10, 3, 1)
    assert [chosen(with_groups, 2, n) for n in range(3)] == [chosen(without, 2, n) for n in range(3)]


def test_who_stands_in_is_of_the_same_group_and_no_slot_looks_where_another_does() -> None:
    order = Order(42, 4, 0, groups_of([21, 21]))
    for number in range(order.per_epoch):
        place = order.place(0, number)
        candidates = [list(order.candidates(place, slot)) for slot in range(4)]
        assert sorted(itertools.chain(*candidates)) == sorted(place.order.tolist())
        assert [indices[0] for indices in candidates] == place.order[place.start : place.start + 4].tolist()
        assert sorted(order.everyone(place)) == sorted(place.order.tolist())


def loader(paths: list[str], streams: list[Stream], **options: int) -> BatchLoader:
    program = build(RECIPE, expression=True).planned
    source = open_source(paths)
    mapping = map_fields(source, requirements(program))
    settings: dict[str, object] = {"batch": 4, **options}
    groups = groups_by_source(source, mapping)
    return BatchLoader(source, mapping, streams_in_forms(streams, ImageFormat(16), TOKENIZER, 16), groups=groups, **settings)  # type: ignore[arg-type]


def test_specifications_are_sources(pairs: Callable[..., Path], plain_streams: list[Stream]) -> None:
    paths = [str(pairs(10, name="a.tar")), str(pairs(21, {"0003.txt": None}, name="b.tar")), str(pairs(3, name="c.tar"))]
    batches = list(itertools.islice(loader(paths, plain_streams), 14))
    counts = Counter("".join(sorted({key[0] for key in batch.keys})) for batch in batches)
    assert counts == {"a": 4, "b": 10}
    resumed = loader(paths, plain_streams)
    resumed.load_state_dict({"epoch": 1, "batch": 2})
    assert [batch.keys for batch in itertools.islice(resumed, 5)] == [batch.keys for batch in batches[9:]]
    shares = [list(itertools.islice(loader(paths, plain_streams, rank=rank, world=2), 7)) for rank in range(2)]
    assert [one.keys + two.keys for one, two in zip(*shares, strict=True)] == [batch.keys for batch in batches[:7]]
    assert "never used, with less than a batch each: 3 samples of" in loader(paths, plain_streams).report.table()


def test_the_shards_of_one_specification_are_one_source(pairs: Callable[..., Path], plain_streams: list[Stream]) -> None:
    folder = pairs(5, name="a.tar").parent
    pairs(5, name="b.tar")
    joined = loader([str(folder / "*.tar")], plain_streams)
    assert joined.batches_per_epoch == 2
    assert "the data is one source" in joined.report.table()


def test_the_builtin_scenes_say_their_source() -> None:
    source = open_source("shapes:samples=60")
    mapping = map_fields(source, requirements(build(RECIPE, expression=True).planned))
    groups = groups_by_source(source, mapping)
    assert sum(map(len, groups.values())) == 60
    assert all(len({source[int(index)]["source"] for index in group}) == 1 for group in groups.values())
    assert len(groups) > 3


def test_no_source_that_fills_a_batch_is_a_fault(pairs: Callable[..., Path], plain_streams: list[Stream]) -> None:
    paths = [str(pairs(3, name="a.tar")), str(pairs(3, name="b.tar"))]
    with pytest.raises(DiagnosticError, match="3 samples, fewer than one batch of 4"):
        loader(paths, plain_streams)
