"""Which patches of an image an encoder sees, where the others are dropped."""

from __future__ import annotations

import numpy as np

__all__ = ["kept"]


def kept(noise: np.ndarray, share: float) -> np.ndarray:
    """The places `int64 [K]` of the K = int(L (1 - share)) smallest of `noise [L]`, from the smallest on.

    With even noise every set of K patches is as likely (MAE, arXiv:2111.06377; FLIP, arXiv:2212.00794).

    >>> kept(np.array([0.4, 0.1, 0.9, 0.3]), share=0.5).tolist()
    [1, 3]
    """
    return np.argsort(noise, kind="stable")[: int(len(noise) * (1 - share))]
