"""Images with several captions each, as files of captions list them."""

from __future__ import annotations

import itertools
import json
from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from vlmdsl.runtime.data.files import inside, well_formed
from vlmdsl.runtime.data.formats.rows import DataPath, RowSource
from vlmdsl.runtime.data.keys import smallest_unsigned
from vlmdsl.runtime.data.left_out import LeftOut
from vlmdsl.runtime.data.limits import Limits

__all__ = ["CaptionedImages", "captioned_images"]

_LOOKED_AT = 16
"""How many images are looked for in a folder before it is taken for theirs."""


class CaptionedImages(RowSource):
    """One sample per image: `image`, its path in the folder `images`; `caption`, a list of all its captions; and what else
    the file says of it. `samples` are their columns, each with a key. Held in memory are the texts themselves.

    >>> pictures = CaptionedImages("dogs", Path("photos"), [("7", {"image": "7.jpg", "caption": ["a dog", "a brown dog"]})])
    >>> pictures[0]["caption"], pictures.keys[0], pictures.folder_of(0)
    (['a dog', 'a brown dog'], '7', 'photos')
    """

    def __init__(self, name: str, images: Path, samples: Iterable[tuple[str, Mapping[str, object]]]) -> None:
        super().__init__(name, images)
        texts, ends, columns = bytearray(), array("Q", [0]), dict[str, None]()
        for key, sample in samples:
            columns.update(dict.fromkeys(sample))
            texts += json.dumps([well_formed(key), sample], ensure_ascii=True).encode()
            ends.append(len(texts))
        self._texts, self._ends = bytes(texts), np.asarray(ends, dtype=smallest_unsigned(len(texts)))
        self.columns = tuple(sorted(columns))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def _key(self, index: int) -> str:
        return self._read(index)[0]

    def _row(self, index: int) -> Mapping[str, object]:
        return self._read(index)[1]

    def _read(self, index: int) -> tuple[str, dict[str, object]]:
        start, end = self._ends[index : index + 2].tolist()
        key, sample = json.loads(self._texts[start:end])
        return key, sample


def captioned_images(
    data: DataPath,
    samples: Iterable[tuple[str, Mapping[str, object]]],
    names: Iterable[str],
    usual: Iterable[str],
    left_out: LeftOut,
) -> CaptionedImages:
    """The `samples` of a file of captions, whose images are called `names`, and remarks on what was `left_out` of it.

    Where the user names no folder of the images, they are looked for in the `usual` ones, and a remark says where they are.
    """
    remarks: list[str] = []
    folder = data.images
    if folder is None:
        folder, remark = _folder_of_images(data.path, names, usual, data.limits)
        remarks.append(remark)
    source = CaptionedImages(data.name, folder, samples)
    source.remarks += [*remarks, *left_out.lines()]
    return source


def _folder_of_images(file: Path, names: Iterable[str], usual: Iterable[str], limits: Limits) -> tuple[Path, str]:
    """The folder that the images of a file of captions are in, and a remark that says so.

    It is the first of the file's own folder and the `usual` ones, named from there, that has one of the first images of
    `names`; the file's own where none has. Only folders inside of the parent of the file's folder, or in an allowed one.
    """
    own = file.parent
    first = [name for name in itertools.islice(names, _LOOKED_AT) if not Path(name).is_absolute()]
    homes = (str(own.absolute().parent), *limits.allowed_folders)
    for folder in (own, *(own / name for name in usual)):
        if inside(folder, homes) is not None and any(_is_file_in(folder, name) for name in first):
            return folder, f"{well_formed(file.name)}: its images are read from {well_formed(str(folder))}"
    return own, f"{well_formed(file.name)}: its images are not near it; name their folder (`,images=FOLDER` behind the file)"


def _is_file_in(folder: Path, name: str) -> bool:
    try:
        return inside(folder / name, (str(folder),)) is not None and (folder / name).is_file()
    except (OSError, ValueError):  # a NUL in the name
        return False
