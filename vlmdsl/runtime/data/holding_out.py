"""Holds a share of the training samples out, sample by sample: which ones depends on their keys alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.sources import DataOption
from vlmdsl.runtime.data.source import SelectedSource, Source
from vlmdsl.source import Span

__all__ = ["hold_out", "share_held_out"]

_SHARE = re.compile(r"\s*(\d{1,2}(?:\.\d{1,6})?)\s*%\s*")


def share_held_out(specs: Sequence[str]) -> float | None:
    """The share of the training data that `--val 10%` asks for; None for other specifications.

    >>> share_held_out(["10%"]), share_held_out(["val.tar"])
    (0.1, None)
    """
    match = _SHARE.fullmatch(specs[0]) if len(specs) == 1 else None
    return None if match is None else float(match[1]) / 100


def hold_out(source: Source, share: float) -> tuple[Source, Source]:
    """The other samples, and about that share of them, held out. A sample that is held out stays so whatever is added to the
    data, and whatever the seed. Raises `DiagnosticError` (V0843) where none, or all, would be.
    """
    digests = (hashlib.blake2b(key.encode(), digest_size=8, person=b"held out").digest() for key in source.keys)
    numbers = np.fromiter((int.from_bytes(digest, "big") for digest in digests), dtype=np.uint64, count=len(source))
    held = numbers < np.uint64(share * 2**64)
    if not 0 < held.sum() < len(source):
        reason = f"it would hold out {held.sum():,} of the {len(source):,} samples of {source.name}"
        raise DiagnosticError(
            (DataOption.at(Span("<command line>", 0, 0), option=f"{100 * share:.6g}%", given="--val", reason=reason),)
        )
    rest, kept = (SelectedSource(source, np.flatnonzero(chosen)) for chosen in (~held, held))
    kept.remarks = [f"{len(kept):,} of the {len(source):,} training samples are held out, by their names"]
    return rest, kept
