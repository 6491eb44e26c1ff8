"""Formats of one file or folder: whatever the format, the same samples under the same columns."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.runtime.data import BadSample, Limits, Requirement, Source, map_fields, open_source
from vlmdsl.runtime.data.formats import FORMATS, format_of
from vlmdsl.runtime.data.images import decode_image
from vlmdsl.runtime.data.limits import DEFAULT_LIMITS
from vlmdsl.runtime.data.order import Order, weighted_parts
from vlmdsl.runtime.values import first_value

NEEDS = [Requirement("image", "Image"), Requirement("text", "Text")]


@pytest.fixture
def pyarrow() -> ModuleType:
    pytest.importorskip("pyarrow.parquet", reason="the extra `arrow`")
    module: ModuleType = pytest.importorskip("pyarrow")
    return module


@pytest.fixture
def pictures(tmp_path: Path, image: Callable[..., bytes]) -> Path:
    """A folder of the images `0.png` to `3.png`."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(4):
        (folder / f"{index}.png").write_bytes(image(index))
    return folder


def problem(spec: str) -> Diagnostic:
    with pytest.raises(DiagnosticError) as caught:
        open_source(spec)
    return caught.value.diagnostics[0]


def seen(source: Source) -> list[tuple[int, str]]:
    """The level and the text of each sample, through the mapping of columns."""
    mapping = map_fields(source, NEEDS)
    levels, texts = [], []
    for index in range(len(source)):
        sample = source[index]
        pixels = decode_image(first_value(sample, mapping.columns["image"]), source.folder_of(index))
        levels.append(int(pixels[0, 0, 0]))
        texts.append(mapping.read("text", "Text", sample).text)
    return list(zip(levels, texts, strict=True))


def reason(source: Source, index: int, column: str) -> str:
    with pytest.raises(BadSample) as caught:
        source[index][column]
    return caught.value.reason


def coco(folder: Path, **changes: object) -> Path:
    """A file as those of COCO, with its images in `val2017` beside it, and a second caption of the first image."""
    images = [{"id": 70 + index, "file_name": f"{index}.png"} for index in range(4)]
    captions = [{"image_id": 70 + index, "id": index, "caption": f"sample {index}"} for index in range(4)]
    captions.append({"image_id": 70, "id": 9, "caption": "the first one"})
    path = folder / "annotations" / "captions_val2017.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"info": {}, "images": images, "annotations": captions} | changes))
    return path


def columns_of(pyarrow: ModuleType, folder: Path, *, stored: bool) -> Any:
    """A table with the images themselves, as `datasets` stores them, or with their paths."""
    names = [f"{index}.png" for index in range(4)]
    cells = [{"bytes": (folder / name).read_bytes(), "path": name} for name in names] if stored else names
    return pyarrow.table({"image": cells, "caption": [[f"sample {index}"] for index in range(4)]})


def written(pyarrow: ModuleType, format: str, folder: Path) -> str:
    """The four samples in a format; gives their specification."""
    if format == "coco":
        folder.rename(folder.parent / "val2017")
        return str(coco(folder.parent))
    if format == "flickr":
        lines = [f"{index}.png#{number}\tsample {index}\n" for index in range(4) for number in range(2)]
        path = folder / "results.token"
        path.write_text("".join(lines))
        return str(path)
    if format in ("csv", "tsv"):
        separator = "," if format == "csv" else "\t"
        rows = [f"{index}.png{separator}sample {index}\n" for index in range(4)]
        (folder / f"t.{format}").write_text(f"image{separator}caption\n" + "".join(rows))
        return str(folder / f"t.{format}")
    if format in ("json", "jsonl"):
        rows = [json.dumps({"file_name": f"{index}.png", "text": f"sample {index}"}) for index in range(4)]
        (folder / f"t.{format}").write_text("\n".join(rows) if format == "jsonl" else f"[{','.join(rows)}]")
        return str(folder / f"t.{format}")
    table = columns_of(pyarrow, folder, stored=format != "parquet of paths")
    if format.startswith("parquet"):
        from pyarrow import parquet

        path = folder / "part.parquet"
        parquet.write_table(table, path, row_group_size=3)
        return str(folder if format == "parquet folder" else path)
    path = folder / "part.arrow"
    writer = pyarrow.ipc.new_file if format == "arrow" else pyarrow.ipc.new_stream
    with writer(str(path), table.schema) as file:
        file.write_table(table, max_chunksize=3)
    return str(path)


@pytest.mark.parametrize(
    "format",
    [
        "csv", "tsv", "json", "jsonl", "coco", "flickr", "parquet", "parquet of paths", "parquet folder", "arrow",
        "arrow stream",
    ],
)  # fmt: skip
def test_every_format_gives_the_same_samples(format: str, pictures: Path, pyarrow: ModuleType) -> None:
    source = open_source(written(pyarrow, format, pictures))
    assert seen(source) == [(index, f"sample {index}") for index in range(4)]
    assert len(set(source.keys)) == 4
    again = pickle.loads(pickle.dumps(source))  # for a process that loads
    assert seen(again) == seen(source)


def test_a_format_may_be_named(tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "captions.txt").write_text("image,caption\n0.png,one\n")
    assert problem(str(tmp_path / "captions.txt")).code == "V0806"
    assert seen(open_source(f"csv:{tmp_path}/captions.txt,images={pictures}")) == [(0, "one")]
    assert [one.name for one in FORMATS if one is format_of(tmp_path / "x", one.name)] == [one.name for one in FORMATS]


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ("{folder}/t.csv,images={folder}/nowhere", "images"),
        ("{folder},images={folder}", "images"),
        ("{folder}/t.csv,split=train", "split"),
    ],
)
def test_options_that_do_not_fit(spec: str, word: str, pictures: Path) -> None:
    (pictures / "t.csv").write_text("image,caption\n0.png,one\n")
    fault = problem(spec.format(folder=pictures))
    assert (fault.code, fault.message.startswith(f"`{word}`")) == ("V0843", True)


def test_coco_lists_all_captions_of_an_image_and_says_what_it_left_out(tmp_path: Path, pictures: Path) -> None:
    pictures.rename(tmp_path / "val2017")
    images = [{"id": 1, "file_name": "1.png"}, {"id": 1, "file_name": "2.png"}, {"id": 3, "file_name": "3.png"}, {"id": 4}]
    captions = [{"image_id": 1, "caption": "a"}, {"image_id": 1, "caption": "b"}, {"image_id": 8, "caption": "c"}, 7]
    source = open_source(str(coco(tmp_path, images=images, annotations=captions)))
    assert [dict(sample) for sample in (source[0],)] == [{"image": "1.png", "image_id": 1, "caption": ["a", "b"]}]
    assert (len(source), source.keys[0]) == (1, "captions_val2017:1")
    remarks = "\n".join(source.remarks)  # type: ignore[attr-defined]
    for said in (
        "its images are read from", "images whose `id` another one has (1: 2.png)", "images without a caption (1: 3.png)",
        "images without `id` and `file_name` (1: 4)", "annotations without a caption, or without their image (2: 8, None)",
    ):  # fmt: skip
        assert said in remarks


def test_images_of_captions_are_read_from_near_folders_only(tmp_path: Path, pictures: Path) -> None:
    """A link to a folder elsewhere is not followed, nor a path that leads out of the folder of images."""
    far = tmp_path / "far"
    far.mkdir()
    pictures.rename(far / "val2017")
    home = tmp_path / "home"
    home.mkdir()
    (home / "val2017").symlink_to(far / "val2017")
    source = open_source(str(coco(home)))
    assert "its images are not near it" in source.remarks[0]  # type: ignore[attr-defined]
    images = [{"id": 70, "file_name": "../far/val2017/0.png"}]
    source = open_source(f"{coco(home, images=images)},images={home / 'annotations'}")
    with pytest.raises(BadSample, match="outside the folder of the data"):
        decode_image(source[0]["image"], source.folder_of(0))


def test_lines_that_flickr_does_not_have(tmp_path: Path) -> None:
    path = tmp_path / "x.token"
    path.write_text("a.jpg#0\tone\nno caption\na.jpg#1\ttwo\n")
    source = open_source(str(path))
    assert dict(source[0]) == {"image": "a.jpg", "caption": ["one", "two"]}
    assert any("(1: line 2)" in remark for remark in source.remarks)  # type: ignore[attr-defined]
    path.write_text("nothing of that form\n")
    assert problem(str(path)).code == "V0824"


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_damaged_columnar_files(suffix: str, pictures: Path, pyarrow: ModuleType) -> None:
    path = Path(written(pyarrow, suffix, pictures))
    content = path.read_bytes()
    for cut in (0, 3, 40, len(content) // 2):
        path.write_bytes(content[:cut])
        assert problem(str(path)).code in ("V0824", "V0805"), cut
    path.write_bytes(content)
    source = open_source(str(path))
    os.utime(path, (1, 1))
    assert reason(source, 0, "image") == "table changed while it was in use"


def test_a_damaged_page_is_a_bad_sample(pictures: Path, pyarrow: ModuleType) -> None:
    """The middle of the images is overwritten: the file opens, and no sample of that row group is read."""
    path = Path(written(pyarrow, "parquet", pictures))
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    path.write_bytes(content)
    source = open_source(str(path))
    assert reason(source, 0, "image") == "damaged column"
    assert source[0]["caption"] == ["sample 0"]


def test_offsets_that_lead_out_of_a_file_are_damage(tmp_path: Path, pyarrow: ModuleType) -> None:
    """Read unchecked they would end the process."""
    path = tmp_path / "t.arrow"
    table = pyarrow.table({"text": ["one", "two"]})
    with pyarrow.ipc.new_file(str(path), table.schema) as file:
        file.write_table(table)
    offsets = np.array([0, 3, 6], dtype=np.int32).tobytes()
    path.write_bytes(path.read_bytes().replace(offsets, np.array([0, 2**30, 2**30 + 3], dtype=np.int32).tobytes()))
    assert reason(open_source(str(path)), 1, "text") == "damaged column"


def test_cells_are_bounded(tmp_path: Path, pyarrow: ModuleType) -> None:
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"image": [b"x" * 100], "text": ["a"]}), tmp_path / "t.parquet")
    small = Limits(50, DEFAULT_LIMITS.table_bytes, 100, 100)
    assert reason(open_source(str(tmp_path / "t.parquet"), limits=small), 0, "image") == "file too large"
    with pytest.raises(DiagnosticError, match="row group"):
        open_source(str(tmp_path / "t.parquet"), limits=Limits(50, 20, 100, 100))


def test_without_pyarrow_its_name_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    fault = problem(str(tmp_path / "t.parquet"))
    assert (fault.code, fault.help[0]) == ("V0901", "run `pip install 'vlmdsl[arrow]'`")


def test_a_saved_data_set_and_one_by_name(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra `datasets`")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features(
        {"image": datasets.Image(), "text": datasets.Value("string"), "label": datasets.ClassLabel(names=["dim", "bright"])}
    )
    rows = {
        "image": [{"bytes": (pictures / f"{index}.png").read_bytes(), "path": None} for index in range(4)],
        "text": [f"sample {index}" for index in range(4)],
        "label": [0, 0, 1, 1],
    }
    saved = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": saved, "test": saved}).save_to_disk(tmp_path / "saved")
    expected = [(index, f"sample {index}") for index in range(4)]
    assert problem(str(tmp_path / "saved")).code == "V0829"
    source = open_source(str(tmp_path / "saved" / "train"))
    assert (seen(source), source.class_names) == (expected, ("dim", "bright"))
    (tmp_path / "hub").mkdir()
    saved.to_parquet(tmp_path / "hub" / "train-00000-of-00001.parquet")
    named = open_source(f"hf:{tmp_path}/hub,split=train")
    assert (seen(named), named.class_names) == (expected, ("dim", "bright"))
    assert seen(pickle.loads(pickle.dumps(named))) == expected
    assert problem(f"hf:{tmp_path}/hub,split=nothing").code == "V0842"
    state = tmp_path / "saved" / "train" / "state.json"
    state.write_text(state.read_text().replace("data-00000", "../../data-00000"))
    assert "outside of the folder" in problem(str(tmp_path / "saved" / "train")).message


@pytest.mark.parametrize("weights", [(3.0, 1.0), (0.3, 0.7)])
def test_weighted_sources(weights: tuple[float, float]) -> None:
    source = open_source(["shapes:samples=30", "shapes:samples=70,seed=1"])
    parts = weighted_parts(source, weights)
    counts = [part.count for part in parts]
    assert counts == ([30, 10] if weights[0] == 3 else [30, 70])
    order = Order(100, 10, seed=0, parts=parts)
    assert order.per_epoch == sum(counts) // 10
    drawn = []
    for epoch in range(16):
        place = order.place(epoch, 0)
        assert len(set(place.order.tolist())) == sum(counts)  # no sample twice
        assert np.bincount(place.order >= 30).tolist() == counts
        drawn.append({index for index in place.order.tolist() if index >= 30})
    assert len(set.union(*drawn)) > 55  # each epoch draws others of the longer source
    again = Order(100, 10, seed=0, parts=parts).place(5, 0)
    assert again.order.tolist() == order.place(5, 0).order.tolist()
