"""A folder of shards, of Parquet or Arrow files, or of images described by tables, files beside them, or subfolders."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.data import FolderOfSplits
from vlmdsl.runtime.data.files import OUTSIDE, inside, read_inside, well_formed
from vlmdsl.runtime.data.formats.columnar import ArrowSource, ParquetSource
from vlmdsl.runtime.data.formats.delimited import DelimitedSource
from vlmdsl.runtime.data.formats.json_objects import JsonSource
from vlmdsl.runtime.data.formats.rows import DataPath, RowSource
from vlmdsl.runtime.data.keys import Keys, PackedNames
from vlmdsl.runtime.data.left_out import LeftOut
from vlmdsl.runtime.data.limits import Limits
from vlmdsl.runtime.data.members import TEXT_SUFFIXES, member_columns
from vlmdsl.runtime.data.scan import Scan, scan_folder
from vlmdsl.runtime.data.shards import TarSource
from vlmdsl.runtime.data.source import BadSample, JoinedSource, LazyColumns, Source, probed_columns
from vlmdsl.source import Span

__all__ = ["FolderSource", "files_in", "open_folder"]

_TRAINING = ("train", "training")
_SPLITS = (*_TRAINING, "val", "valid", "validation", "dev", "test", "testing", "eval", "evaluation")


def open_folder(data: DataPath) -> Source:
    """The shards in a folder; else its Parquet or Arrow files; else the images that its `metadata.csv` or `metadata.jsonl`
    describe (or such files in its subfolders); else its images, by subfolder.

    Raises `DiagnosticError` (V0829) for a folder of splits (`train`, `val`): they are not classes.
    """
    folder, limits = data.path, data.limits
    shards, left_out = files_in(folder, ".tar", limits)
    if shards is not None:
        source = TarSource(shards, data.name, limits)
        source.remarks += left_out.lines()
        return source
    for suffix, columnar in ((".parquet", ParquetSource), (".arrow", ArrowSource)):
        files, left_out = files_in(folder, suffix, limits)
        if files is not None:
            joined = JoinedSource([columnar(DataPath(path, limits, folder)) for path in files], data.name)
            joined.remarks += left_out.lines()
            return joined
    scan = scan_folder(folder, limits)
    tables = (path.relative_to(folder).as_posix() for path in scan.metadata)
    _check_splits(folder, itertools.chain((image for image, _ in scan.images), tables))
    return _described(scan, limits) if scan.metadata else FolderSource(scan, limits)


def files_in(folder: Path, suffix: str, limits: Limits) -> tuple[list[Path] | None, LeftOut]:
    """The files with this ending in a folder (None if there are none) that may be read, and what else is in it."""
    homes = (str(folder), *limits.allowed_folders)
    left_out, files = LeftOut(), sorted(folder.glob(f"*{suffix}"))
    if not files:
        return None, left_out
    named = set(files)
    for path in sorted(folder.iterdir()):
        if path in named and inside(path, homes) is None:
            left_out.add(f"links to what is {OUTSIDE}", path.name)
        elif path not in named:
            left_out.add(f"`{path.suffix}` files" if path.suffix else "other files and folders", path.name)
    return [path for path in files if inside(path, homes) is not None], left_out


def _check_splits(folder: Path, paths: Iterable[str]) -> None:
    """`DiagnosticError` where the subfolders are splits: all of them, or one for training and another."""
    names = sorted({path.partition("/")[0] for path in paths if "/" in path})
    splits = [name for name in names if name.lower() in _SPLITS]
    training = [name for name in splits if name.lower() in _TRAINING]
    if not splits or (splits != names and not (training and len(splits) > 1)):
        return
    others = [name for name in splits if name not in training]
    parts = [f"`--{option} {folder / chosen[0]}`" for option, chosen in (("data", training), ("val", others)) if chosen]
    shown = " and ".join(f"`{name}`" for name in splits)
    help = f"name the folder of each split: {' '.join(parts)}"
    raise DiagnosticError((FolderOfSplits.at(Span("<command line>", 0, 0), path=folder, splits=shown, help=(help,)),))


def _described(scan: Scan, limits: Limits) -> Source:
    """The samples of the tables in a folder, which name the images beside them."""
    tables: list[DelimitedSource | JsonSource] = []
    named: set[str] = set()
    for path in scan.metadata:
        inner = path.parent.relative_to(scan.folder).as_posix()
        prefix = "" if inner == "." else f"{well_formed(inner)}/"
        table = (JsonSource if path.suffix.lower() == ".jsonl" else DelimitedSource)(DataPath(path, limits, prefix=prefix))
        tables.append(table)
        for index in range(len(table)):
            try:
                named.add(os.path.normpath(path.parent / str(table[index].get("file_name"))))
            except BadSample:
                continue  # it is skipped and reported when it is read
    for image, _ in scan.images:
        if os.path.normpath(scan.folder / image) not in named:
            scan.left_out.add("images that no metadata names", image)
    source = tables[0] if len(tables) == 1 else JoinedSource(tables, str(scan.folder))
    shown = ", ".join(well_formed(path.relative_to(scan.folder).as_posix()) for path in scan.metadata[:3])
    source.remarks += [
        f"{scan.folder.name}: read as {shown} describe{'s' if len(tables) == 1 else ''} it",
        *scan.left_out.lines(),
    ]
    return source


class FolderSource(RowSource):
    """The images under a folder, in the order of their paths, from the `scan`.

    `cat.png` may have `cat.txt`, `cat.json`, ... beside it, with the same meaning as in a shard. An image in a subfolder
    has a `label` (the position of the subfolder in the alphabet), `class_name` and, if it has no text, the class name as
    `text`.
    """

    def __init__(self, scan: Scan, limits: Limits) -> None:
        super().__init__(str(scan.folder), scan.folder)
        self.remarks = scan.left_out.lines()
        self._home, self._limits = str(scan.folder), limits
        # With the number of what lies beside it: next to nothing, where images that follow one another have the same.
        self._images = PackedNames(f"{number}/{image}" for image, number in scan.images)
        self._endings = scan.beside
        # Before anything else is made that stays: it would keep the memory around it, a thousand times its size.
        scan.images.clear()
        subfolders = sorted({subfolder for image in self._images if (subfolder := _subfolder(_path(image))) is not None})
        self.class_names = tuple(_readable(subfolder) for subfolder in subfolders) or None
        self._label_of = {subfolder: label for label, subfolder in enumerate(subfolders)}
        self.columns = probed_columns(self)

    @property
    def keys(self) -> Keys:
        return Keys(len(self), self._key, lambda: map(_key, self._images))

    def __len__(self) -> int:
        return len(self._images)

    def _key(self, index: int) -> str:
        return _key(self._images[index])

    def _row(self, index: int) -> Mapping[str, object]:
        number, _, name = self._images[index].partition("/")
        path = Path(self._home, name)
        folders = (self._home, *self._limits.allowed_folders)
        files = {ending.lower(): path.with_suffix(f".{ending}") for ending in self._endings[int(number)]}
        readers = {suffix: partial(read_inside, file, folders) for suffix, file in files.items()}
        beside = member_columns(readers, self._limits)
        subfolder = _subfolder(name)
        if subfolder is None:
            return LazyColumns(dict(beside), {"image": lambda: path})
        label = self._label_of[subfolder]
        assert self.class_names is not None
        name = self.class_names[label]
        own: dict[str, object] = {"label": label, "class_name": name}
        # A caption of the image is better than the name of its class.
        if not set(TEXT_SUFFIXES) & beside.keys():
            own["text"] = name
        return LazyColumns({**own, **beside}, {"image": lambda: path})


def _path(image: str) -> str:
    """The path of an image, behind the number of what lies beside it."""
    return image.partition("/")[2]


def _key(image: str) -> str:
    return well_formed(_path(image))


def _subfolder(image: str) -> str | None:
    """The first part of the path of an image, if it lies in a subfolder."""
    first, _, rest = image.partition("/")
    return first if rest else None


def _readable(folder: str) -> str:
    return well_formed(folder).replace("_", " ").replace("-", " ").strip()
