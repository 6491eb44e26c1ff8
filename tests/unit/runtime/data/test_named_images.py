"""Data sets of the library `datasets` whose images are files that the rows name: folders on this machine, and a hub of its
interface; nothing is fetched."""

from __future__ import annotations

import csv
import gc
import io
import itertools
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlmdsl.runtime.data import Limits, open_source, open_stream
from vlmdsl.runtime.data.formats.named_images import NamedImages
from vlmdsl.runtime.data.images import decode_image
from vlmdsl.runtime.data.limits import DEFAULT_LIMITS
from vlmdsl.runtime.data.source import BadSample

datasets = pytest.importorskip("datasets", reason="the extra `datasets`")
COUNT = 3

# The library leaves the table of an `imagefolder` open.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    gc.collect()  # what the library left open is closed, and warned of, here


@pytest.fixture
def limits(tmp_path: Path) -> Limits:
    return replace(DEFAULT_LIMITS, cache=str(tmp_path / "counted"))


def folder(place: Path, image: Callable[..., bytes], kind: str) -> Path:
    """A data set of one of the forms that people have, with images 0 to 2."""
    place.mkdir(parents=True)
    names = [f"images/p{number}.png" if kind == "strings" else f"p{number}.png" for number in range(COUNT)]
    files = {name: image(10 * number) for number, name in enumerate(names)}
    table = io.StringIO()
    rows = csv.writer(table)
    rows.writerow(["image" if kind == "strings" else "file_name", "text"])
    rows.writerows([name, f"text {number}"] for number, name in enumerate(names))
    files["train.csv" if kind == "strings" else "metadata.csv"] = table.getvalue().encode()
    if kind == "archive":
        with zipfile.ZipFile(place / "train.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return place
    for name, content in files.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(content)
    return place


def levels(source: Any, indices: Any, limits: Limits = DEFAULT_LIMITS) -> list[int]:
    """The level that each image has everywhere."""
    return [int(decode_image(source[index]["image"], source.folder_of(index), limits).mean()) for index in indices]


@pytest.mark.parametrize("kind", ["imagefolder", "archive", "strings"])
def test_images_that_rows_name_are_read(tmp_path: Path, image: Callable[..., bytes], limits: Limits, kind: str) -> None:
    place = folder(tmp_path / "data", image, kind)
    expected = [int(np.asarray(decode_image(image(10 * number))).mean()) for number in range(COUNT)]
    assert len(set(expected)) == COUNT
    named = open_source(f"hf:{place}")
    assert levels(named, range(COUNT)) == expected
    assert [named[index]["text"] for index in range(COUNT)] == ["text 0", "text 1", "text 2"]
    stream = open_stream(f"hf:{place}", limits)
    assert levels(stream.head, range(COUNT)) == expected
    places = list(itertools.chain.from_iterable(stream.places(shard) for shard in range(stream.shards)))
    assert levels(stream, places) == expected


def test_a_file_elsewhere_is_refused_unless_its_folder_is_allowed(tmp_path: Path, image: Callable[..., bytes]) -> None:
    secret = tmp_path / "elsewhere" / "secret.png"
    secret.parent.mkdir()
    secret.write_bytes(image(1))
    with zipfile.ZipFile(secret.parent / "secret.zip", "w") as archive:
        archive.writestr("secret.png", image(1))
    data = tmp_path / "data"
    data.mkdir()
    (data / "link.png").symlink_to(secret)
    features = datasets.Features({"image": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}})
    paths = [str(secret), "../elsewhere/secret.png", "link.png", f"zip://secret.png::{secret.parent}/secret.zip"]
    paths += ["https://example.com/a.png", "hf://datasets/someone/other@main/a.png", f"file://{secret}"]
    rows = datasets.Dataset.from_dict({"image": [{"bytes": None, "path": path} for path in paths]}, features=features)
    rows.to_parquet(data / "train-00000-of-00001.parquet")
    rows.save_to_disk(tmp_path / "saved")
    for source in (open_source(f"hf:{data}"), open_source(str(data / "train-00000-of-00001.parquet"))):
        for index in range(len(paths)):
            with pytest.raises(BadSample, match=r"outside the folder|is a URL"):
                decode_image(source[index]["image"], source.folder_of(index))
    allowing = replace(DEFAULT_LIMITS, allowed_folders=(str(secret.parent),))
    assert len(levels(open_source(f"hf:{data}", limits=allowing), range(4), allowing)) == 4
    saved = open_source(str(tmp_path / "saved"))
    with pytest.raises(BadSample, match="outside the folder"):
        decode_image(saved[0]["image"], saved.folder_of(0))


def test_members_of_archives_are_bounded_and_damage_is_named(tmp_path: Path, image: Callable[..., bytes]) -> None:
    place = folder(tmp_path / "data", image, "archive")
    path = f"zip://p0.png::{place}/train.zip"
    reads = NamedImages(str(place), [], DEFAULT_LIMITS)
    assert reads(path) == image(0)
    for limits, name, reason in (
        (replace(DEFAULT_LIMITS, file_bytes=20), path, "too large"),
        (DEFAULT_LIMITS, path.replace("p0", "p9"), "not found"),
        (DEFAULT_LIMITS, path.replace("train", "other"), "cannot be read"),
    ):
        with pytest.raises(BadSample, match=reason):
            NamedImages(str(place), [], limits)(name)


def test_a_stream_of_the_hub_reads_files_of_its_own_data_set_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    requests: list[str] = []

    def opened(path: str, mode: str) -> Any:
        requests.append(path)
        return nullcontext(io.BytesIO(b"x" * 30))

    monkeypatch.setattr(fsspec, "open", opened)
    reads = NamedImages("someone/pictures", [], DEFAULT_LIMITS)
    assert reads.folder is not None
    assert reads.folder.endswith("datasets--someone--pictures")
    own = "hf://datasets/someone/pictures@abc/a.png"
    assert reads(own) == b"x" * 30
    assert reads(f"zip://a.png::{own}") == b"x" * 30
    with pytest.raises(BadSample, match="too large"):
        NamedImages("someone/pictures", [], replace(DEFAULT_LIMITS, file_bytes=20))(own)
    with pytest.raises(BadSample, match="outside the folder"):
        reads("hf://datasets/someone/pictures@abc/../../other/a.png")
    requests.clear()
    others = ["hf://datasets/someone/pictures2@abc/a.png", f"https://example.com/?{own}", f"{own}::https://example.com/a"]
    others += [f"https://example.com/a::{own}", f"zip://a.png::https://example.com/a::{own}", f"file:///etc/hosts::{own}"]
    for other in others:
        with pytest.raises(BadSample, match=r"is a URL"):
            decode_image(reads(other), reads.folder)
    assert requests == []


def test_a_data_set_of_text_alone_has_its_words_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.json").write_text(json.dumps({"text": "zip://a::/etc/passwd"}) + "\n")
    assert open_source(f"hf:{tmp_path}/data")[0]["text"] == "zip://a::/etc/passwd"
