"""Scans a folder once: its images, the files beside them, its tables, and what is left out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vlmdsl.runtime.data.files import OUTSIDE, inside
from vlmdsl.runtime.data.images import IMAGE_SUFFIXES
from vlmdsl.runtime.data.left_out import LeftOut
from vlmdsl.runtime.data.limits import Limits
from vlmdsl.runtime.data.members import TEXT_SUFFIXES

__all__ = ["Scan", "scan_folder"]

_BESIDE = (*TEXT_SUFFIXES, "json", "cls")
_METADATA = ("metadata.csv", "metadata.tsv", "metadata.jsonl")


@dataclass
class Scan:
    """The contents of a folder: the relative paths of images in order, each with the number of the set of files beside it;
    the tables that describe images (`metadata.csv` or `.jsonl`); and what is not used."""

    folder: Path
    images: list[tuple[str, int]] = field(default_factory=list)
    beside: list[tuple[str, ...]] = field(default_factory=lambda: [()])
    """By number, the endings of files beside an image: all different, and few."""
    metadata: list[Path] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)

    def leave_out(self, kind: str, path: Path) -> None:
        """Count something by the path from the folder."""
        self.left_out.add(kind, path.relative_to(self.folder).as_posix())


def scan_folder(folder: Path, limits: Limits) -> Scan:
    """Everything under a folder.

    Symbolic links are followed where they lead to the folder itself or one that is allowed, links to folders only if what
    they lead to is not read anyway, so that no folder is read twice or endlessly.
    """
    scan = Scan(folder)
    homes = (str(folder), *limits.allowed_folders)
    waiting: list[tuple[Path, str]] = [(folder, os.path.realpath(folder))]
    links: list[tuple[Path, str]] = []
    seen: set[str] = set()
    numbers: dict[tuple[str, ...], int] = {(): 0}
    lonely: list[tuple[str, Path]] = []
    while waiting or links:
        # Links come last: by then it is known what is read without them.
        path, real = waiting.pop() if waiting else links.pop(0)
        if real in seen:
            scan.leave_out("links to folders that are already read", path)
            continue
        seen.add(real)
        try:
            with os.scandir(path) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError:
            scan.leave_out("folders that cannot be opened", path)
            continue
        inner = _Folder(path)
        for entry in entries:
            here = path / entry.name
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                scan.leave_out("hidden files and folders", here)
                continue
            kind = _kind(entry, homes)
            if kind == "folder":
                (links if entry.is_symlink() else waiting).append((here, os.path.realpath(here)))
            elif kind == "file":
                inner.sort_in(scan, entry.name)
            else:
                scan.leave_out(kind, here)
        lonely += inner.finish(scan, numbers)
    # As paths are compared: part by part.
    scan.images.sort(key=lambda image: image[0].replace("/", "\0"))
    scan.metadata.sort()
    scan.beside = list(numbers)
    for kind, here in lonely:
        scan.leave_out(kind, here)
    return scan


def _kind(entry: os.DirEntry[str], homes: tuple[str, ...]) -> str:
    """`folder`, `file`, or why it is neither."""
    try:
        if entry.is_symlink() and not os.path.exists(entry.path):
            return "broken links"
        if entry.is_symlink() and inside(entry.path, homes) is None:
            return f"links to what is {OUTSIDE}"
        if entry.is_dir():
            return "folder"
        return "file" if entry.is_file() else "devices and pipes"
    except OSError:
        return "files that cannot be accessed"


class _Folder:
    """The images of one folder, and the files beside them, during a scan."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._images: list[tuple[str, str]] = []
        self._beside: dict[str, dict[str, str]] = {}

    def sort_in(self, scan: Scan, name: str) -> None:
        """A file of the folder."""
        stem, _, ending = name.rpartition(".")
        suffix = ending.lower() if stem else ""
        if name.lower() in _METADATA:
            scan.metadata.append(self._path / name)
        elif suffix in IMAGE_SUFFIXES:
            self._images.append((stem, name))
        elif suffix in _BESIDE:
            self._beside.setdefault(stem, {})[suffix] = ending
        else:
            scan.leave_out(f"`.{suffix}` files" if suffix else "files without an extension", self._path / name)

    def finish(self, scan: Scan, numbers: dict[tuple[str, ...], int]) -> Iterator[tuple[str, Path]]:
        """Add the images to the scan; what lies beside none of them is left out: what it is, and its path."""
        inner = self._path.relative_to(scan.folder).as_posix()
        prefix = "" if inner == "." else f"{inner}/"
        for stem, name in self._images:
            beside = tuple(self._beside.get(stem, {}).values())
            scan.images.append((f"{prefix}{name}", numbers.setdefault(beside, len(numbers))))
        images = {stem for stem, _ in self._images}
        for stem, endings in self._beside.items():
            if stem not in images:
                for suffix, ending in sorted(endings.items()):
                    yield f"`.{suffix}` files without an image", self._path / f"{stem}.{ending}"
