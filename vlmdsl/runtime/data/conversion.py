"""Writes samples as webdataset shards, which this reader and the library `webdataset` read."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.sources import ShardsExist
from vlmdsl.runtime.data.images import decode_image, image_content
from vlmdsl.runtime.data.limits import LONGEST_DESCRIPTION, Limits
from vlmdsl.runtime.data.mapping import FieldMapping
from vlmdsl.runtime.data.report import Skipped, SkipReport
from vlmdsl.runtime.data.source import BadSample, Source
from vlmdsl.runtime.files import writing
from vlmdsl.runtime.values import first_value
from vlmdsl.runtime.values.text import texts_in
from vlmdsl.source import Span

__all__ = ["Written", "write_shards"]

_ENDINGS = {
    "JPEG": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "BMP": "bmp",
    "DIB": "dib",
    "GIF": "gif",
    "TIFF": "tif",
    "AVIF": "avif",
}
_MOST_NUMBERS = 10_000
"""Of an array that is written as a list: boxes, and not segments."""
_KEY = "source_key"
"""The column with the key that a sample had."""


@dataclass
class Written:
    """The shards that were written, with so many `samples`; which were skipped, and which columns left out."""

    shards: list[Path] = field(default_factory=list)
    samples: int = 0
    skipped: SkipReport = field(default_factory=SkipReport)
    left_out: dict[str, int] = field(default_factory=dict)
    """Columns whose values JSON cannot hold -> the number of samples that have one."""


def write_shards(
    source: Source,
    mapping: FieldMapping,
    folder: Path,
    limits: Limits,
    *,
    per_shard: int,
    order: Sequence[int] | np.ndarray | None = None,
) -> Written:
    """Write the samples into `folder/shard-000000.tar` and so on, `per_shard` in each, in `order`.

    The image stays as it is encoded (an array becomes PNG), and has been decoded once; a text is the member `txt`, several
    are in the `json` as `text`, as are all other columns and `source_key`, the key that the sample had. A shard is written
    under another name and renamed. Raises `DiagnosticError`: V0845 where shards are in the folder already, V0903 where it
    cannot be written.
    """
    result = Written()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.glob("shard-*.tar")):
            raise DiagnosticError(
                (ShardsExist.at(Span("<command line>", 0, 0), path=folder, help=("name another folder, or remove them",)),)
            )
        samples = _samples(source, mapping, limits, range(len(source)) if order is None else order, result)
        for number, first in enumerate(samples):
            path = folder / f"shard-{number:06d}.tar"
            partial = path.with_name(f".{path.name}.partial")
            with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as archive:
                _add(archive, result.samples, first)
                for _ in range(per_shard - 1):
                    if (sample := next(samples, None)) is None:
                        break
                    _add(archive, result.samples, sample)
            os.replace(partial, path)
            result.shards.append(path)
    return result


def _samples(
    source: Source, mapping: FieldMapping, limits: Limits, order: Sequence[int] | np.ndarray, result: Written
) -> Iterator[dict[str, bytes]]:
    """The members of each good sample, by ending; counts them."""
    for index in map(int, order):
        try:
            members = _members(source, mapping, limits, index, result.left_out)
        except BadSample as fault:
            result.skipped.add([Skipped(source.keys[index], fault.reason)])
            continue
        yield members
        result.samples += 1


def _members(
    source: Source, mapping: FieldMapping, limits: Limits, index: int, left_out: dict[str, int]
) -> dict[str, bytes]:
    sample, members, described = source[index], dict[str, bytes](), dict[str, object]()
    used = {_KEY, *mapping.columns.get("image", ())}
    if "image" in mapping:
        ending, content = _encoded(first_value(sample, mapping.columns["image"]), source.folder_of(index), limits)
        members[ending] = content
    if "text" in mapping:
        mapping.read("text", "Text", sample)  # a sample without a text is bad
        listed = {column: list(texts_in(sample.get(column))) for column in mapping.columns["text"]}
        column, texts = next(pair for pair in listed.items() if pair[1])
        used |= {column, "text"}
        if len(texts) == 1:
            members["txt"] = texts[0].encode("utf-8", "backslashreplace")
        else:
            described["text"] = texts
    for name in sample:
        if name not in used:
            value = sample[name]
            value = value.tolist() if isinstance(value, np.ndarray) and value.size <= _MOST_NUMBERS else value
            if _is_plain(value):
                described[name] = value
            else:
                left_out[name] = left_out.get(name, 0) + 1
    described[_KEY] = source.keys[index]
    members["json"] = json.dumps(described, ensure_ascii=False).encode("utf-8", "backslashreplace")
    if len(members["json"]) > LONGEST_DESCRIPTION:
        raise BadSample("json too large")
    return members


def _encoded(value: object, folder: str | None, limits: Limits) -> tuple[str, bytes]:
    """The ending and the bytes of an image; raises `BadSample` for one that cannot be decoded."""
    content = image_content(value, folder, limits)
    pixels = decode_image(content, folder, limits)
    if isinstance(content, bytes):
        form = Image.open(io.BytesIO(content)).format or ""
        return _ENDINGS[form], content
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return "png", file.getvalue()


def _is_plain(value: object) -> bool:
    """Whether JSON holds a value as it is."""
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and _is_plain(own) for name, own in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and np.isfinite(value))


def _add(archive: tarfile.TarFile, number: int, members: Mapping[str, bytes]) -> None:
    """The members of one sample, the same bytes whenever they are written."""
    for ending, content in members.items():
        header = tarfile.TarInfo(f"{number:09d}.{ending}")
        header.size = len(content)
        archive.addfile(header, io.BytesIO(content))
