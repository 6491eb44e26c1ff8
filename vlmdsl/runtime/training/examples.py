"""Examples of what an evaluation measured, to look at: `retrieval.png`, `captions.png`, `examples.json` of a run folder."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlmdsl.runtime.data import BadSample
from vlmdsl.runtime.evaluation import PART_TITLES, BestMatches, Confusion, Evaluation, Example, Query
from vlmdsl.runtime.files import rounded, write_json
from vlmdsl.runtime.tracking import draw_grid, draw_matches
from vlmdsl.runtime.tracking.matches import MatchRow
from vlmdsl.runtime.training.records import LONGEST_TEXT, MOST_CLASSES

__all__ = ["draw_examples", "thumbnail"]

_SIDE = 96
"""Pixels of the longer side of a picture."""


def draw_examples(evaluation: Evaluation, folder: Path, whose: str = "") -> None:
    """Write what can be looked at; the files of another flow begin with its name.

    Examples of each measured part are drawn into `NAME.png`, queries of retrieval with their best matches into
    `retrieval.png`. `examples.json` has these again, and which classes are confused.
    """
    for name, part in evaluation.parts.items():
        if part.examples:
            draw_grid(part.examples, folder / f"{whose}{name}.png", f"{whose}{PART_TITLES[name]}")
    shown = _Shown(evaluation.matches)
    if evaluation.matches is not None:
        draw_matches(*shown.rows(), folder / f"{whose}retrieval.png")
    if evaluation.matches is not None or evaluation.confusion is not None:
        confusion = {} if evaluation.confusion is None else _confusion(evaluation.confusion)
        write_json(folder / f"{whose}examples.json", rounded({"format": 1, **shown.as_json(), **confusion}))
    for flow, own in evaluation.flows.items():
        draw_examples(own, folder, f"{whose}{flow}.")


def thumbnail(pixels: np.ndarray, side: int = _SIDE) -> np.ndarray:
    """An image `uint8 [H, W, 3]` of which no side is longer than so many pixels.

    >>> thumbnail(np.zeros((300, 150, 3), dtype=np.uint8)).shape
    (96, 48, 3)
    """
    image = Image.fromarray(pixels)
    image.thumbnail((side, side))
    return np.asarray(image)


class _Shown:
    """Queries with their best matches, each sample read once."""

    def __init__(self, matches: BestMatches | None) -> None:
        self._matches = matches or BestMatches((), ())
        self._samples: dict[int, Example | None] = {}

    def rows(self) -> tuple[list[MatchRow], list[MatchRow]]:
        """Those of images, then those of texts."""
        return [self._row(query) for query in self._matches.image_to_text], [
            self._row(query) for query in self._matches.text_to_image
        ]

    def as_json(self) -> dict[str, Any]:
        """Both directions, each query and match with what is looked at: images where texts are searched, and the reverse."""
        return {
            "image_to_text": [self._query(query, "image", "text") for query in self._matches.image_to_text],
            "text_to_image": [self._query(query, "text", "image") for query in self._matches.text_to_image],
        }

    def _look(self, sample: int) -> Example:
        """Image and text of a sample; black where a stream or a file has changed and it cannot be read again."""
        if sample not in self._samples:
            try:
                seen = None if self._matches.look is None else self._matches.look(sample)
            except BadSample:
                seen = None
            self._samples[sample] = None if seen is None else Example(thumbnail(seen.pixels), seen.text[:LONGEST_TEXT])
        return self._samples[sample] or Example(np.zeros((_SIDE, _SIDE, 3), dtype=np.uint8), "")

    def _row(self, query: Query) -> MatchRow:
        matches = [(self._look(match.sample), match.similarity, match.right) for match in query.matches]
        return MatchRow(self._look(query.sample), query.rank, matches)

    def _query(self, query: Query, own: str, other: str) -> dict[str, Any]:
        matches = [
            {
                "sample": self._part(match.sample, other),
                "similarity": match.similarity if math.isfinite(match.similarity) else None,
                "right": match.right,
            }
            for match in query.matches
        ]
        return {"sample": self._part(query.sample, own), "rank": query.rank, "matches": matches}

    def _part(self, sample: int, part: str) -> dict[str, str]:
        seen = self._look(sample)
        return {"text": seen.text} if part == "text" else {"image": _png(seen.pixels)}


def _png(pixels: np.ndarray) -> str:
    """An image as a PNG, in base64."""
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, format="PNG", optimize=True)
    return base64.b64encode(written.getvalue()).decode("ascii")


def _confusion(confusion: Confusion) -> dict[str, Any]:
    """The classes with the most images, and how often they are confused; how many classes are left out."""
    images: dict[int, int] = dict.fromkeys(range(len(confusion.classes)), 0)
    for (label, _), number in confusion.counts.items():
        images[label] += number
    kept = sorted(sorted(images, key=lambda label: -images[label])[:MOST_CLASSES])
    place = {label: number for number, label in enumerate(kept)}
    counts = [
        [place[label], place[other], number]
        for (label, other), number in sorted(confusion.counts.items())
        if label in place and other in place
    ]
    classes = [confusion.classes[label][:LONGEST_TEXT] for label in kept]
    return {"confusion": {"classes": classes, "counts": counts}, "left_out": len(images) - len(kept)}
