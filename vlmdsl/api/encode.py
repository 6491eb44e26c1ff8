"""`encode`: the features of a whole data set as a file. Torch is imported when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from vlmdsl.api.load import load
from vlmdsl.api.runs import data_of_call, folder_and_checkpoint
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.trained import FormatUnknown
from vlmdsl.diagnostics.cells import displayed
from vlmdsl.schema import DataSources
from vlmdsl.source import Span

__all__ = ["EncodeResult", "encode"]

_SUFFIXES = (".npy", ".parquet")


@dataclass(frozen=True)
class EncodeResult:
    """The file with a row for each of so many `samples`; those that were `skipped`, by key, have no features (NaN)."""

    file: Path
    samples: int
    skipped: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The same, for a machine."""
        return {"file": str(self.file), "samples": self.samples, "skipped": self.skipped}

    def to_text(self) -> str:
        """The file and its number of rows, then what was skipped."""
        lines = [f"{self.samples:,} rows in {displayed(str(self.file))}"]
        lines += [f"without features: {displayed(key)} ({reason})" for key, reason in self.skipped.items()]
        return "\n".join(lines)


def encode(
    run: str | Path,
    data: DataSources,
    out: str | Path,
    *,
    what: Literal["image", "text"] = "image",
    map: Mapping[str, str] | None = None,
    device: str | None = None,
    batch: int = 64,
) -> EncodeResult:
    """Write the features of all images, or of all texts, to a file; data of any size.

    A file of numpy is `float32 [n, D]`, of which row i is sample i, and `OUT.keys.jsonl` has its name. A Parquet file (the
    extra `arrow`) has the columns `key`, `features` (a list of D numbers, null for a sample that was skipped) and `skipped`
    (why). What is interrupted is continued when the same call is made again. Raises `DiagnosticError` as `load` does, V0901
    without pyarrow, V0861 where the recipe encodes no such vectors, V0862 for a file of another ending,
    V0866 for a file that exists and has the features of another run or of other data, V0870 for one among what is read,
    V0820 where no sample can be used, V0903 where the disk is full, and those of data that cannot be opened.

    Args:
        run: the run folder.
        data: a folder of pictures, or other data in the formats of `train`.
        out: the file, `NAME.npy` or `NAME.parquet`.
        what: `image` or `text`.
        map: `image` or `text` -> its column, if that has another name.
        device: see `load`.
        batch: how many are encoded at a time.

    >>> import tempfile, vlmdsl
    >>> from vlmdsl.api.encode import encode
    >>> settings = {"train.batch": 8, "train.compile": False, "evaluation.limit": 32}
    >>> run = vlmdsl.train("clip", data=["shapes:samples=32"], steps=2, settings=settings, out=tempfile.mkdtemp())
    >>> encode(run.folder, "shapes:samples=3", f"{tempfile.mkdtemp()}/images.npy").samples
    3
    """
    file = Path(out)
    if file.suffix not in _SUFFIXES:
        raise DiagnosticError((FormatUnknown.at(Span("<command line>", 0, 0), file=file),))
    import_module("vlmdsl.runtime.files").check_place(file)
    own = data_of_call(data, map)
    places = import_module("vlmdsl.runtime.data.read_places")
    places.check_apart(file, own.train, "`--out`")
    places.check_apart_from(file, folder_and_checkpoint(run)[0].path, "`--out`")
    model, trained = load(run, device=device, batch=batch), import_module("vlmdsl.runtime.trained")
    kind = "Image" if what == "image" else "Text"
    samples, skipped = trained.write_embeddings(model, own.train, own.map, file, kind)
    return EncodeResult(file, samples, skipped)
