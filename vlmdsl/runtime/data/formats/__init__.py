"""The formats of data that is one file or folder: one row and one module each.

A source of a format is random access to samples with columns by name (`Source`); nothing else depends on the format. Shards
(`shards.py`) and the built-in scenes (`shapes/`) are opened by `specification.py`, since several shards share one index.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vlmdsl.runtime.data.formats.coco import is_coco, open_coco
from vlmdsl.runtime.data.formats.columnar import ArrowSource, ParquetSource
from vlmdsl.runtime.data.formats.delimited import DelimitedSource
from vlmdsl.runtime.data.formats.flickr import is_flickr, open_flickr
from vlmdsl.runtime.data.formats.folder import open_folder
from vlmdsl.runtime.data.formats.hugging_face import is_saved, open_saved
from vlmdsl.runtime.data.formats.json_objects import JsonSource
from vlmdsl.runtime.data.formats.rows import DataPath
from vlmdsl.runtime.data.source import Source

__all__ = ["FORMATS", "Format", "format_of"]


@dataclass(frozen=True)
class Format:
    """A format of data: its `name`, by which a specification may choose it (`coco:PATH`), what recognises its paths, and
    what opens one."""

    name: str
    recognises: Callable[[Path], bool]
    open: Callable[[DataPath], Source]


def _ending(*suffixes: str) -> Callable[[Path], bool]:
    return lambda path: path.suffix.lower() in suffixes and not path.is_dir()


FORMATS = (
    Format("datasets", lambda path: path.is_dir() and is_saved(path), open_saved),
    Format("folder", Path.is_dir, open_folder),
    Format("csv", _ending(".csv", ".tsv"), DelimitedSource),
    Format("flickr", is_flickr, open_flickr),
    Format("coco", lambda path: path.suffix.lower() == ".json" and is_coco(path), open_coco),
    Format("json", _ending(".json", ".jsonl", ".ndjson"), JsonSource),
    Format("parquet", _ending(".parquet"), ParquetSource),
    Format("arrow", _ending(".arrow", ".feather"), ArrowSource),
)
"""In the order in which they are asked: the first that recognises a path opens it."""


def format_of(path: Path, name: str = "") -> Format | None:
    """The format of a path, or the one of that `name`; None if there is none."""
    return next((one for one in FORMATS if (one.name == name if name else one.recognises(path))), None)
