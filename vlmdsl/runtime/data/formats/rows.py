"""What the formats have in common: a path with how it is to be read, and the head of a source of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vlmdsl.runtime.data.files import well_formed
from vlmdsl.runtime.data.keys import Keys
from vlmdsl.runtime.data.limits import DEFAULT_LIMITS, Limits

__all__ = ["DataPath", "RowSource"]


@dataclass(frozen=True)
class DataPath:
    """A file or folder of data, and how it is to be read.

    `images` is the folder that paths of images start from, instead of the file's own; `prefix` stands before every key.

    >>> table = DataPath(Path("cats/train.csv"))
    >>> table.name, table.folder.as_posix(), table.stem
    ('cats/train.csv', 'cats', 'train')
    """

    path: Path
    limits: Limits = DEFAULT_LIMITS
    images: Path | None = None
    prefix: str = ""

    @property
    def name(self) -> str:
        """For messages."""
        return str(self.path)

    @property
    def folder(self) -> Path:
        """The folder that paths of images in a file start from."""
        return self.images or self.path.parent

    @property
    def stem(self) -> str:
        """The beginning of the keys of the samples of a file."""
        return self.prefix + well_formed(self.path.stem)


class RowSource:
    """A source of rows whose images are in one `folder` (None: no column is a path); a format adds `__len__`, `_key` and
    `_row`, whose index is one of the source."""

    def __init__(self, name: str, folder: str | Path | None) -> None:
        self.name = name
        self.remarks: list[str] = []
        self.columns: tuple[str, ...] = ()
        self.class_names: tuple[str, ...] | None = None
        self._folder = None if folder is None else str(folder)

    @property
    def keys(self) -> Keys:
        return Keys(len(self), self._key)

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Mapping[str, object]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._row(index)

    def folder_of(self, index: int) -> str | None:
        return self._folder

    def _key(self, index: int) -> str:
        """The key of a row."""
        raise NotImplementedError

    def _row(self, index: int) -> Mapping[str, object]:
        """The columns of a row; raises `BadSample`."""
        raise NotImplementedError
