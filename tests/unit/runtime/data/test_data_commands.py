"""`vlmdsl data`: what it finds in damaged data, what it draws, and that shards are read back by this reader and another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlmdsl.api.data import check_data, convert_data, preview_data
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.data import open_source
from vlmdsl.runtime.data.images import decode_image
from vlmdsl.runtime.data.inspection import script_of

TEXTS = ["a dog", "ein Hund", "собака", "一只狗", "개 한 마리", "犬がいる", "a dog", "...", "a dog in the park " * 20]


@pytest.fixture
def table(tmp_path: Path, image: Callable[..., bytes]) -> Path:
    """Nine samples of which two have equal images and two equal texts; a damaged image, a missing text, a path elsewhere."""
    rows = [{"image": f"{index}.png", "text": text, "n": index} for index, text in enumerate(TEXTS)]
    for index in range(len(TEXTS)):
        (tmp_path / f"{index}.png").write_bytes(image(index if index != 3 else 2, (8 + index, 8)))
    (tmp_path / "3.png").write_bytes((tmp_path / "2.png").read_bytes())
    (tmp_path / "bad.png").write_bytes(b"no image")
    rows += [{"image": "bad.png", "text": "x"}, {"image": "0.png", "text": ""}, {"image": "/etc/passwd", "text": "y"}]
    rows[0]["text"] = ["a dog", "one dog"]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_check_counts_what_is_damaged_repeated_and_cut(table: Path) -> None:
    result = check_data(str(table), tokens=16)
    facts = result.to_json()
    assert (facts["samples"], facts["read"], facts["unused_columns"]) == (12, 12, ["n"])
    assert facts["skipped"] == {
        "damaged image": 1, "empty text": 1, "image file outside the folder of the data": 1
    }  # fmt: skip
    assert facts["examples"]["damaged image"] == ["t:10"]
    assert facts["repeated"] == {"images": 2, "texts": 2}
    assert facts["cut_texts"] == {"tokens": 16, "samples": 1}
    assert facts["several_texts"] == 1
    assert facts["sizes"]["width"] == {"smallest": 8, "median": 12, "largest": 16, "99_percent": 15}
    assert facts["scripts"] == {
        "Latin": 4, "": 1, "Cyrillic": 1, "Chinese characters": 1, "Hangul": 1, "Japanese kana": 1
    }  # fmt: skip
    text = result.to_text()
    for line in ("damaged  3 samples", "2 times: t:3, t:4", "2 times: t:1, t:7", "repeated images: 2 (22.2%)"):
        assert line in text
    assert check_data(str(table), samples=3).facts["read"] == 3
    json.dumps(facts)


def test_scripts() -> None:
    assert script_of("犬がいる") == "Japanese kana"
    assert script_of("Ελλάδα, GR") == "Greek"


def test_preview_draws_and_names_what_it_cannot(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "grid.png"
    out.parent.mkdir()
    result = preview_data(str(table), out, samples=12)
    with Image.open(out) as grid:
        assert grid.width > 300
    assert result.rows[1] == "t:2  9 x 8  ein Hund"
    assert result.rows[9] == "t:10  cannot be used: damaged image"


@pytest.mark.parametrize("shuffle", [None, 3])
def test_shards_are_read_back_by_this_reader_and_by_webdataset(table: Path, tmp_path: Path, shuffle: int | None) -> None:
    webdataset = pytest.importorskip("webdataset")
    out = tmp_path / "shards"
    result = convert_data(str(table), out, per_shard=4, shuffle=shuffle)
    assert (result.shards, result.samples) == (3, 9)
    assert "  damaged image                              1  t:10" in result.remarks
    assert sorted(path.name for path in out.iterdir()) == [f"shard-{number:06d}.tar" for number in range(3)]
    source = open_source(str(out))
    samples = [dict(source[index]) for index in range(9)]
    numbers = [sample["n"] for sample in samples]
    assert sorted(numbers) == list(range(9))
    assert (numbers == list(range(9))) == (shuffle is None)
    for sample in samples:
        number = sample["n"]
        assert sample["image"] == (table.parent / f"{number}.png").read_bytes()
        assert sample["source_key"] == f"t:{number + 1}"
        assert sample["text" if number == 0 else "txt"] == (["a dog", "one dog"] if number == 0 else TEXTS[number].strip())
    read = []
    for path in sorted(out.iterdir()):
        with path.open("rb") as file:
            members = ({**one, "__url__": str(path)} for one in webdataset.tariterators.tar_file_iterator(file))
            read += list(webdataset.tariterators.group_by_keys(members))
    decode = webdataset.autodecode.Decoder([webdataset.autodecode.imagehandler("rgb8")])
    assert [decode(sample)["json"]["n"] for sample in read] == numbers
    assert np.array_equal(decode(read[0])["png"], decode_image(table.parent / f"{numbers[0]}.png"))
    with pytest.raises(DiagnosticError) as caught:
        convert_data(str(table), out)
    assert caught.value.diagnostics[0].code == "V0845"


def test_scenes_are_converted_with_their_classes(tmp_path: Path) -> None:
    convert_data("shapes:samples=5", tmp_path / "one")
    convert_data("shapes:samples=5", tmp_path / "two")
    names = [sorted((tmp_path / name).iterdir()) for name in ("one", "two")]
    assert names[0][0].read_bytes() == names[1][0].read_bytes()
    sample, scene = open_source(str(tmp_path / "one"))[0], open_source("shapes:samples=5")[0]
    assert (sample["label"], sample["class_name"], sample["caption"]) == (
        scene["label"],
        scene["class_name"],
        scene["caption"],
    )
    assert sample["txt"] == scene["text"]
    assert np.array_equal(sample["boxes"], scene["boxes"])


def test_data_without_images_and_texts(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x\n1\n")
    with pytest.raises(DiagnosticError) as caught:
        check_data(str(tmp_path / "t.csv"))
    assert (caught.value.diagnostics[0].code, caught.value.diagnostics[0].notes[0]) == ("V0846", "its columns: x")
