"""No command writes into the file or folder that it reads: it is refused before anything is written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import vlmdsl
from bundled.runs import SETTINGS, with_tiny_towers
from vlmdsl.api.data import convert_data, preview_data
from vlmdsl.api.encode import encode
from vlmdsl.api.export import export
from vlmdsl.api.ground import ground
from vlmdsl.api.search import search
from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.runtime.data.read_places import check_apart


def refused(call: Callable[[], object], place: Path) -> Diagnostic:
    """The error of a call, which leaves everything below `place` as it is."""

    def contents() -> dict[Path, bytes | None]:
        return {path: path.read_bytes() if path.is_file() else None for path in place.rglob("*")}

    before = contents()
    with pytest.raises(DiagnosticError) as caught:
        call()
    assert contents() == before
    (fault,) = caught.value.diagnostics
    return fault


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (16, 16), (80 * number, 0, 0)).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("below", [".", "shards", "a/b"])
def test_shards_are_not_written_into_the_folder_of_the_pictures(pictures: Path, below: str) -> None:
    fault = refused(lambda: convert_data(str(pictures), pictures / below), pictures.parent)
    assert (fault.code, fault.help) == ("V0870", (f"choose a place beside it, such as `{pictures}-out`",))
    assert str(pictures) in fault.message


def test_links_and_relative_paths_lead_to_the_same_place(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = pictures.parent / "link"
    link.symlink_to(pictures, target_is_directory=True)
    assert refused(lambda: convert_data(str(link), pictures / "shards"), pictures).code == "V0870"
    monkeypatch.chdir(pictures)
    fault = refused(lambda: convert_data(".", "shards"), pictures)
    assert (fault.code, fault.help[0]) == ("V0870", f"choose a place beside it, such as `{pictures}-out`")
    assert refused(lambda: vlmdsl.train("clip", data=["."], steps=1), pictures).code == "V0870"  # runs/ would be in it


def test_shards_that_a_pattern_matches_are_not_written_beside_those_it_has_matched(pictures: Path) -> None:
    shards = pictures.parent / "shards"
    convert_data(str(pictures), shards)
    os.rename(shards / "shard-000000.tar", shards / "old.tar")
    fault = refused(lambda: convert_data(f"{shards}/*.tar", shards), pictures.parent)
    assert (fault.code, fault.help) == ("V0870", (f"choose a place beside it, such as `{shards}-out`",))
    assert convert_data(f"{shards}/old*.tar", shards).samples == 3  # which is not read again by this pattern


@pytest.mark.parametrize(
    ("out", "spec", "apart"),
    [
        ("data/captions.json", "coco:data/captions.json,images=data/train", False),
        ("data/train/grid.png", "coco:data/captions.json,images=data/train", False),
        ("data/grid.png", "coco:data/captions.json,images=data/train", True),
        ("data/b.parquet", "data/{a,b}.parquet", True),
        ("data/x.parquet", "data/*.parquet", False),
        ("data/x.npy", "data/*.parquet", True),
        ("data/deep/x.tar", "data/**/*.tar", False),
        ("train-old", "train", True),
        ("out", "shapes:samples=9", True),
        ("out", "hf:out", True),
        ("out", "https://example.org/out/a.tar", True),
        ("out", "10%", True),
    ],
)
def test_what_a_specification_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, spec: str, apart: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("data/train", "data/deep", "train"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data/captions.json").touch()
    if apart:
        check_apart(out, spec, "`--out`")
    else:
        with pytest.raises(DiagnosticError, match="V0870"):
            check_apart(out, spec, "`--out`")


def test_pictures_and_runs_are_not_written_among_pictures(pictures: Path) -> None:
    assert refused(lambda: preview_data(str(pictures), pictures / "grid.png"), pictures).code == "V0870"
    data = {"data": [str(pictures)], "map": {"text": "class_name"}, "steps": 1}
    assert refused(lambda: vlmdsl.train("clip", **data, out=pictures / "run"), pictures).code == "V0870"
    assert refused(lambda: vlmdsl.compare(["clip"], **data, out=pictures / "both"), pictures).code == "V0870"
    held_out = {"data": ["shapes:samples=9"], "val": [str(pictures)]}
    assert refused(lambda: vlmdsl.train("clip", **held_out, out=pictures / "run"), pictures).code == "V0870"
    stage = {"settings": {"flows.pairs.data.train": (str(pictures),)}, "data": ["shapes:samples=9"]}
    assert refused(lambda: vlmdsl.train("flava", **stage, out=pictures / "run"), pictures).code == "V0870"


def test_nothing_is_written_into_a_run_by_what_reads_it(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_tiny_towers(monkeypatch)
    settings = SETTINGS | {"tracking.report": False, "evaluation.limit": 8}
    data = ["shapes:samples=16,size=16"]
    run = vlmdsl.train("clip", data=data, settings=settings, steps=1, out=tmp_path / "run").folder
    (checkpoint,) = (run / "checkpoints").iterdir()
    calls: dict[str, Callable[[], object]] = {
        "eval": lambda: vlmdsl.evaluate(run, out=run / "evaluation.json"),
        "eval, other data": lambda: vlmdsl.evaluate(run, data=[str(pictures)], out=pictures / "results.json"),
        "encode": lambda: encode(run, str(pictures), run / "features.npy"),
        "encode, data": lambda: encode(run, str(pictures), pictures / "features.npy"),
        "encode, checkpoint": lambda: encode(checkpoint, str(pictures), run / "features.npy"),
        "export": lambda: export(run, run / "exported"),
        "export, checkpoint": lambda: export(checkpoint, run / "checkpoints" / "exported"),
        "search": lambda: search(run, str(pictures), "red", grid=pictures / "best.png"),
        "search, run": lambda: search(run, str(pictures), "red", grid=run / "retrieval.png"),
        "ground": lambda: ground(run, pictures / "0.png", ["red"], picture=pictures / "0.png"),
    }
    for name, call in calls.items():
        assert refused(call, tmp_path).code == "V0870", name
    assert encode(run, str(pictures), tmp_path / "features.npy").samples == 3
