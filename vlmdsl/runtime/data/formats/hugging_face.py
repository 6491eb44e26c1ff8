"""Data sets of the library `datasets`: a folder that it saved (the extra `arrow`), and a name (the extra `datasets`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.data import FolderOfSplits
from vlmdsl.diagnostics.catalog.environment import PackageMissing
from vlmdsl.diagnostics.catalog.sources import NamedDataUnusable
from vlmdsl.runtime.data.files import inside, well_formed
from vlmdsl.runtime.data.formats.columnar import ArrowSource
from vlmdsl.runtime.data.formats.columns import value_of
from vlmdsl.runtime.data.formats.named_images import NamedImages
from vlmdsl.runtime.data.formats.records import unreadable_table
from vlmdsl.runtime.data.formats.rows import DataPath, RowSource
from vlmdsl.runtime.data.left_out import shortened
from vlmdsl.runtime.data.limits import DEFAULT_LIMITS, LONGEST_DESCRIPTION, Limits
from vlmdsl.runtime.data.source import JoinedSource, LazyColumns, Source
from vlmdsl.source import Span
from vlmdsl.source.regular_files import BadFile, read_regular

__all__ = ["NamedData", "NamedDataSource", "files_of", "is_saved", "load_datasets", "open_saved", "unusable"]

_STATE, _SPLITS = "state.json", "dataset_dict.json"
_PLACE = Span("<command line>", 0, 0)


def is_saved(folder: Path) -> bool:
    """Whether `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote a folder."""
    return (folder / _SPLITS).is_file() or ((folder / _STATE).is_file() and (folder / "dataset_info.json").is_file())


def open_saved(data: DataPath) -> Source:
    """The rows of such a folder. Raises `DiagnosticError` (V0829) for one with several splits, V0824 where a file is missing
    or damaged."""
    folder, limits = data.path, data.limits
    if (folder / _SPLITS).is_file():
        splits = sorted(path.name for path in folder.iterdir() if (path / _STATE).is_file())
        shown = " and ".join(f"`{well_formed(split)}`" for split in splits)
        help = f"name the folder of one: `--data {folder / (splits[0] if splits else 'train')}`"
        raise DiagnosticError((FolderOfSplits.at(_PLACE, path=folder, splits=shown, help=(help,)),))
    try:
        state = json.loads(read_regular(folder / _STATE, LONGEST_DESCRIPTION))
        files = [str(file["filename"]) for file in state["_data_files"]]
    except (BadFile, ValueError, RecursionError, KeyError, TypeError) as fault:
        raise unreadable_table(folder / _STATE, f"it does not list the files of a data set ({fault})") from fault
    outside = next((file for file in files if inside(folder / file, (str(folder), *limits.allowed_folders)) is None), None)
    if outside is not None:
        raise unreadable_table(folder / _STATE, f"`{shortened(outside)}` is outside of the folder")
    sources = [ArrowSource(DataPath(folder / file, limits, data.images or folder)) for file in files]
    return JoinedSource(sources, data.name)


@dataclass(frozen=True)
class NamedData:
    """A data set that is called `NAME`, `NAME,split=validation`, `NAME,config=small` or `NAME,revision=COMMIT`."""

    name: str
    split: str = "train"
    config: str | None = None
    revision: str | None = None


class NamedDataSource(RowSource):
    """The rows of such a data set: of the Hugging Face hub or its cache, or a local folder. Nothing but the data is used: a
    data set that comes with code is refused.

    Raises `DiagnosticError`: V0901 without the library, V0842 where it cannot load the data set.
    """

    def __init__(self, data: NamedData, limits: Limits = DEFAULT_LIMITS) -> None:
        datasets = load_datasets()
        try:
            rows = datasets.load_dataset(data.name, data.config, split=data.split, revision=data.revision)
            builder = datasets.load_dataset_builder(data.name, data.config, revision=data.revision)
        except Exception as fault:
            # The library raises its own, the hub's and pyarrow's errors; each means that there is no such data.
            raise unusable(data.name, fault) from fault
        self._images = NamedImages(data.name, files_of(builder, data.split), limits)
        super().__init__(f"hf:{data.name}", self._images.folder)
        self.remarks = [f"{self.name}: its split `{data.split}` is read"]
        self._limits = limits
        self._rows: Any = rows.with_format("arrow")
        self._stem = f"{data.name}:{data.split}"
        self.columns = tuple(sorted(rows.column_names))
        label = rows.features.get("label")
        self.class_names = tuple(getattr(label, "names", ())) or None

    def __len__(self) -> int:
        return len(self._rows)

    def _key(self, index: int) -> str:
        return f"{self._stem}:{index + 1}"

    def _row(self, index: int) -> Mapping[str, object]:
        return LazyColumns({}, {name: partial(self._value, index, name) for name in self.columns})

    def _value(self, index: int, name: str) -> object:
        return value_of(lambda: self._rows[index].column(name)[0], self._limits, self._images)


def files_of(builder: Any, split: str) -> list[object]:
    """The files of a split that the library builds a data set from: paths of this machine, or addresses on the hub."""
    return list((builder.config.data_files or {}).get(split, ()))


def load_datasets() -> ModuleType:
    """The module `datasets`; `DiagnosticError` (V0901) if it is not installed."""
    try:
        import datasets
    except ImportError as fault:
        help = ("run `pip install 'vlmdsl[datasets]'`",)
        missing = PackageMissing.at(_PLACE, what="a data set named `hf:...`", package="datasets", help=help)
        raise DiagnosticError((missing,)) from fault
    module: ModuleType = datasets
    return module


_OTHERWISE = "name its split, as in `hf:NAME,split=validation`, or save it with `save_to_disk` and name the folder"


def unusable(name: str, fault: Exception, help: str = _OTHERWISE) -> DiagnosticError:
    """V0842: a data set of that name cannot be loaded."""
    reason = str(fault).strip().splitlines()[:1] or [type(fault).__name__]
    return DiagnosticError((NamedDataUnusable.at(_PLACE, name=name, notes=(reason[0],), help=(help,)),))
