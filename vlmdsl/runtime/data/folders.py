"""A folder of images: one subfolder a class, or texts and annotations in files beside the images, or both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vlmdsl.runtime.data.images import IMAGE_SUFFIXES
from vlmdsl.runtime.data.shards import member_columns
from vlmdsl.runtime.data.source import BadSample, LazyColumns, probed_columns

__all__ = ["FolderSource"]

_SIDECARS = ("txt", "caption", "json", "cls")


class FolderSource:
    """The images under a folder, in the order of their paths.

    `cat.png` may have `cat.txt`, `cat.json`, ... beside it, with the same meaning as in a shard. An image in a subfolder
    has a `label` (the position of the subfolder in the alphabet), `class_name` and, without a text of its own, the class
    name as `text`.
    """

    def __init__(self, folder: Path, name: str = "") -> None:
        self.name = name or str(folder)
        self._folder = str(folder)
        self._images = sorted(
            path
            for path in folder.rglob("*")
            if path.suffix.lower().lstrip(".") in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
        )
        self.keys = [path.relative_to(folder).as_posix() for path in self._images]
        subfolders = sorted({key.split("/")[0] for key in self.keys if "/" in key})
        self.class_names = tuple(_readable(subfolder) for subfolder in subfolders) or None
        self._label_of = {subfolder: label for label, subfolder in enumerate(subfolders)}
        self.columns: tuple[str, ...] = probed_columns(self)

    def __len__(self) -> int:
        return len(self.keys)

    def folder_of(self, index: int) -> str | None:
        return self._folder

    def __getitem__(self, index: int) -> Mapping[str, object]:
        path = self._images[index]
        sidecars = {suffix: path.with_suffix(f".{suffix}") for suffix in _SIDECARS}
        try:
            beside = member_columns({suffix: file.read_bytes for suffix, file in sidecars.items() if file.is_file()})
        except OSError as fault:
            raise BadSample("unreadable file") from fault
        subfolder, slash, _ = self.keys[index].partition("/")
        if not slash:
            return LazyColumns(dict(beside), {"image": lambda: path})
        label = self._label_of[subfolder]
        assert self.class_names is not None
        name = self.class_names[label]
        own: dict[str, object] = {"label": label, "class_name": name}
        # A caption of the image's own says more than the name of its class.
        if not {"txt", "caption", "text"} & beside.keys():
            own["text"] = name
        return LazyColumns({**own, **beside}, {"image": lambda: path})


def _readable(folder: str) -> str:
    return folder.replace("_", " ").replace("-", " ").strip()
