"""Keys and places of samples: what they are, and that no sample costs a Python object."""

from __future__ import annotations

import gc
import hashlib
import itertools
import os
import random
import sys
import tarfile
import uuid
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdsl.runtime.data import BadSample, fingerprint, open_source
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
    names = [text.rstrip("\0") for text in texts * times]
    packed = PackedNames(names)
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


SAMPLES, IMAGES = 6000, 30_000


def names(kind: str, count: int = SAMPLES) -> list[str]:
    draw = random.Random(0)
    drawn = [uuid.UUID(int=draw.getrandbits(128)) for _ in range(count)]
    return {
        "numbered": [f"{index:09d}" for index in range(count)],
        "hex": [one.hex for one in drawn],
        "uuid": [str(one) for one in drawn],
    }[kind]


def shards(folder: Path, kind: str) -> list[str]:
    """Two shards of half of the samples each, which are one file."""
    half = names(kind, SAMPLES // 2)
    write_tar(folder / "a.tar", [f"{name}.{ending}" for name in half for ending in ("jpg", "txt")])
    os.link(folder / "a.tar", folder / "b.tar")
    return [str(folder / "?.tar")]


def scattered(folder: Path, kind: str) -> list[str]:
    write_tar(folder / "a.tar", [f"{name}.{ending}" for ending in ("jpg", "txt") for name in names(kind)])
    return [str(folder / "a.tar")]


def twice(folder: Path, kind: str) -> list[str]:
    return 2 * shards(folder, kind)


def table(folder: Path, kind: str) -> list[str]:
    (folder / "t.csv").write_text("image,text\n" + "".join(f'{name}.jpg,"a, {name}"\n' for name in names(kind)))
    return [str(folder / "t.csv")]


def json_lines(folder: Path, kind: str) -> list[str]:
    (folder / "t.jsonl").write_text("".join(f'{{"image": "{name}.jpg"}}\n' for name in names(kind)))
    return [str(folder / "t.jsonl")]


def joined(folder: Path, kind: str) -> list[str]:
    return shards(folder, kind) + table(folder, kind)


def images(folder: Path, kind: str) -> list[str]:
    (folder / "image").touch()
    (folder / "f" / "n0001").mkdir(parents=True)
    for name in names(kind, IMAGES):
        os.link(folder / "image", folder / "f" / "n0001" / f"{name}.jpg")
    return [str(folder / "f")]


def write_tar(path: Path, members: list[str]) -> None:
    with tarfile.open(path, "w") as archive:
        for member in members:
            archive.addfile(tarfile.TarInfo(member))


def bytes_of(source: object) -> int:
    """The memory of a source and of everything that it refers to, apart from what programs are made of."""
    waiting, sizes = [source], dict[int, int]()
    while waiting:
        one = waiting.pop()
        if id(one) not in sizes and not isinstance(one, type | ModuleType | FunctionType | np.dtype):
            sizes[id(one)] = sys.getsizeof(one)
            waiting += [one.base] if isinstance(one, np.ndarray) else gc.get_referents(one)
    return sum(sizes.values())


@pytest.mark.parametrize(
    ("layout", "kind"),
    [
        (shards, "numbered"), (shards, "hex"), (shards, "uuid"), (scattered, "numbered"), (scattered, "uuid"),
        (twice, "hex"), (table, "numbered"), (json_lines, "numbered"), (joined, "hex"), (images, "numbered"),
        (images, "hex"), (images, "uuid"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)  # fmt: skip
def test_a_sample_takes_at_most_16_bytes(tmp_path: Path, layout: Callable[[Path, str], list[str]], kind: str) -> None:
    source = open_source(layout(tmp_path, kind))
    count = {twice: 2 * SAMPLES, joined: 2 * SAMPLES, images: IMAGES}.get(layout, SAMPLES)
    assert len(source) == count
    assert 0 < bytes_of(source) / count <= 16
    assert len(set(source.keys)) == count
    assert source.keys == [source.keys[index] for index in range(count)]


def test_names_without_a_pattern_are_read_from_the_shard(tmp_path: Path) -> None:
    """Alone, all in a row, and after the sample itself was read; where the shard is another one, by their places."""
    (spec,) = scattered(tmp_path, "hex")
    source = open_source(spec)
    expected = [f"a/{name}" for name in names("hex")]
    assert list(source.keys) == expected
    assert [source.keys[index] for index in (0, 17, SAMPLES - 1)] == [expected[index] for index in (0, 17, SAMPLES - 1)]
    assert source[5]["txt"] == ""
    assert (source.keys[5], source.keys[6]) == (expected[5], expected[6])
    os.utime(spec, (0, 0))
    assert (source.keys[5], source.keys[0]) == (expected[5], "a/@0")
    assert len(list(source.keys)) == len(set(source.keys)) == SAMPLES
    with pytest.raises(BadSample, match="shard changed while it was in use"):
        source[0]


@pytest.mark.parametrize("kind", ["numbered", "hex"])
@pytest.mark.parametrize("layout", [shards, twice, joined], ids=lambda layout: layout.__name__)
def test_the_fingerprint_is_that_of_the_keys(
    tmp_path: Path, layout: Callable[[Path, str], list[str]], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it was made while the shards were indexed or is made of the keys."""
    monkeypatch.setattr(f"{__name__}.SAMPLES", 600)
    source = open_source(layout(tmp_path, kind))
    assert fingerprint(source) == hashlib.sha256("".join(f"{key}\0" for key in source.keys).encode()).hexdigest()


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
