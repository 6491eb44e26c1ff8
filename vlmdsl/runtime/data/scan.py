"""Looks through a folder once: its images, what lies beside them, its tables, and what is left out."""

from __future__ import annotations

import os
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
    """What a folder holds: images in the order of their paths, and for the path of each without its ending what lies beside
    it, by ending; the tables that describe images (`metadata.csv` or `.jsonl`); and what is none of this."""

    folder: Path
    images: list[Path] = field(default_factory=list)
    beside: dict[Path, dict[str, Path]] = field(default_factory=dict)
    metadata: list[Path] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)

    def leave_out(self, kind: str, path: Path) -> None:
        """Count something by the path from the folder."""
        self.left_out.add(kind, path.relative_to(self.folder).as_posix())


def scan_folder(folder: Path, limits: Limits) -> Scan:
    """Everything under a folder.

    Symbolic links are followed where they lead to the folder itself or one that is allowed, links to folders only if what
    they lead to is not read anyway, so that no folder is read twice and none for ever.
    """
    scan = Scan(folder)
    homes = (str(folder), *limits.allowed_folders)
    waiting: list[tuple[Path, str]] = [(folder, os.path.realpath(folder))]
    links: list[tuple[Path, str]] = []
    seen: set[str] = set()
    while waiting or links:
        # Links come last: by then it is known what is read without them.
        path, real = waiting.pop() if waiting else links.pop(0)
        if real in seen:
            scan.leave_out("links to folders that are read anyway", path)
            continue
        seen.add(real)
        try:
            with os.scandir(path) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError:
            scan.leave_out("folders that cannot be opened", path)
            continue
        for entry in entries:
            here = path / entry.name
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                scan.leave_out("hidden files and folders", here)
                continue
            kind = _kind(entry, homes)
            if kind == "folder":
                (links if entry.is_symlink() else waiting).append((here, os.path.realpath(here)))
            elif kind == "file":
                _sort_in(scan, here)
            else:
                scan.leave_out(kind, here)
    scan.images.sort()
    scan.metadata.sort()
    _drop_unused(scan)
    return scan


def _kind(entry: os.DirEntry[str], homes: tuple[str, ...]) -> str:
    """`folder`, `file`, or why it is neither."""
    try:
        if entry.is_symlink() and not os.path.exists(entry.path):
            return "links that lead nowhere"
        if entry.is_symlink() and inside(entry.path, homes) is None:
            return f"links to what is {OUTSIDE}"
        if entry.is_dir():
            return "folder"
        return "file" if entry.is_file() else "devices and pipes"
    except OSError:
        return "files that cannot be looked at"


def _sort_in(scan: Scan, path: Path) -> None:
    suffix = path.suffix.lower().lstrip(".")
    if path.name.lower() in _METADATA:
        scan.metadata.append(path)
    elif suffix in IMAGE_SUFFIXES:
        scan.images.append(path)
    elif suffix in _BESIDE:
        scan.beside.setdefault(path.with_suffix(""), {})[suffix] = path
    else:
        scan.leave_out(f"`.{suffix}` files" if suffix else "files without an ending", path)


def _drop_unused(scan: Scan) -> None:
    """Count the files beside no image."""
    images = {path.with_suffix("") for path in scan.images}
    for stem in [stem for stem in scan.beside if stem not in images]:
        for suffix, path in sorted(scan.beside.pop(stem).items()):
            scan.leave_out(f"`.{suffix}` files without an image", path)
