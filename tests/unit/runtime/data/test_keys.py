"""Keys and places of samples: what they are, and that no sample costs a Python object."""

from __future__ import annotations

import gc
import itertools
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdsl.runtime.data import BadSample, open_source
from vlmdsl.runtime.data.keys import Keys, PackedNames, number_repetitions


def numbered(keys: list[str]) -> list[str]:
    """The rule, spelled out: the first number from 2 on with which the key is nobody's."""
    taken, seen, unique = set(keys), set[str](), []
    for key in keys:
        name = key if key not in seen else next(f"{key}#{n}" for n in itertools.count(2) if f"{key}#{n}" not in taken)
        seen.add(key)
        taken.add(name)
        unique.append(name)
    return unique


@given(st.lists(st.sampled_from(["a", "b", "a#2", "a#3", "b#2", "a#2#2"]), max_size=12))
def test_keys_that_come_again_get_numbers_that_nobody_has(keys: list[str]) -> None:
    repeated = number_repetitions(keys)
    assert [repeated.unique(index, key) for index, key in enumerate(keys)] == numbered(keys)
    assert list(repeated.unique_in_order(keys)) == numbered(keys)
    assert len(repeated) == len(keys) - len(set(keys))


@given(st.lists(st.text(st.characters(), max_size=8), min_size=1, max_size=20), st.integers(1, 60))
def test_packed_names_are_what_they_were(texts: list[str], times: int) -> None:
    names, packed = texts * times, PackedNames()
    for name in names:
        packed.append(name)
    assert len(packed) == len(names)
    assert [packed[index] for index in reversed(range(len(names)))] == names[::-1]
    assert list(packed) == names


def test_keys_are_a_sequence() -> None:
    keys = Keys(5, lambda index: f"k{index}")
    assert keys == ["k0", "k1", "k2", "k3", "k4"] != keys[:4]
    assert (keys[-1], keys[1:3], keys.index("k2"), "k9" in keys) == ("k4", ["k1", "k2"], 2, False)
    assert keys != "k0"
    with pytest.raises(IndexError):
        keys[5]


SAMPLES = 6000


def shards(folder: Path, shard: Callable[..., Path]) -> list[str]:
    """Two shards of half of the samples each, which are one file."""
    half = SAMPLES // 2
    first = shard("a.tar", {f"{index:09d}.{ending}": b"" for index in range(half) for ending in ("jpg", "txt")})
    os.link(first, folder / "b.tar")
    return [str(folder / "?.tar")]


def table(folder: Path, shard: Callable[..., Path]) -> list[str]:
    (folder / "t.csv").write_text("image,text\n" + "".join(f'{row}.jpg,"a, {row}"\n' for row in range(SAMPLES)))
    return [str(folder / "t.csv")]


def json_lines(folder: Path, shard: Callable[..., Path]) -> list[str]:
    (folder / "t.jsonl").write_text("".join(f'{{"image": "{row}.jpg"}}\n' for row in range(SAMPLES)))
    return [str(folder / "t.jsonl")]


def images(folder: Path, shard: Callable[..., Path]) -> list[str]:
    (folder / "image").touch()
    (folder / "f" / "n0001").mkdir(parents=True)
    for index in range(SAMPLES):
        os.link(folder / "image", folder / "f" / "n0001" / f"n0001_{index:05d}.jpg")
    return [str(folder / "f")]


@pytest.mark.parametrize("layout", [shards, table, json_lines, images], ids=lambda layout: layout.__name__)
def test_a_sample_takes_at_most_16_bytes(
    tmp_path: Path, shard: Callable[..., Path], layout: Callable[..., list[str]]
) -> None:
    specs = layout(tmp_path, shard)
    open_source(specs)  # what is imported and cached on the way
    gc.collect()
    tracemalloc.start(30)
    try:
        source = open_source(specs)
        gc.collect()
        # Threads that other tests have left behind allocate too: only what is allocated below the call counts.
        here = tracemalloc.Filter(True, __file__, all_frames=True)
        traces = tracemalloc.take_snapshot().filter_traces([here]).traces
        taken = sum(trace.size for trace in traces)
    finally:
        tracemalloc.stop()
    assert len(source) == SAMPLES
    assert 0 < taken / SAMPLES <= 16
    assert len(set(source.keys)) == SAMPLES
    assert source.keys == [source.keys[index] for index in range(SAMPLES)]


@pytest.mark.parametrize("name", ["t.csv", "t.json"])
def test_rows_are_not_read_from_another_table(tmp_path: Path, name: str) -> None:
    """Rows are read from their place when they are asked for: another file of that name is not read."""
    content = {"t.csv": "text\none\ntwo\n", "t.json": '[{"text": "one"},\n{"text": "two"}]'}[name]
    path = tmp_path / name
    path.write_text(content)
    source = open_source(str(path))
    assert [source[index]["text"] for index in range(2)] == ["one", "two"]
    path.write_text(content.replace("two", "2"))
    with pytest.raises(BadSample, match="table changed while it was in use"):
        source[0]


def test_places_are_counted_in_bytes(tmp_path: Path) -> None:
    """Behind a mark of byte order, letters of several bytes, blank lines and every kind of line end."""
    rows = ["ä,1", '"zwei\n\nZeilen","2"', "", "日本,3", "\ufeffx,4"]
    expected = [("ä", "1"), ("zwei\n\nZeilen", "2"), ("日本", "3"), ("\ufeffx", "4")]
    for number, end in enumerate(("\n", "\r\n", "\r")):
        path = tmp_path / f"{number}.csv"
        path.write_bytes("\ufeff".encode() + end.join(["text,number", *rows, ""]).encode())
        assert [tuple(open_source(str(path))[index].values()) for index in range(4)] == expected
    path = tmp_path / "t.json"
    path.write_text('\ufeff [ {"t": "ä"} , {"t": "日本,"},{"t":"]"}\n]\n')
    assert [open_source(str(path))[index]["t"] for index in range(3)] == ["ä", "日本,", "]"]
