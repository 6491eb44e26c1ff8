"""Tables: quotes, separators, encodings, headers, odd cells and odd JSON."""

from __future__ import annotations

import json
from pathlib import Path

from unit.runtime.data.damage.cases import BYTES, case
from unit.runtime.data.damage.samples import COUNT, Rng, images, lines, objects, rows, write

for _name, _damage in BYTES.items():

    @case(f"csv {_name}")
    def _(rng: Rng, folder: Path, damage=_damage) -> str:  # type: ignore[no-untyped-def]
        return write(folder / "t.csv", damage(rows(folder).encode(), rng))

    @case(f"tsv {_name}")
    def _(rng: Rng, folder: Path, damage=_damage) -> str:  # type: ignore[no-untyped-def]
        return write(folder / "t.tsv", damage(rows(folder, "\t").encode(), rng))

    @case(f"jsonl {_name}")
    def _(rng: Rng, folder: Path, damage=_damage) -> str:  # type: ignore[no-untyped-def]
        return write(folder / "t.jsonl", damage(lines(objects(folder)), rng))

    @case(f"json {_name}")
    def _(rng: Rng, folder: Path, damage=_damage) -> str:  # type: ignore[no-untyped-def]
        return write(folder / "t.json", damage(json.dumps(objects(folder)).encode(), rng))


@case("csv of Windows", legal=True)
def _(_rng: Rng, folder: Path) -> str:
    return write(folder / "T.CSV", rows(folder, end="\r\n").encode("utf-8-sig"))


@case("csv with line ends of long ago", legal=True)
def _(_rng: Rng, folder: Path) -> str:
    return write(folder / "t.csv", rows(folder, end="\r").encode())


@case("csv with other separators", legal=True)
def _(rng: Rng, folder: Path) -> str:
    return write(folder / "t.csv", rows(folder, "\t;|"[int(rng.integers(3))]).encode())


@case("csv with quotes", legal=True)
def _(_rng: Rng, folder: Path) -> str:
    cells = [f'"{name}","a ""{index}"", over\ntwo lines"' for index, name in enumerate(images(folder))]
    return write(folder / "t.csv", "\n\n".join(['"image","text"', *cells]).encode())


@case("tsv with literal quotes", legal=True)
def _(_rng: Rng, folder: Path) -> str:
    return write(
        folder / "t.tsv", rows(folder, "\t").replace("picture 3", '"picture" 3').replace("picture 5", '"5').encode()
    )


@case("csv of pandas", legal=True)
def _(_rng: Rng, folder: Path) -> str:
    cells = [f"{index},{name},t {index}" for index, name in enumerate(images(folder))]
    return write(folder / "t.csv", "\n".join([",image,text", *cells]).encode())


@case("jsonl of Windows", legal=True)
def _(_rng: Rng, folder: Path) -> str:
    return write(folder / "t.jsonl", b"\xef\xbb\xbf" + lines(objects(folder)).replace(b"\n", b"\r\n\r\n"))


@case("json array over lines", legal=True)
def _(rng: Rng, folder: Path) -> str:
    ending = ("json", "jsonl")[int(rng.integers(2))]
    return write(folder / f"t.{ending}", json.dumps(objects(folder), indent=1).encode("utf-8"))


@case("json lines called json", legal=True)
def _(_rng: Rng, folder: Path) -> str:
    return write(folder / "t.json", lines(objects(folder)))


@case("jsonl with lists and numbers", legal=True)
def _(_rng: Rng, folder: Path) -> str:
    values = [{"image": name, "text": [index, "two"], "label": index} for index, name in enumerate(images(folder))]
    return write(folder / "t.jsonl", lines(values))


TEXTS: dict[str, tuple[str, str]] = {
    "quote never closed": ("picture 4", '"picture 4'),
    "quote closed too early": ("picture 4", '"pic"ture 4'),
    "columns twice": ("image,text", "text,text"),
    "one column": ("image,text", "image"),
    "no name": ("image,text", ","),
    "no header": ("image,text\n", ""),
    "NUL in texts": ("picture", "\0"),
    "more cells": ("picture 4", "picture,4,5"),
    "empty cell": ("picture 4", ""),
    "empty path": ("img/004.png", ""),
    "NUL in a path": ("img/004.png", "img/\0004.png"),
    "path out of the folder": ("img/004.png", "../../../../etc/passwd"),
    "absolute path": ("img/004.png", "/dev/zero"),
    "other folder": ("img/", "img/no/"),
    "path to a folder": ("img/004.png", "img"),
    "long path": ("img/004.png", "x/" * 5000),
    "address": ("img/004.png", "https://h/4.png"),
    "half a pair": ("picture 4", "\ud800"),
    "large cell": ("picture 4", "x" * 3_000_000),
    "blank lines": ("\n", "\n \n\n"),
    "long header": ("image,text", "image,text," + ",".join(f"c{index}" for index in range(3000))),
}
for _name, (_old, _new) in TEXTS.items():

    @case(f"csv {_name}")
    def _(_rng: Rng, folder: Path, old=_old, new=_new) -> str:  # type: ignore[no-untyped-def]
        return write(folder / "t.csv", rows(folder).replace(old, new).encode("utf-8", "surrogatepass"))


ENCODINGS = ("latin-1", "utf-16", "utf-32", "utf-16-le", "cp037", "utf-7")
for _name in ENCODINGS:

    @case(f"csv in {_name}")
    def _(_rng: Rng, folder: Path, encoding=_name) -> str:  # type: ignore[no-untyped-def]
        return write(folder / "t.csv", rows(folder).replace("picture", "Gemälde").encode(encoding))


LINES: dict[str, bytes] = {
    "nested": b"[" * 100_000,
    "array": b"[1]",
    "text": b'"x"',
    "number": b"1",
    "nothing": b"{}",
    "null": b'{"image": null, "text": null}',
    "Latin-1": b'{"text": "caf\xe9"}',
    "key twice": b'{"image": "img/000.png", "image": "img/001.png", "text": "x"}',
    "half a pair": b'{"image": "img/\\ud800.png", "text": "x"}',
    "NUL": b'{"image": "img/\\u0000.png", "text": "x"}',
    "device": b'{"image": "/dev/zero", "text": "x"}',
    "number for a path": b'{"image": 3, "text": "x"}',
    "list for a path": b'{"image": ["img/000.png"], "text": "x"}',
    "object for a text": b'{"image": "img/000.png", "text": {}}',
    "large": b'{"text": "' + b"x" * (9 * 2**20) + b'"}',
    "many values": b'{"text": [' + b"[]," * 70_000 + b'"x"]}',
}
for _name, _line in LINES.items():

    @case(f"jsonl line {_name}")
    def _(rng: Rng, folder: Path, line=_line) -> str:  # type: ignore[no-untyped-def]
        whole = lines(objects(folder)).splitlines()
        whole.insert(int(rng.integers(COUNT + 1)), line)
        return write(folder / "t.jsonl", b"\n".join(whole))


JSON: dict[str, bytes] = {
    "object": b'{"images": [], "annotations": []}',
    "object over lines": b'{\n "a": 1\n}',
    "empty array": b"[]",
    "blank": b" \n ",
    "nested": b"[" * 200_000,
    "many": b"[" + b"1," * 300_000 + b"1]",
    "text": b'"x"',
    "array and more": b"[{}]\n[{}]",
    "no comma": b'[{"image": "a"} {"image": "b"}]',
    "null": b"[null, null]",
}
for _name, _data in JSON.items():

    @case(f"json file of {_name}")
    def _(_rng: Rng, folder: Path, data=_data) -> str:  # type: ignore[no-untyped-def]
        return write(folder / "t.json", data)


@case("no regular table")
def _(rng: Rng, folder: Path) -> str:
    path = folder / f"t.{('csv', 'jsonl', 'json', 'tar')[int(rng.integers(4))]}"
    if rng.random() < 0.5:
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    return str(path)
