"""Layouts of folders and tables: read as what they are, or refused in a way that says what to do."""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from unit.runtime.data.damage.samples import class_folder, encoded, images, lines, pairs, picture, tar_of, write
from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.runtime.data import Requirement, Source, map_fields, open_source, remarks_of

IMAGE, TEXT = Requirement("image", "Image"), Requirement("text", "Text")


def problem(*specs: object) -> Diagnostic:
    with pytest.raises(DiagnosticError) as caught:
        open_source([str(spec) for spec in specs])
    return caught.value.diagnostics[0]


def texts(source: Source) -> list[str]:
    mapping = map_fields(source, [IMAGE, TEXT])
    return [mapping.read("text", "Text", source[index]).text for index in range(len(source))]


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_metadata_says_what_the_images_of_a_folder_are(tmp_path: Path, name: str) -> None:
    """The layout that `datasets` calls imagefolder: subfolders are not classes there."""
    names = images(tmp_path)
    write(tmp_path / "img" / "notes.parquet", b"PAR1")
    rows = [{"file_name": image, "text": f"caption {index}"} for index, image in enumerate(names[:-2])]
    text = "file_name,text\n" + "".join(f"{row['file_name']},{row['text']}\n" for row in rows)
    write(tmp_path / name, lines(rows) if name.endswith("jsonl") else text.encode())
    source = open_source(str(tmp_path))
    assert texts(source) == [f"caption {index}" for index in range(10)]
    assert source.class_names is None
    assert remarks_of(source) == [
        f"{tmp_path.name}: read as {name} describes it",
        "left out: images that no metadata names (2: img/010.png, img/011.png)",
        "left out: `.parquet` files (1: img/notes.parquet)",
    ]


def test_metadata_of_subfolders_are_joined(tmp_path: Path) -> None:
    for part in ("a", "b"):
        names = images(tmp_path / part)
        write(
            tmp_path / part / "metadata.csv", "".join(["file_name,text\n", *(f"{name},{part}\n" for name in names)]).encode()
        )
    source = open_source(str(tmp_path))
    assert texts(source) == ["a"] * 12 + ["b"] * 12
    assert source.keys[0] == "a/metadata:2"
    assert len(set(source.keys)) == 24


@pytest.mark.parametrize(
    ("names", "help"),
    [
        (("train", "val"), "`--data {0}/train` `--val {0}/val`"),
        (("Train", "test", "validation"), "`--data {0}/Train` `--val {0}/test`"),
        (("train",), "`--data {0}/train`"),
        (("training", "dev", "extra"), "`--data {0}/training` `--val {0}/dev`"),
        (("test",), "`--val {0}/test`"),
    ],
)
def test_splits_are_not_classes(tmp_path: Path, names: tuple[str, ...], help: str) -> None:
    for name in names:
        class_folder(tmp_path / name)
    fault = problem(tmp_path)
    assert fault.code == "V0829"
    assert fault.help == (f"name the folder of each split: {help.format(tmp_path)}",)
    assert len(open_source(str(tmp_path / names[0]))) == 12


@pytest.mark.parametrize("names", [("train", "bus", "car"), ("tests", "cat"), ("valley", "trail")])
def test_classes_may_be_called_like_a_split(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        class_folder(tmp_path / name)
    assert open_source(str(tmp_path)).class_names == tuple(sorted(names))


def test_endings_of_images_in_folders_and_shards(tmp_path: Path) -> None:
    suffixes = ("png", "jpg", "JPEG", "jfif", "jpe", "webp", "bmp", "gif", "tif", "TIFF", "avif")
    members = [(f"{index}.{suffix}", encoded(picture(index))) for index, suffix in enumerate(suffixes)]
    for name, data in members:
        write(tmp_path / "f" / name, data)
    write(tmp_path / "s.tar", tar_of(members))
    for spec in ("f", "s.tar"):
        source = open_source(str(tmp_path / spec))
        assert len(source) == len(suffixes)
        assert all("image" in source[index] for index in range(len(source)))


def test_what_a_folder_and_a_shard_leave_out_is_named(tmp_path: Path) -> None:
    for name in ("a.png", "b.heic", "c.HEIC", "captions.csv", "d.txt", ".e.png", "README"):
        write(tmp_path / "f" / name, encoded(picture(1)))
    assert remarks_of(open_source(str(tmp_path / "f"))) == [
        "left out: `.heic` files (2: b.heic, c.HEIC)",
        "left out: hidden files and folders (1: .e.png)",
        "left out: files without an extension (1: README)",
        "left out: `.csv` files (1: captions.csv)",
        "left out: `.txt` files without an image (1: d.txt)",
    ]
    write(tmp_path / "s.tar", tar_of([*pairs(), ("000.heic", b"?"), (".DS_Store", b"?"), ("x.bin", b"?")]))
    assert remarks_of(open_source(str(tmp_path / "s.tar"))) == [
        "left out: `.heic` members (1: s.tar: 000.heic)",
        "left out: members that are hidden or have no extension (1: s.tar: .DS_Store)",
        "left out: `.bin` members (1: s.tar: x.bin)",
    ]


def test_names_with_dots_are_refused_before_they_are_one_sample(tmp_path: Path) -> None:
    members = [(f"img.v{index}.{end}", encoded(picture(index))) for index in range(20) for end in ("jpg", "txt")]
    write(tmp_path / "s.tar", tar_of(members))
    fault = problem(tmp_path / "s.tar")
    assert (fault.code, fault.message.split(" of ")[0]) == ("V0835", "20 images")
    assert "`v0.jpg`, `v1.jpg`, `v2.jpg`; the sample `s/img`" in fault.notes[0]
    few = [(f"{name}.{end}", encoded(picture(1))) for name in ("a", "b", "c", "a.1") for end in ("jpg", "txt")]
    write(tmp_path / "few.tar", tar_of(few))
    remark = "few samples have images that end in 1.jpg: a sample's name ends at its first dot"
    assert remarks_of(open_source(str(tmp_path / "few.tar"))) == [remark]
    frames = [(f"{key}.frame{index}.jpg", encoded(picture(index))) for key in range(3) for index in range(20)]
    write(tmp_path / "video.tar", tar_of(frames))
    assert len(open_source(str(tmp_path / "video.tar")).columns) == 20  # every sample has them: they are meant


def test_members_of_a_sample_need_not_follow_each_other(tmp_path: Path) -> None:
    apart = sorted(pairs(), key=lambda member: member[0].rpartition(".")[2])
    write(tmp_path / "s.tar", tar_of(apart))
    source = open_source(str(tmp_path / "s.tar"))
    assert texts(source) == [f"picture number {index}" for index in (0, 3, 6, 9, 1, 2, 4, 5, 7, 8, 10, 11)]
    again = [*pairs(), ("000.png", encoded(picture(5))), ("000.txt", b"another sample")]
    write(tmp_path / "s.tar", tar_of(again))
    source = open_source(str(tmp_path / "s.tar"))
    assert (source.keys[0], source.keys[-1]) == ("s/000", "s/000#2")
    assert texts(source)[-1] == "another sample"
    assert remarks_of(source) == ["repeated keys are separate samples (1: s/000#2)"]


def test_hard_links_are_what_they_link_to(tmp_path: Path) -> None:
    data = tar_of(pairs()).rstrip(b"\0")
    data += bytes(-len(data) % 512)
    for name, target in (("x.png", "003.png"), ("x.txt", "004.txt"), ("y.txt", "nowhere.txt"), ("z.txt", "x.txt")):
        header = tarfile.TarInfo(name)
        header.type, header.linkname = tarfile.LNKTYPE, target
        data += header.tobuf(tarfile.GNU_FORMAT)
    write(tmp_path / "s.tar", data + bytes(1024))
    source = open_source(str(tmp_path / "s.tar"))
    assert (source[12]["image"], source[12]["txt"]) == (encoded(picture(3)), "picture number 4")
    assert source[13]["txt"] == "picture number 4"
    assert "left out: links to what is not in the shard before them (1: s.tar: y.txt)" in remarks_of(source)


def test_a_tar_that_goes_on_behind_its_end_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "s.tar", tar_of(pairs()) * 2)
    assert "more follows its end" in problem(tmp_path / "s.tar").message
    data = tar_of(pairs())
    write(tmp_path / "s.tar", data[:2048] + bytes(512) + data[2560:])
    assert "more follows its end at byte 2048" in problem(tmp_path / "s.tar").message


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.tsv", "img/0.png\ta cat\nimg/1.png\ta dog\n", "is a sample: `img/0.png`"),
        ("t.tsv", "a cat\thttps://h/0\na dog\thttps://h/1\n", "is a sample: `https://h/0`"),
        ("t.csv", "a photo.JPEG,x\n", "is a sample"),
        ("t.csv", 'image,text\na.png,"a cat\nb.png,a dog\n', "the row in line 2 has a quote that is not closed"),
        (
            "t.csv",
            'image,text\na.png,x\n\nb.png,"a" cat\n',
            "the row in line 4 has a quote that is not closed, or text after",
        ),
        ("t.csv", "image,text,image\na,b,c\n", "two columns `image`"),
        ("t.csv", b"image,text\na,caf\xe9\n", "line 2 is not UTF-8 (byte 0xe9)"),
        ("t.csv", "image,text\n".encode("utf-16"), "it is in UTF-16"),
        ("t.csv", gzip.compress(b"image,text\n", mtime=0), "compressed with gzip"),
        ("t.csv", b"PK\x03\x04...", "an Excel file"),
        ("t.tsv", b"PAR1...", "a Parquet file"),
        ("t.json", '{"samples": []}', "not an array of objects"),
        ("t.json", '{"images": {}, "annotations": []}', "no lists of `images` and `annotations`"),
        ("t.json", '[{"image": "a"}', "damaged JSON array"),
        ("t.tar", gzip.compress(b"x", mtime=0), "compressed with gzip; unpack it first, with `gunzip`"),
        ("t.tar", b"PK\x03\x04" + bytes(600), "it is a zip archive"),
        ("t.tar", b"BZh91AY" + bytes(600), "compressed with bzip2"),
    ],
)
def test_files_that_are_not_tables_or_shards(tmp_path: Path, name: str, text: str | bytes, words: str) -> None:
    write(tmp_path / name, text.encode() if isinstance(text, str) else text)
    fault = problem(tmp_path / name)
    assert fault.code == ("V0807" if name == "t.tar" else "V0824")
    assert words in fault.message


def test_separators_quotes_and_line_ends(tmp_path: Path) -> None:
    expected = [{"image": "a.png", "text": "one, two"}, {"image": "b.png", "text": "three"}]
    for name, text in {
        "tab.csv": "image\ttext\na.png\tone, two\nb.png\tthree\n",
        "semi.csv": 'image;text\na.png;"one, two"\nb.png;three\n',
        "comma.tsv": 'image,text\na.png,"one, two"\nb.png,three',
        "bom.csv": '\ufeffimage,text\r\na.png,"one, two"\r\n\r\nb.png,three',
        "old.csv": 'image,text\ra.png,"one, two"\rb.png,three\r',
    }.items():  # fmt: skip
        write(tmp_path / name, text.encode())
        source = open_source(str(tmp_path / name))
        assert [dict(source[index]) for index in range(len(source))] == expected, name
        assert len(remarks_of(source)) == (name.split(".")[0] in ("tab", "semi", "comma"))
    write(tmp_path / "q.tsv", b'image\ttext\na.png\t"one" two\nb.png\t"three\n')  # quotes that are part of the text
    assert texts(open_source(str(tmp_path / "q.tsv"))) == ['"one" two', '"three']


def test_rows_are_named_by_the_line_they_begin_in(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", b'image,text\n\na.png,"over\ntwo lines"\n\nb.png,x\n')
    assert open_source(str(tmp_path / "t.csv")).keys == ["t:3", "t:6"]


def test_json_arrays_and_lines_under_any_name(tmp_path: Path) -> None:
    values = [{"image": "a.png", "text": "one"}, {"image": "b.png", "text": "two"}]
    for name, data in {
        "a.json": json.dumps(values), "b.json": json.dumps(values, indent=2), "c.jsonl": json.dumps(values),
        "d.json": "\n".join(map(json.dumps, values)), "e.ndjson": "\n\n".join(map(json.dumps, values)) + "\n",
    }.items():  # fmt: skip
        write(tmp_path / name, data.encode("utf-8-sig"))
        assert texts(open_source(str(tmp_path / name))) == ["one", "two"], name


def test_what_lies_beside_shards_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", tar_of(pairs()))
    images(tmp_path)
    write(tmp_path / "b.png", encoded(picture(1)))
    assert remarks_of(open_source(str(tmp_path))) == [
        "left out: `.png` files (1: b.png)",
        "left out: other files and folders (1: img)",
    ]


def test_patterns_enter_no_links_and_nothing_hidden(tmp_path: Path) -> None:
    for name in ("a/x.tar", "a/b/y.tar", ".hidden/z.tar", "a/.git/z.tar"):
        write(tmp_path / name, tar_of(pairs()))
    for number in range(4):
        (tmp_path / "a" / f"up{number}").symlink_to(tmp_path)
    keys = open_source(f"{tmp_path}/**/*.tar").keys
    assert [key for key in keys if key.endswith("/000")] == ["y/000", "x/000"]
    assert len(open_source(f"{tmp_path}/.hidden/**/*.tar")) == 12


@pytest.mark.parametrize("content", ["empty", "links", "header", "members"])
def test_no_path_is_suggested_in_its_own_place(tmp_path: Path, content: str) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "links" / "a.png").symlink_to(write(tmp_path / "pool.png", encoded(picture(1))))
    write(tmp_path / "header.csv", b"image,text\n")
    write(tmp_path / "members.tar", tar_of([]))
    (path,) = tmp_path.glob(f"{content}*")
    fault = problem(path)
    assert (fault.code, fault.notes[0]) == ("V0805", "it holds no samples")
    assert not any("did you mean" in note for note in fault.notes)
    assert ("data.allowed_folders" in " ".join(fault.help)) == (content == "links")


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("t.jsonl", b'{"image": "a", "image": "b", "text": "c"}\n' * 3, "json object with a key twice"),
        ("t.jsonl", b'{"text": "caf\xe9"}\n' * 3, "json is not UTF-8"),
        ("t.jsonl", b"a,b\n" * 3, "damaged json"),
        ("t.tar", tar_of([("0.txt", b"\xff"), ("1.txt", b"\xff")]), "text is not UTF-8"),
    ],
)
def test_where_no_sample_can_be_read_the_reason_is_reported(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    with pytest.raises(DiagnosticError) as caught:
        map_fields(open_source(write(tmp_path / name, data)), [TEXT])
    assert caught.value.diagnostics[0].code == "V0801"
    assert f"none of its samples can be read: {reason}" in caught.value.diagnostics[0].notes


def test_an_empty_specification_is_not_this_folder() -> None:
    assert problem("").notes[0] == problem(" ").notes[0] == "the specification is empty"


def test_an_address_is_shown_as_it_was_given() -> None:
    fault = problem("https://h/a.csv")
    assert fault.message == "no data at `https://h/a.csv`"
    assert "only tar shards are fetched" in fault.notes[0]


def test_samples_of_one_name_are_distinguished(tmp_path: Path, shard: Callable[..., Path]) -> None:
    for part in ("x", "y"):
        write(tmp_path / part / "s.tar", tar_of(pairs()))
    for specs in ([str(tmp_path / "*" / "s.tar")], [str(tmp_path / part / "s.tar") for part in ("x", "y")]):
        source = open_source(specs)
        assert (source.keys[0], source.keys[12]) == ("s/000", "s/000#2")
        assert len(set(source.keys)) == 24
