"""What a downloaded shard, folder or table cannot do: read other files, block, start programs, exhaust the machine."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import tarfile
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unit.runtime.data.damage.samples import encoded, picture
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.data import BadSample, Limits, Requirement, SkipReport, map_fields, open_source
from vlmdsl.runtime.data.images import decode_image
from vlmdsl.runtime.data.report import Skipped
from vlmdsl.runtime.data.summaries import summarize
from vlmdsl.runtime.modules.towers.tokenizers import load_tokenizer
from vlmdsl.runtime.tokenizer import train_tokenizer
from vlmdsl.runtime.values import first_value
from vlmdsl.runtime.values.regions import regions_value
from vlmdsl.schema import DataConfig
from vlmdsl.source.regular_files import BadFile, read_regular

PNG = encoded(picture(1))


def limits(**settings: object) -> Limits:
    return Limits.of(DataConfig(**settings))  # type: ignore[arg-type]


def reason(value: object, folder: Path | None = None, **settings: object) -> str:
    """Why an image is skipped."""
    with pytest.raises(BadSample) as caught:
        decode_image(value, None if folder is None else str(folder), limits(**settings))
    return caught.value.reason


def test_only_regular_files_are_read_and_none_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    started = time.monotonic()
    for name in ("pipe.png", "folder.png"):
        assert reason(name, tmp_path) == "image file is not a regular file"
    assert reason("/dev/zero", tmp_path, allowed_folders=("/",)) == "image file is not a regular file"
    for path in (tmp_path / "pipe.png", Path("/dev/zero"), tmp_path):
        with pytest.raises(BadFile, match="not a regular file"):
            read_regular(path, 100)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.json", "t.tar", "tokenizer.json"])
def test_a_pipe_in_place_of_a_data_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    timer = threading.Timer(20, lambda: os.close(os.open(tmp_path / name, os.O_RDWR)))  # whoever waits would go on then
    timer.start()
    started = time.monotonic()
    with pytest.raises(DiagnosticError, match="file is not a regular file"):
        (load_tokenizer if name == "tokenizer.json" else open_source)(str(tmp_path / name))
    timer.cancel()
    assert time.monotonic() - started < 10


def test_files_above_the_limit_are_not_read(tmp_path: Path, shard: Callable[..., Path]) -> None:
    (tmp_path / "a.png").write_bytes(PNG + bytes(5000))
    assert reason("a.png", tmp_path, max_file_bytes=5000) == "image file too large"
    assert decode_image("a.png", str(tmp_path), limits(max_file_bytes=6000)).shape == (7, 9, 3)
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(2**40)  # takes no room on the disk
    assert reason("huge.png", tmp_path) == "image file too large"
    source = open_source(str(shard("s.tar", {"0.png": PNG + bytes(5000), "0.txt": "x"})), limits=limits(max_file_bytes=5000))
    with pytest.raises(BadSample, match="file too large"):
        source[0]["image"]


def test_tables_above_the_limit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,text\n" + "a.png,x\n" * 100)
    with pytest.raises(DiagnosticError) as caught:
        open_source(str(tmp_path / "t.csv"), limits=limits(max_table_bytes=500))
    (fault,) = caught.value.diagnostics
    assert (fault.code, fault.help) == ("V0824", ("`--set data.max_table_bytes=811` reads it",))


def test_what_grows_without_end_is_read_up_to_the_limit() -> None:
    with pytest.raises(BadFile, match="too large"):
        read_regular("/proc/self/smaps", 100)  # of size 0, as it says


@pytest.mark.parametrize("path", ["/etc/hostname", "/dev/zero", "0.png", "../a.png"])
def test_a_shard_names_no_file_of_this_machine(tmp_path: Path, shard: Callable[..., Path], path: str) -> None:
    (tmp_path / "0.png").write_bytes(PNG)
    source = open_source(str(shard("s.tar", {"0.json": {"image": path, "text": "x"}})))
    value = first_value(source[0], map_fields(source, [Requirement("image", "Image")]).columns["image"])
    with pytest.raises(BadSample, match="a shard names no files"):
        decode_image(value, source.folder_of(0))


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_table_names_files_of_its_own_folder_only(tmp_path: Path, form: str) -> None:
    inner, outer = tmp_path / "data", tmp_path / "other"
    for folder in (inner / "img", outer):
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(PNG)
    (inner / "link.png").symlink_to(outer / "a.png")
    (inner / "near.png").symlink_to("img/a.png")
    names = ["img/a.png", "img/../img/a.png", str(inner / "img/a.png"), "near.png"]
    names += ["../other/a.png", str(outer / "a.png"), "link.png", "img/../../other/a.png"]
    text = "image\n" + "\n".join(names) if form == "csv" else "\n".join(json.dumps({"image": name}) for name in names)
    (inner / f"t.{form}").write_text(text)
    source = open_source(str(inner / f"t.{form}"))
    for index in range(8):
        value, folder = source[index]["image"], source.folder_of(index)
        if index >= 4:
            with pytest.raises(BadSample, match="outside the folder of the data"):
                decode_image(value, folder)
        assert decode_image(value, folder, limits(allowed_folders=(str(outer),))).shape == (7, 9, 3)


def test_a_folder_whose_name_begins_alike_is_another(tmp_path: Path) -> None:
    for name in ("data", "data2"):
        (tmp_path / name).mkdir()
    (tmp_path / "data2" / "a.png").write_bytes(PNG)
    assert reason("../data2/a.png", tmp_path / "data") == "image file outside the folder of the data"


def test_links_out_of_a_folder_are_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").write_bytes(PNG)
    data = tmp_path / "data"
    data.mkdir()
    (data / "own.png").write_bytes(PNG)
    for name, target in (("a.png", "elsewhere/a.png"), ("classes", "elsewhere"), ("own.json", "/dev/zero"), ("up", "data")):
        (data / name).symlink_to(tmp_path / target if target[0] != "/" else target)
    source = open_source(str(data))
    assert source.keys == ["own.png"]
    assert source.remarks == [  # type: ignore[attr-defined]
        "left out: links to what is outside the folder of the data (3: a.png, classes, own.json)",
        "left out: links to folders that are already read (1: up)",
    ]
    both = open_source(str(data), limits=limits(allowed_folders=(str(tmp_path / "elsewhere"),)))
    assert both.keys == ["a.png", "classes/a.png", "own.png"]


@pytest.mark.parametrize("form", ["EPS", "PDF", "PSD", "ICO", "PPM", "TGA", "PCX", "SGI", "ICNS"])
def test_only_known_formats_are_decoded_whatever_the_file_is_called(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    def started(*arguments: object, **_options: object) -> None:
        raise AssertionError(f"a program is started: {arguments}")

    monkeypatch.setattr(subprocess, "Popen", started)
    data = b"8BPS\x00\x01" + bytes(40) if form == "PSD" else encoded(picture(1, (32, 32)), form)
    assert reason(data) == "damaged image"


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"])
def test_pixels_are_counted_before_any_is_decoded(form: str) -> None:
    data = encoded(picture(1, (200, 100)), form)
    assert reason(data, max_image_pixels=19_999) == "image too large"
    assert decode_image(data, limits=limits(max_image_pixels=20_000)).shape == (100, 200, 3)


def tiled(side: int) -> bytes:
    """A grey TIFF of 9 by 9 pixels in one tile of that side, compressed."""
    data = zlib.compress(bytes(256))
    tags = {256: 9, 257: 9, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 8 + 2 + 10 * 12 + 4, 325: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def test_tiles_and_scans_are_counted_too() -> None:
    """A small TIFF of large tiles takes the memory of a large image, a JPEG of hundreds of scans the time of hundreds."""
    assert decode_image(tiled(16)).shape == (9, 9, 3)
    assert reason(tiled(20_000)) == "image too large"
    progressive = encoded(picture(1, (64, 64)), "JPEG", progressive=True)
    start = progressive.rindex(b"\xff\xda")
    many = progressive[:-2] + progressive[start:-2] * 500 + progressive[-2:]
    assert decode_image(progressive).shape == (64, 64, 3)
    assert reason(many) == "image of too many scans"


def test_regions_of_too_many_numbers_are_skipped() -> None:
    for regions in ([[0.5]] * 1001, [[0.5] * 70_000]):
        with pytest.raises(BadSample, match="too many numbers"):
            regions_value("regions", regions)
    assert regions_value("regions", [[0.5]] * 1000).shape == (1000, 1)


def test_columns_without_end_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(",".join(f"c{index}" for index in range(10_001)) + "\n1\n")
    with pytest.raises(DiagnosticError, match="10,001 columns"):
        open_source(str(tmp_path / "t.csv"))
    (tmp_path / "t.jsonl").write_text(json.dumps({f"c{index}": 1 for index in range(20_000)}) + "\n")
    assert len(open_source(str(tmp_path / "t.jsonl")).columns) == 10_000


def test_a_summary_of_thousands_of_sentences_takes_no_time() -> None:
    started = time.process_time()
    assert summarize("a b. " * 5000 + "c c.", by="centrality") == "a b."
    assert time.process_time() - started < 2


def test_a_large_jpeg_is_decoded_smaller_for_a_small_tower() -> None:
    ramp = np.linspace(0, 255, 1600).astype(np.uint8)
    data = encoded(Image.fromarray(np.broadcast_to(ramp[None, :, None], (1200, 1600, 3)).copy()), "JPEG", quality=95)
    whole, small = decode_image(data), decode_image(data, side=32)
    assert (whole.shape, small.shape) == ((1200, 1600, 3), (150, 200, 3))
    assert min(small.shape[:2]) >= 4 * 32
    assert np.abs(small[75, :, 0].astype(float) - whole[600, 4::8, 0]).max() < 4
    assert decode_image(data, side=300).shape == (1200, 1600, 3)
    assert decode_image(encoded(picture(1, (900, 900))), side=8).shape == (900, 900, 3)


def test_texts_are_cut_before_anything_is_made_of_them(shard: Callable[..., Path]) -> None:
    members = {"0.json": {"text": ["y" * 50, "z" * 50], "tags": ["t" * 50]}}
    source = open_source(str(shard("s.tar", members)))
    needs = [Requirement("text", "Text"), Requirement("text_rewrites", "Rewrites")]
    value = map_fields(source, needs, {"text_rewrites": "tags"}, limits=limits(max_text_characters=20)).read(
        "text", "Text", source[0]
    )
    assert (value.text, value.rewrites) == ("y" * 20, ("t" * 20,))


@pytest.mark.parametrize("text", ["x" * 3_000_000, "ab" * 500_000, "文" * 500_000, "\u0301" * 200_000])
def test_a_tokenizer_is_trained_in_no_time_on_a_text_without_blanks(text: str) -> None:
    started = time.process_time()
    tokenizer = train_tokenizer(["a red circle", text], 400)
    assert time.process_time() - started < 2
    assert tokenizer.decode(tokenizer.encode(["a red circle"], 30)[0][0].tolist()) == "a red circle"


def test_long_words_are_learned_in_pieces_and_short_ones_as_they_are() -> None:
    words = ["internationalisation", "donaudampfschifffahrt" * 3]  # 63 letters
    assert train_tokenizer(words * 4, 400).to_json() == train_tokenizer([*words] * 4, 400).to_json()
    pieces = train_tokenizer(["n" * 64 + "m" * 10] * 4, 300)
    assert pieces.to_json() == train_tokenizer([f"{'n' * 64} {'m' * 10}"] * 4, 300).to_json()


HOSTILE = "\x1b]0;owned\x07\x9b31m\u202e\n= note: all is well"


def test_names_of_members_reach_no_terminal_as_they_are() -> None:
    report = SkipReport(notes=[f"sources of {HOSTILE}"])
    report.add([Skipped(f"shard/{HOSTILE}", "damaged image"), Skipped("x" * 5000, "damaged image")])
    table = report.table()
    assert not set("\x1b\x07\x9b\u202e") & set(table)
    assert len(table.splitlines()) == 3  # no name makes a line of its own
    assert max(map(len, table.splitlines())) < 300


def test_names_that_are_not_text_are_written_as_escapes(tmp_path: Path) -> None:
    (tmp_path / "caf\udce9.png").write_bytes(b"damaged")
    (tmp_path / "caf\udce9.heic").write_bytes(b"?")
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("caf\udce9.png"))
    folder, table = tmp_path / "f", open_source(str(tmp_path / "s.tar"))
    folder.mkdir()
    for name in ("caf\udce9.png", "caf\udce9.heic"):
        (tmp_path / name).rename(folder / name)
    images = open_source(str(folder))
    assert (images.keys, table.keys) == (["caf\\udce9.png"], ["s/caf\\udce9"])
    assert json.dumps(images.remarks, ensure_ascii=False).encode()  # type: ignore[attr-defined]
    report = SkipReport()
    report.add([Skipped(images.keys[0], "damaged image")])
    assert json.dumps(report.as_dict(), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a\0b.png", "image file cannot be opened"),
        ("\ud800.png", "image file cannot be opened"),
        ("x" * 4000, "image file cannot be opened"),
        ("~nobody/a.png", "image file not found"),
        (" ", "missing image"),
        ("https://h/a.png", "image is a URL, and nothing is downloaded"),
    ],
)
def test_paths_that_no_file_can_have_are_skipped(tmp_path: Path, name: str, expected: str) -> None:
    assert reason(name, tmp_path) == expected
