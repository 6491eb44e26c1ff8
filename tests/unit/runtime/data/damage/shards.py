"""Shards: odd headers, odd members, damaged images in them, bombs."""

from __future__ import annotations

import json
import struct
import tarfile
import zlib
from pathlib import Path

from unit.runtime.data.damage.cases import BYTES, case
from unit.runtime.data.damage.samples import COUNT, PIXELS, Members, Rng, encoded, pairs, picture, tar_of, write

BLOCK = tarfile.BLOCKSIZE


def _shard(folder: Path, members: Members | bytes) -> str:
    return write(folder / "data.tar", members if isinstance(members, bytes) else tar_of(members))


for _name, _damage in BYTES.items():

    @case(f"shard {_name}")
    def _(rng: Rng, folder: Path, damage=_damage) -> str:  # type: ignore[no-untyped-def]
        return _shard(folder, damage(tar_of(pairs()), rng))

    @case(f"image in a shard {_name}")
    def _(rng: Rng, folder: Path, damage=_damage) -> str:  # type: ignore[no-untyped-def]
        chosen = list(PIXELS.values())
        suffix, image = chosen[int(rng.integers(len(chosen)))]
        return _shard(folder, pairs("", suffix, lambda index: damage(image(index), rng) if index % 4 == 0 else image(index)))


for _name, (_suffix, _image) in PIXELS.items():

    @case(f"pixels {_name}", legal=True)
    def _(_rng: Rng, folder: Path, suffix=_suffix, image=_image) -> str:  # type: ignore[no-untyped-def]
        return _shard(folder, pairs("", suffix, image))


def _header(data: bytes, place: int, field: slice, value: bytes) -> bytes:
    """The archive with another value in the header at `place`, its checksum made right."""
    header = bytearray(data[place : place + BLOCK])
    header[field] = value.ljust(field.stop - field.start, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return data[:place] + bytes(header) + data[place + BLOCK :]


SIZE, TYPE, NAME = slice(124, 136), slice(156, 157), slice(0, 100)
SIZES = {
    "negative": b"\xff" * 12,
    "base-256 2^70": b"\x80" + (1 << 70).to_bytes(11, "big"),
    "octal": b"77777777777\0",
    "2^40": b"\x80" + (1 << 40).to_bytes(11, "big"),
    "no number": b"zzzzzzzzzzz\0",
    "zero": b"00000000000\0",
}
for _name, _value in SIZES.items():
    for _kind in (b"0", b"L", b"x", b"g", b"S", b"K", b"1", b"5", b"7", b"V"):

        @case(f"size {_name} of a member of type {_kind.decode()}")
        def _(rng: Rng, folder: Path, value=_value, kind=_kind) -> str:  # type: ignore[no-untyped-def]
            data = tar_of(pairs())
            place = 2 * BLOCK * int(rng.integers(4))
            return _shard(folder, _header(_header(data, place, TYPE, kind), place, SIZE, value))


@case("many pax headers in a row")
def _(_rng: Rng, folder: Path) -> str:
    return _shard(folder, _pax({"comment": "x"}) * 3000 + tar_of(pairs()))


def _pax(values: dict[str, str], raw: bytes | None = None) -> bytes:
    """An extended header for the next member."""
    text = b""
    for name, value in values.items():
        body = f" {name}={value}\n".encode()
        length = len(body) + 1
        while len(str(length)) + len(body) != length:
            length += 1
        text += str(length).encode() + body
    data = text if raw is None else raw
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = b"x", len(data)
    return header.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % BLOCK)


PAX = {
    "sparse map": {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "1,2,three", "GNU.sparse.size": "9"},
    "sparse 1.0": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 60)},
    "size": {"size": str(1 << 60)},
    "negative size": {"size": "-512"},
    "no size": {"size": "x"},
    "empty path": {"path": ""},
    "charset": {"hdrcharset": "KLINGON", "path": "x.png"},
    "path": {"path": "d/" * 500 + "000.png"},
}
for _name, _values in PAX.items():

    @case(f"pax {_name}")
    def _(_rng: Rng, folder: Path, values=_values) -> str:  # type: ignore[no-untyped-def]
        return _shard(folder, _pax(values) + tar_of(pairs()))


@case("pax garbage")
def _(rng: Rng, folder: Path) -> str:
    garbage = [b"9" * 30000, b"0 x=y\n", b"-5 path=x\n", rng.bytes(900), b"12 path\n"]
    return _shard(folder, _pax({}, garbage[int(rng.integers(len(garbage)))]) + tar_of(pairs()))


@case("pax header of a megabyte")
def _(_rng: Rng, folder: Path) -> str:
    return _shard(folder, _pax({"comment": "x" * 2**20}) + tar_of(pairs()))


@case("zeros instead of a header")
def _(rng: Rng, folder: Path) -> str:
    data, place = tar_of(pairs()), 2 * BLOCK * int(rng.integers(1, 20))
    return _shard(folder, data[:place] + bytes(BLOCK) + data[place + BLOCK :])


@case("no end")
def _(_rng: Rng, folder: Path) -> str:
    return _shard(folder, tar_of(pairs()).rstrip(b"\0"))


@case("no members")
def _(_rng: Rng, folder: Path) -> str:
    return _shard(folder, [])


@case("names in dots")
def _(_rng: Rng, folder: Path) -> str:
    return _shard(folder, [(f"img.v{index}.{end}", data) for index in range(COUNT) for end, data in
                           (("png", encoded(picture(index))), ("txt", b"a text"))])  # fmt: skip


@case("odd names")
def _(rng: Rng, folder: Path) -> str:
    names = [
        "\x1b[31mred",
        "caf\udce9",
        "line\nend",
        "\u202eright",
        "../../up",
        "/etc/passwd",
        "x" * 3000,
        " ",
        "%s{}",
        "a\x00b",
    ]
    name = names[int(rng.integers(len(names)))]
    return _shard(folder, [*pairs(), (f"{name}.png", b"damaged"), (f"{name}.txt", b"text")])


@case("a key twice")
def _(_rng: Rng, folder: Path) -> str:
    return _shard(folder, [*pairs(), ("000.png", encoded(picture(3))), ("000.txt", b"another"), ("001.txt", b"alone")])


@case("members in an order of their own", legal=True)
def _(rng: Rng, folder: Path) -> str:
    members = pairs()
    return _shard(folder, [members[index] for index in rng.permutation(len(members))])


@case("names from the folder", legal=True)
def _(_rng: Rng, folder: Path) -> str:
    return _shard(folder, [(name.upper().replace(".TXT", ".txt"), data) for name, data in pairs("./sub.v2/x/")])


@case("long names", legal=True)
def _(rng: Rng, folder: Path) -> str:
    form = (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)[int(rng.integers(2))]
    return _shard(folder, tar_of(pairs("ein/ziemlich/langer/Pfad/" * 8 + "ü"), form))


def _special(header: tarfile.TarInfo) -> bytes:
    return header.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape")


@case("links, folders and devices")
def _(_rng: Rng, folder: Path) -> str:
    data = b""
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, b"Z")
    for number, kind in enumerate(kinds):
        header = tarfile.TarInfo(f"s{number}.png")
        header.type, header.linkname = kind, "/dev/zero" if number else "s1.png"
        data += _special(header)
    return _shard(folder, data + tar_of(pairs()))


@case("hard links", legal=True)
def _(_rng: Rng, folder: Path) -> str:
    data = tar_of(pairs()).rstrip(b"\0")
    data += bytes(-len(data) % BLOCK)
    for index in range(4):
        for end in ("png", "txt"):
            header = tarfile.TarInfo(f"link{index}.{end}")
            header.type, header.linkname = tarfile.LNKTYPE, f"{index:03d}.{end}" if index < 3 else f"link{index - 1}.{end}"
            data += _special(header)
    return _shard(folder, data + bytes(2 * BLOCK))


def _png(width: int, height: int, data: bytes) -> bytes:
    """A PNG of one bit a pixel whose rows are the compressed data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
        + chunk(b"IDAT", data)
        + chunk(b"IEND", b"")
    )


def _text_bomb() -> bytes:
    png = encoded(picture(1))
    body = b"Comment\0\0" + zlib.compress(bytes(60_000_000), 9)
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    return png[:33] + chunk + png[33:]


BOMBS = {
    "PNG of 177 megapixels": lambda: _png(13300, 13300, zlib.compress(bytes(1000))),
    "PNG of 100 megapixels": lambda: _png(10000, 10000, zlib.compress(bytes(1000))),
    "PNG with a long comment": _text_bomb,
    "PNG of two rows of data too many": lambda: _png(64, 2, zlib.compress(bytes(50_000_000))),
    "JPEG of 4 gigapixels": lambda: encoded(picture(1), "JPEG").replace(b"\x00\x07\x00\x09\x03", b"\xff\xdc\xff\xdc\x03"),
    "GIF of a large screen": lambda: b"GIF89a\xff\xff\xff\xff" + encoded(picture(1).convert("P"), "GIF")[10:],
    "BMP of a large size": lambda: encoded(picture(1), "BMP").replace(b"\x09\0\0\0\x07\0\0\0", b"\xff\xff\0\0\xff\xff\0\0"),
    "EPS": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
    "ICO": lambda: encoded(picture(1), "ICO"),
    "PPM": lambda: encoded(picture(1), "PPM"),
    "TGA": lambda: encoded(picture(1), "TGA"),
    "SVG": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "HEIC": lambda: b"\0\0\0\x18ftypheic" + bytes(99),
    "PDF": lambda: b"%PDF-1.4\n",
    "floating-point TIFF": lambda: encoded(picture(1).convert("F"), "TIFF"),
    "nothing": lambda: b"",
}
for _name, _bomb in BOMBS.items():

    @case(f"image {_name}")
    def _(_rng: Rng, folder: Path, bomb=_bomb) -> str:  # type: ignore[no-untyped-def]
        return _shard(folder, pairs("", "png", lambda index: bomb() if index == 2 else encoded(picture(index))))


TEXTS: dict[str, bytes] = {
    "no blank": b"x" * 1_000_000,
    "blanks": b" \n\t" * 10,
    "empty": b"",
    "UTF-16": "a text".encode("utf-16"),
    "Latin-1": b"caf\xe9",
    "NUL": b"a\0b",
    "marks": "\u202e\u0301\ufeff".encode(),
    "combining": ("a" + "\u0301" * 9000).encode(),
    "long": b"word " * 10**6,
    "too long": b"x" * (9 * 2**20),
}
for _name, _text in TEXTS.items():

    @case(f"text {_name}")
    def _(rng: Rng, folder: Path, text=_text) -> str:  # type: ignore[no-untyped-def]
        chosen = f"{int(rng.integers(COUNT)):03d}.txt"
        return _shard(folder, [(name, text if name == chosen else data) for name, data in pairs()])


VALUES: dict[str, str] = {
    "nested": "[" * 100_000,
    "nested lists": "[" * 900 + "]" * 900,
    "large number": "9" * 5000,
    "key twice": '{"text": "a", "text": "b"}',
    "half a pair": '{"text": "\\ud800"}',
    "not a number": '{"text": NaN, "n": Infinity}',
    "path": '{"image": "/dev/zero", "text": "x"}',
    "object for a text": '{"text": {"a": 1}}',
    "list": "[1, 2]",
    "many": "[" + "[]," * 50_000 + "[]]",
    "null": "null",
    "cut": '{"text": "',
    "large": json.dumps("x" * (9 * 2**20)),
    "list of texts": '{"text": ["", ["one", "two"], null]}',
    "nested text": '{"text": ' + "[" * 900 + '"a"' + "]" * 900 + "}",
}
for _name, _value in VALUES.items():

    @case(f"json in a shard: {_name}")
    def _(_rng: Rng, folder: Path, value=_value) -> str:  # type: ignore[no-untyped-def]
        members = [(name, data) for name, data in pairs() if name not in ("000.txt", "001.txt") and "json" not in name]
        return _shard(folder, [*members, ("000.json", value.encode()), ("001.json", b'{"text": "sound"}')])


@case("damaged classes")
def _(rng: Rng, folder: Path) -> str:
    classes = [b"cat", b"1.5", b"-1", b"9" * 5000, b"", b" 3\n", b"\xff", b"1e9", "٣".encode()]
    return _shard(
        folder, [*pairs(), *((f"{index:03d}.cls", classes[int(rng.integers(len(classes)))]) for index in (1, 2, 4))]
    )
