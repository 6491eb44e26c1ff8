"""Folders: links, pipes, odd names, splits, metadata."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from unit.runtime.data.damage.cases import BYTES, case
from unit.runtime.data.damage.samples import COUNT, PIXELS, Rng, class_folder, encoded, images, lines, picture, write

for _name, _damage in BYTES.items():

    @case(f"file in a folder {_name}")
    def _(rng: Rng, folder: Path, damage=_damage) -> str:  # type: ignore[no-untyped-def]
        files = sorted(path for path in class_folder(folder).rglob("*") if path.is_file())
        for number in rng.choice(len(files), size=3, replace=False):
            files[number].write_bytes(damage(files[number].read_bytes(), rng))
        return str(folder)

    @case(f"metadata {_name}")
    def _(rng: Rng, folder: Path, damage=_damage) -> str:  # type: ignore[no-untyped-def]
        table = "file_name,text\n" + "".join(f"{name},text {index}\n" for index, name in enumerate(images(folder)))
        write(folder / "metadata.csv", damage(table.encode(), rng))
        return str(folder)


@case("classes", legal=True)
def _(_rng: Rng, folder: Path) -> str:
    return str(class_folder(folder))


@case("metadata of objects", legal=True)
def _(_rng: Rng, folder: Path) -> str:
    values = [{"file_name": name, "text": f"text {index}"} for index, name in enumerate(images(folder))]
    write(folder / "metadata.jsonl", lines(values))
    return str(folder)


@case("metadata in subfolders", legal=True)
def _(_rng: Rng, folder: Path) -> str:
    for part in ("a", "b"):
        names = images(folder / part)
        write(folder / part / "metadata.csv", ("file_name,text\n" + "".join(f"{name},a text\n" for name in names)).encode())
    return str(folder)


@case("endings of all kinds", legal=True)
def _(_rng: Rng, folder: Path) -> str:
    for number, (suffix, image) in enumerate(PIXELS.values()):
        write(folder / "a" / "deep.er" / f"{number}.v1.{suffix}", image(number))
        write(folder / "a" / "deep.er" / f"{number}.v1.TXT", b"a text")
    return str(folder)


@case("splits")
def _(rng: Rng, folder: Path) -> str:
    names = [("train", "val"), ("Train", "TEST"), ("training", "other", "dev"), ("test",)][int(rng.integers(4))]
    for name in names:
        class_folder(folder / name)
    return str(folder)


@case("links in circles")
def _(_rng: Rng, folder: Path) -> str:
    class_folder(folder)
    for number in range(6):
        (folder / f"class_{number % 3}" / f"up{number}").symlink_to(folder)
        (folder / f"circle{number}").symlink_to(folder / f"circle{(number + 1) % 6}")
    return str(folder)


@case("links to elsewhere")
def _(_rng: Rng, folder: Path) -> str:
    class_folder(folder / "data")
    class_folder(folder / "elsewhere")
    (folder / "data" / "class_0" / "zero.png").symlink_to("/dev/zero")
    (folder / "data" / "class_0" / "one.png").symlink_to(folder / "elsewhere" / "class_0" / "000.png")
    (folder / "data" / "class_9").symlink_to(folder / "elsewhere" / "class_0")
    (folder / "data" / "class_0" / "003.json").symlink_to("/dev/zero")
    (folder / "data" / "metadata.txt").symlink_to(folder / "nowhere")
    return str(folder / "data")


@case("nothing but links")
def _(_rng: Rng, folder: Path) -> str:
    (folder / "data").mkdir()
    for index, name in enumerate(images(folder)):
        (folder / "data" / f"{index}.png").symlink_to(folder / name)
    return str(folder / "data")


@case("pipes, sockets and folders called images")
def _(_rng: Rng, folder: Path) -> str:
    class_folder(folder)
    os.mkfifo(folder / "class_0" / "pipe.png")
    os.mkfifo(folder / "class_0" / "003.cls")
    os.mkfifo(folder / "metadata.csv")
    (folder / "class_1" / "folder.png").mkdir()
    here = os.getcwd()
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(folder)  # the path of a socket is short
        listener.bind("socket.png")
        os.chdir(here)
    return str(folder)


@case("a pipe for a table")
def _(rng: Rng, folder: Path) -> str:
    path = folder / f"t.{('csv', 'tsv', 'jsonl', 'tar')[int(rng.integers(4))]}"
    os.mkfifo(path)
    return str(path)


@case("odd names of files", legal=True)
def _(_rng: Rng, folder: Path) -> str:
    for index, name in enumerate(("\x1b[31m", "line\nend", "\u202eback", "%s", " ", "caf\udce9", "a" * 200, "$(x)")):
        write(folder / f"{index}{name}.png", encoded(picture(index)))
        write(folder / f"{index}{name}.txt", b"a text")
    return str(folder)


@case("a folder of nothing")
def _(rng: Rng, folder: Path) -> str:
    for index in range(int(rng.integers(4))):
        write(folder / f"{index}.parquet", b"PAR1")
        write(folder / ".hidden" / f"{index}.png", encoded(picture(index)))
    return str(folder)


@case("too few images")
def _(_rng: Rng, folder: Path) -> str:
    for index in range(COUNT):
        write(folder / f"{index}.png", encoded(picture(index)) if index < 3 else b"damaged")
        write(folder / f"{index}.txt", b"a text")
    return str(folder)


@case("a folder in a folder in a folder", legal=True)
def _(_rng: Rng, folder: Path) -> str:
    deep = folder.joinpath(*("d" * 20,) * 40)
    class_folder(deep)
    return str(folder)
