"""Images that a data set of the library `datasets` names by path instead of holding them: its own files alone."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from vlmdsl.runtime.data.files import OUTSIDE, Stamp, inside
from vlmdsl.runtime.data.limits import Limits
from vlmdsl.runtime.data.source import BadSample

__all__ = ["NamedImages"]

_OPEN_ARCHIVES = 4
"""How many archives a process keeps open."""

_MEMBER = re.compile(r"zip://(?P<member>.+?)::(?P<archive>.+)", re.DOTALL)
_HUB = "hf://datasets/"


class NamedImages:
    """Reads what an image of the data set called `name` is stored as: its bytes, or a path in `folder`.

    A local folder's images are in it, beside or below the `files` of its split. Those of the hub are in the part of the
    library's cache that belongs to the data set or, of a stream, on the hub among its files. A path that leads elsewhere is
    refused: data is not trusted, and could name any file of the machine that it is used on.
    """

    def __init__(self, name: str, files: Iterable[object], limits: Limits) -> None:
        self._limits = limits
        if Path(name).is_dir():
            parents = [os.path.dirname(str(file)) for file in files if os.path.isabs(str(file))]
            self._hub = ""
            self.folder = os.path.commonpath(parents) if parents else os.path.abspath(name)
        else:
            self._hub = f"{_HUB}{name}@"
            self.folder = _cached(name)

    def __call__(self, path: str) -> bytes | str:
        """The content of an image in an archive or on the hub; the path of any other one. Raises `BadSample`."""
        member = _MEMBER.fullmatch(path)
        if member is not None and "://" not in member["archive"]:
            return self._in_archive(member["archive"], member["member"])
        place = path if member is None else member["archive"]
        if self._hub and place.startswith(self._hub) and "::" not in place:
            return self._on_hub(path, place)
        return path

    def _in_archive(self, archive: str, member: str) -> bytes:
        real = inside(archive, (self.folder, *self._limits.allowed_folders))
        if real is None:
            raise BadSample(f"image file {OUTSIDE}")
        try:
            status = os.stat(real)
            opened = _archive(real, (status.st_size, status.st_mtime_ns), os.getpid())
            if opened.getinfo(member).file_size > self._limits.file_bytes:
                raise BadSample("image file too large")
            with opened.open(member) as file:
                content = file.read(self._limits.file_bytes + 1)
        except BadSample:
            raise
        except KeyError as fault:
            raise BadSample("image file not found") from fault
        except Exception as fault:  # zipfile meets damage with its own errors, zlib's, OSError, RuntimeError and more
            raise BadSample("image file cannot be read") from fault
        return self._bounded(content)

    def _on_hub(self, path: str, place: str) -> bytes:
        """The content of a file of the data set on the hub, which the name of the data asks for, or of an archive there."""
        if ".." in Path(place).parts:
            raise BadSample(f"image file {OUTSIDE}")
        try:
            import fsspec

            with fsspec.open(path, "rb") as file:
                content: bytes = file.read(self._limits.file_bytes + 1)
        except Exception as fault:  # the errors of the hub, of the connection and of archives
            raise BadSample("image file cannot be fetched") from fault
        return self._bounded(content)

    def _bounded(self, content: bytes) -> bytes:
        if len(content) > self._limits.file_bytes:
            raise BadSample("image file too large")
        return content


def _cached(name: str) -> str:
    """The folder of the library's cache that holds the files of a data set of the hub."""
    from huggingface_hub import constants, file_download

    place: Any = file_download.repo_folder_name(repo_id=name, repo_type="dataset")
    return str(Path(constants.HF_HUB_CACHE) / place)


@lru_cache(maxsize=_OPEN_ARCHIVES)
def _archive(path: str, stamp: Stamp, process: int) -> zipfile.ZipFile:
    """An archive as it is now, open; `process`: its place in the file is not shared with workers that were forked."""
    return zipfile.ZipFile(path)
