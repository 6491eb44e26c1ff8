"""What a case is, and damages to the bytes of any file."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from unit.runtime.data.damage.samples import Rng

Make = Callable[[Rng, Path], str]


class Case(NamedTuple):
    """Writes data into a folder and gives its specification; `legal` data must be read without a skip."""

    make: Make
    legal: bool


CASES: dict[str, Case] = {}


def case(name: str, legal: bool = False) -> Callable[[Make], Make]:
    """Enters a function as a case."""

    def enter(make: Make) -> Make:
        assert name not in CASES
        CASES[name] = Case(make, legal)
        return make

    return enter


def cut(data: bytes, rng: Rng) -> bytes:
    """Cut off anywhere, at the beginning too."""
    return data[: int(rng.integers(len(data)))]


def zeroed(data: bytes, rng: Rng) -> bytes:
    """A range of zeros."""
    start, length = int(rng.integers(len(data))), int(rng.integers(1, 2000))
    return data[:start] + bytes(len(data[start : start + length])) + data[start + length :]


def flipped(data: bytes, rng: Rng) -> bytes:
    """One to twenty bits flipped."""
    changed = bytearray(data)
    for place in rng.integers(len(data), size=int(rng.integers(1, 20))):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def overwritten(data: bytes, rng: Rng) -> bytes:
    """A range of random bytes."""
    start, length = int(rng.integers(len(data))), int(rng.integers(1, 600))
    return (data[:start] + rng.bytes(length) + data[start + length :])[: len(data)]


def shifted(data: bytes, rng: Rng) -> bytes:
    """A few bytes put in or left out."""
    start, length = int(rng.integers(len(data))), int(rng.integers(1, 40))
    return data[:start] + (rng.bytes(length) + data[start:] if rng.random() < 0.5 else data[start + length :])


def followed(data: bytes, rng: Rng) -> bytes:
    """More behind its end."""
    return data + rng.bytes(int(rng.integers(1, 3000)))


def doubled(data: bytes, _rng: Rng) -> bytes:
    """Twice."""
    return data + data


def wrapped(data: bytes, rng: Rng) -> bytes:
    """Compressed, under the old name."""
    if rng.random() < 0.5:
        return gzip.compress(data, mtime=0)
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data", data)
    return file.getvalue()


def foreign(_data: bytes, rng: Rng) -> bytes:
    """A file of another type."""
    files = [
        b"",
        b"\n",
        b"\0" * 3000,
        b"\x7fELF\x02\x01" + bytes(90),
        b"PAR1" + bytes(60) + b"PAR1",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
    ]
    return files[int(rng.integers(len(files)))]


BYTES = {
    damage.__name__: damage for damage in (cut, zeroed, flipped, overwritten, shifted, followed, doubled, wrapped, foreign)
}
"""Damages to the bytes of any file, by name."""
