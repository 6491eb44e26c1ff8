"""Shards, folders and tables: what is read from them, and what is said where they are unsound."""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.runtime.data import BadSample, fingerprint, held_out, open_source


def problem(*specs: str) -> Diagnostic:
    with pytest.raises(DiagnosticError) as caught:
        open_source(specs)
    return caught.value.diagnostics[0]


def test_a_shard_is_grouped_as_the_webdataset_library_groups_it(tmp_path: Path, image: Callable[..., bytes]) -> None:
    webdataset = pytest.importorskip("webdataset")
    path = tmp_path / "a.tar"
    with webdataset.TarWriter(str(path)) as writer:
        for index in range(5):
            writer.write(
                {"__key__": f"d.1/{index}", "png": image(index), "txt": f"täxt {index}", "json": {"n": index}, "cls": index}
            )
    source = open_source(str(path))
    with open(path, "rb") as file:
        tariterators = webdataset.tariterators
        files = [{**member, "__url__": str(path)} for member in tariterators.tar_file_iterator(file)]
    samples = list(tariterators.group_by_keys(files))
    assert source.keys == [f"a/{sample['__key__']}" for sample in samples]
    for index, expected in enumerate(samples):
        columns = {"image": expected["png"], "txt": expected["txt"].decode(), "cls": int(expected["cls"]), "n": index}
        assert dict(source[index]) == columns
    assert source.columns == ("cls", "image", "n", "txt")


def test_members_of_a_shard(shard: Callable[..., Path], image: Callable[..., bytes]) -> None:
    members = {
        "a.b.png": image(1), "a.JPG": image(2), "a.json": {"txt": "from json", "n": 1}, "a.txt": "\ufefffrom text",
        ".hidden": "", "dir.v2/b.png": image(3), "dir.v2/b.left.txt": "side", "c.bin": b"?",
    }  # fmt: skip
    source = open_source(str(shard("s.tar", members)))
    assert source.keys == ["s/a", "s/dir.v2/b", "s/c"]
    assert dict(source[0]) == {"b": image(1), "image": image(2), "txt": "from text", "n": 1}
    assert dict(source[1]) == {"image": image(3), "left": "side"}
    assert dict(source[2]) == {}


@pytest.mark.parametrize(
    ("member", "content", "reason"),
    [
        ("0.json", "{", "damaged json"),
        ("0.json", "[" * 100_000, "damaged json"),
        ("0.txt", b"\xff\xfe\xfa", "text is not UTF-8"),
        ("0.cls", "cat", "class is not an integer"),
    ],
)
def test_a_damaged_member_makes_a_bad_sample(shard: Callable[..., Path], member: str, content: str, reason: str) -> None:
    source = open_source(str(shard("s.tar", {member: content})))
    with pytest.raises(BadSample) as caught:
        source[0]
    assert caught.value.reason == reason


def test_several_shards_in_one_order(pairs: Callable[..., Path], tmp_path: Path) -> None:
    for number in range(3):
        pairs(2, name=f"p-{number:03d}.tar")
    star, counted = open_source(str(tmp_path / "p-*.tar")), open_source(str(tmp_path / "p-{000..002}.tar"))
    assert star.keys == counted.keys == [f"p-{number:03d}/{index:04d}" for number in range(3) for index in range(2)]
    assert open_source(str(tmp_path)).keys == star.keys
    assert fingerprint(star) == fingerprint(counted) != fingerprint(open_source(str(tmp_path / "p-000.tar")))
    assert star[3]["txt"] == "sample 1"


@pytest.mark.parametrize("length", [4096, 4500, 4700, 5000])
def test_a_truncated_shard_is_named(pairs: Callable[..., Path], length: int) -> None:
    """Cut off between members, in a header, in the content of a file, and in its padding."""
    path = pairs(5)
    path.write_bytes(path.read_bytes()[:length])
    diagnostic = problem(str(path))
    assert diagnostic.code == "V0807"
    assert str(path) in diagnostic.message


def test_a_shard_with_a_damaged_header_is_named(pairs: Callable[..., Path]) -> None:
    path = pairs(5)
    data = bytearray(path.read_bytes())
    data[4096:4196] = b"?" * 100
    path.write_bytes(data)
    assert "damaged at byte 4096" in problem(str(path)).message


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("x.tar", b"no tar at all", "V0807"),
        ("x.tar.gz", gzip.compress(b"", mtime=0), "V0807"),
        ("x.csv.gz", gzip.compress(b"", mtime=0), "V0806"),
        ("x.ods", b"", "V0806"),
        ("x.csv", b"", "V0824"),
        ("x.csv", b"\xff\xfe\x00", "V0824"),
        ("x.csv", b"image,text\n", "V0805"),
        ("x.jsonl", b"\n\n", "V0805"),
    ],
)
def test_files_that_hold_no_data(tmp_path: Path, name: str, content: bytes, code: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert problem(str(tmp_path / name)).code == code


def test_an_empty_shard_and_an_empty_folder(tmp_path: Path) -> None:
    tarfile.open(tmp_path / "empty.tar", "w").close()
    (tmp_path / "folder").mkdir()
    assert problem(str(tmp_path / "empty.tar")).code == "V0805"
    assert problem(str(tmp_path / "folder")).code == "V0805"


def test_a_place_that_does_not_exist(pairs: Callable[..., Path]) -> None:
    path = pairs(1)
    assert problem(str(path.with_name("pars.tar"))).notes[-1] == f"did you mean `{path}`?"
    assert "matches nothing" in problem(str(path.with_name("x-*.tar"))).notes[0]


def test_a_pattern_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    fault = problem(str(tmp_path / "a**" / "x.tar"))
    assert fault.code == "V0805"
    assert "the pattern cannot be used: " in fault.notes[0]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("shapes:nose=0.3", "did you mean `noise`?"),
        ("shapes:noise=2", "must be from 0 to 1"),
        ("shapes:samples=many", "cannot be 'many'"),
        ("shapes:samples", "needs a value"),
        ("shapes:size=4", "must be from 16"),
        ("shapes:noise=nan", "must be from 0 to 1"),
        ("shapes:label=size", "must be one of `object`, `colour`, `shape`, `count`"),
    ],
)
def test_wrong_hyper_parameters_of_the_built_in_data(spec: str, words: str) -> None:
    diagnostic = problem(spec)
    assert diagnostic.code == "V0808"
    assert words in " ".join((diagnostic.message, *diagnostic.help))


def test_hyper_parameters_and_defaults_of_the_built_in_data() -> None:
    source = open_source("shapes:samples=12,noise=100%", shapes={"samples": 99, "size": 48})
    assert len(source) == 12
    assert source[0]["image"].shape == (48, 48, 3)  # type: ignore[attr-defined]
    assert source[0]["flag"] is True
    assert held_out("shapes") == ["shapes"]
    assert held_out("shapes:label=shape,samples=12,seed=3") == ["shapes:label=shape,seed=3"]
    assert held_out(["a.csv"]) == []


def test_a_folder_of_classes_with_texts_beside_some_images(tmp_path: Path, image: Callable[..., bytes]) -> None:
    for name in ("tabby_cat/1.png", "tabby_cat/2.PNG", "dog/deep/3.jpg", "dog/4.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(image())
    (tmp_path / "dog/4.txt").write_text("a dog at sea")
    (tmp_path / "dog/4.json").write_text(json.dumps({"tags": ["sea"]}))
    (tmp_path / "dog/notes.md").write_text("no image")
    source = open_source(str(tmp_path))
    assert source.class_names == ("dog", "tabby cat")
    assert source.keys == ["dog/4.png", "dog/deep/3.jpg", "tabby_cat/1.png", "tabby_cat/2.PNG"]
    assert [source[index]["label"] for index in range(4)] == [0, 0, 1, 1]
    assert [source[index].get("text") for index in range(4)] == [None, "dog", "tabby cat", "tabby cat"]
    assert (source[0]["txt"], source[0]["tags"]) == ("a dog at sea", ["sea"])


def test_a_flat_folder_has_no_classes(tmp_path: Path, image: Callable[..., bytes]) -> None:
    (tmp_path / "a.png").write_bytes(image())
    (tmp_path / "a.txt").write_text("one")
    source = open_source(str(tmp_path))
    assert source.class_names is None
    assert source.columns == ("image", "txt")


def test_tables(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('filepath,title\nimg/a.png,"a, b"\n\nimg/b.png,c\nx,y,z\n', encoding="utf-8-sig")
    (tmp_path / "t.tsv").write_text("filepath\ttitle\nimg/a.png\ta, b\n")
    (tmp_path / "t.jsonl").write_text('{"path": "a.png", "text": "one\u2028line"}\n\nnot json\n[1]\n')
    table = open_source(str(tmp_path / "t.csv"))
    assert table.columns == ("filepath", "title")
    assert dict(table[0]) == {"filepath": "img/a.png", "title": "a, b"} == dict(open_source(str(tmp_path / "t.tsv"))[0])
    assert table.folder_of(0) == str(tmp_path)
    with pytest.raises(BadSample, match="more cells"):
        table[2]
    lines = open_source(str(tmp_path / "t.jsonl"))
    assert lines.keys == ["t:1", "t:3", "t:4"]
    assert lines[0]["text"] == "one\u2028line"
    for index, reason in ((1, "damaged json"), (2, "not a json object")):
        with pytest.raises(BadSample, match=reason):
            lines[index]


def test_joined_sources_keep_their_own_folders(tmp_path: Path, pairs: Callable[..., Path]) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.csv").write_text("image\nx.png\n")
    source = open_source([str(tmp_path / "a/t.csv"), str(pairs(2)), "shapes:samples=3", str(tmp_path / "b/t.csv")])
    assert len(source) == 7
    assert [source.folder_of(index) for index in (0, 1, 6)] == [str(tmp_path / "a"), None, str(tmp_path / "b")]
    assert source.class_names is None
    assert source[2]["txt"] == "sample 1"
