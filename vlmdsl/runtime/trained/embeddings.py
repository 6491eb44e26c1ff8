"""The features of a whole data set as a file, of any size, which can be continued."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.trained import FeaturesOfOthers
from vlmdsl.runtime.data import Source, fingerprint
from vlmdsl.runtime.data.formats.columns import load_pyarrow
from vlmdsl.runtime.files import write_atomically, writing
from vlmdsl.runtime.trained.collections import EncodedData, Kind
from vlmdsl.runtime.trained.model import TrainedModel
from vlmdsl.source import Span

__all__ = ["write_embeddings"]

_SAVED_EVERY = 50
"""Batches."""

_GROUP = 4096
"""Rows of a group of a table."""


class _Progress(BaseModel):
    """How far a file that is not finished is."""

    model_config = ConfigDict(strict=True, frozen=True)

    identity: str
    batches: int = Field(ge=0)
    skipped: dict[str, str]


def write_embeddings(
    model: TrainedModel, data: Sequence[str], columns: Mapping[str, str], place: Path, kind: Kind = "Image"
) -> tuple[int, dict[str, str]]:
    """Write the vectors of all samples to the file `place`, `float32 [n, D]` in the format of numpy, or if it is called
    `.parquet` as a table of `key`, `features` and `skipped`.

    Row i is sample i of the data; that of a sample that cannot be used is NaN, in a table null. `PLACE.keys.jsonl` has
    the key of each row of an array. Returns the number of samples, and why some were skipped, by key. Until the file is
    finished it is `PLACE.partial`, and `PLACE.progress.json` says how far it is: the same call continues from there.
    Vectors are not held in memory. `PLACE.source.json` says what the file is made of. Raises `DiagnosticError` as
    `EncodedData` and `TrainedModel.vectors` do, V0866 where `PLACE` exists and is of another model or of other data, V0820
    where no sample can be used, and V0903 where the disk is full.
    """
    partial, progress_file = (place.with_name(place.name + ending) for ending in (".partial", ".progress.json"))
    if place.suffix == ".parquet":
        load_pyarrow("a Parquet file")  # a missing package is reported before an hour of encoding
    source = EncodedData(model, data, columns, kind=kind).source
    identity = _identity(model, source, columns, kind)
    source_file = place.with_name(place.name + ".source.json")
    _check_replaceable(place, source_file, identity)
    progress = _progress(progress_file, partial, identity)
    encoded = EncodedData(model, data, columns, kind=kind, skipped_batches=progress.batches)
    filled = progress.batches * model.batch
    rows = np.lib.format.open_memmap(partial, mode="r+") if progress.batches else None

    def skipped() -> dict[str, str]:
        return {**progress.skipped, **encoded.report.samples}

    with writing(place):
        for places, features in encoded:
            vectors = model.vectors(features).numpy()
            if rows is None:
                shape = (len(source), vectors.shape[1])
                rows = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
            batches = int(places[-1]) // model.batch + 1
            rows[filled : batches * model.batch] = np.nan
            rows[places.numpy()], filled = vectors, batches * model.batch
            if batches % _SAVED_EVERY == 0:
                rows.flush()
                done = _Progress(identity=identity, batches=batches, skipped=skipped())
                write_atomically(progress_file, done.model_dump_json())
        assert rows is not None
        rows[filled:] = np.nan
        rows.flush()
        write_atomically(source_file, json.dumps({"identity": identity}))
        if place.suffix == ".parquet":
            _write_parquet(rows, source, skipped(), place)
            partial.unlink()
        else:
            keys = (json.dumps(source.keys[index], ensure_ascii=False) for index in range(len(source)))
            write_atomically(place.with_name(place.name + ".keys.jsonl"), "".join(f"{key}\n" for key in keys))
            partial.replace(place)
    progress_file.unlink(missing_ok=True)
    return len(source), skipped()


def _check_replaceable(place: Path, source_file: Path, identity: str) -> None:
    """Raises V0866 for a file that is not of this `identity`."""
    if not place.exists():
        return
    try:
        same = json.loads(source_file.read_bytes()) == {"identity": identity}
    except (OSError, ValueError):
        same = False
    if not same:
        help = "name another file with `--out`, or delete this one first"
        raise DiagnosticError((FeaturesOfOthers.at(Span("<command line>", 0, 0), file=place, help=(help,)),))


def _write_parquet(rows: np.ndarray, source: Source, skipped: Mapping[str, str], place: Path) -> None:
    """The table of the vectors, in groups of 4,096 rows, so that none of it is held as a whole."""
    arrow = load_pyarrow("a Parquet file")
    from pyarrow import compute, parquet

    vectors = arrow.list_(arrow.float32(), rows.shape[1])
    schema = arrow.schema([("key", arrow.string()), ("features", vectors), ("skipped", arrow.string())])
    unfinished = place.with_name(place.name + ".unfinished")
    with parquet.ParquetWriter(unfinished, schema) as writer:
        for start in range(0, len(source), _GROUP):
            group = np.asarray(rows[start : start + _GROUP])
            keys = [source.keys[index] for index in range(start, start + len(group))]
            reasons = arrow.array([skipped.get(key) for key in keys], arrow.string())
            features = arrow.FixedSizeListArray.from_arrays(
                arrow.array(group.reshape(-1)), type=vectors, mask=compute.is_valid(reasons)
            )
            writer.write_table(arrow.Table.from_arrays([arrow.array(keys), features, reasons], schema=schema))
    unfinished.replace(place)


def _identity(model: TrainedModel, source: Source, columns: Mapping[str, str], kind: Kind) -> str:
    """SHA-256 of all that the rows depend on: the weights, the samples, and how they are read."""
    digest = hashlib.sha256()
    for name, tensor in model.model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    parts = [fingerprint(source), sorted(columns.items()), kind, model.batch]
    digest.update(json.dumps(parts).encode())
    return digest.hexdigest()


def _progress(file: Path, partial: Path, identity: str) -> _Progress:
    """How far an earlier call was; the beginning where there was none, or one with another model or other data."""
    begun = _Progress(identity=identity, batches=0, skipped={})
    if not (file.is_file() and partial.is_file()):
        return begun
    try:
        progress = _Progress.model_validate_json(file.read_bytes())
    except ValidationError:
        return begun
    return progress if progress.identity == identity else begun
