"""`search`: the pictures of a data set that fit a text best. Torch is imported when it is called."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from vlmdsl.api.load import load
from vlmdsl.api.runs import data_of_call, folder_and_checkpoint
from vlmdsl.diagnostics.cells import displayed
from vlmdsl.schema import DataSources

__all__ = ["SearchResult", "search"]


@dataclass(frozen=True)
class SearchResult:
    """The keys of the best pictures, best first, each with its similarity to the query, of so many `pictures`."""

    query: str
    best: tuple[tuple[str, float], ...]
    pictures: int
    skipped: dict[str, str]
    remarks: tuple[str, ...] = ()
    """The skipped pictures by reason, one line each."""

    def to_json(self) -> dict[str, Any]:
        """The same, for a machine."""
        best = [{"key": key, "similarity": similarity} for key, similarity in self.best]
        return {"query": self.query, "best": best, "pictures": self.pictures, "skipped": self.skipped}

    def to_text(self) -> str:
        """A line per picture, best first; then what was skipped."""
        rows = [f"{similarity:8.4f}  {displayed(key)}" for key, similarity in self.best]
        return "\n".join([*rows, f"the best {len(rows)} of {self.pictures:,} pictures", *self.remarks])


def search(
    run: str | Path,
    data: DataSources,
    query: str,
    *,
    best: int = 12,
    grid: str | Path | None = None,
    map: Mapping[str, str] | None = None,
    device: str | None = None,
) -> SearchResult:
    """The pictures that are most similar to a text, as the recipe compares images with texts.

    Pictures that cannot be read are skipped and named. Raises `DiagnosticError` as `load` does, V0861 where the recipe
    compares no images with texts, V0860 for an empty query, V0820 where no picture can be read, V0870 for a grid among
    the pictures, and those of data that cannot be opened.

    Args:
        run: the run folder.
        data: a folder of pictures, or other data in the formats of `train`.
        query: the text.
        best: how many pictures.
        grid: a PNG file to draw them in, best first.
        map: `image` -> the column of the pictures, if it has another name.
        device: see `load`.

    >>> import tempfile, vlmdsl
    >>> from vlmdsl.api.search import search
    >>> settings = {"train.batch": 8, "train.compile": False, "evaluation.limit": 32}
    >>> run = vlmdsl.train("clip", data=["shapes:samples=32"], steps=2, settings=settings, out=tempfile.mkdtemp())
    >>> len(search(run.folder, "shapes:samples=20", "a red circle", best=5).best)
    5
    """
    own = data_of_call(data, map)
    if grid is not None:
        places = import_module("vlmdsl.runtime.data.read_places")
        places.check_apart(grid, own.train, "`--grid`")
        places.check_apart_from(grid, folder_and_checkpoint(run)[0].path, "`--grid`")
    model, trained = load(run, device=device), import_module("vlmdsl.runtime.trained")
    text = model.text_features(query)
    pictures = trained.EncodedData(model, own.train, own.map)
    ranked: list[tuple[float, int]] = []
    count = 0
    for places, features in pictures:
        similarities = model.compare(features, text)[:, 0].tolist()
        ranked = heapq.nlargest(best, [*ranked, *zip(similarities, (-places).tolist(), strict=True)])  # of equals the first
        count += len(places)
    if grid is not None:
        drawn = [(pictures.pixels(-place), f"{similarity:.3f}") for similarity, place in ranked]
        trained.draw_grid(drawn, Path(grid), query)
    hits = tuple((pictures.source.keys[-place], similarity) for similarity, place in ranked)
    report = pictures.report
    return SearchResult(query, hits, count, dict(report.samples), tuple(report.table().splitlines()))
