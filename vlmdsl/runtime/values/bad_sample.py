"""The exception for a sample that cannot be used."""

from __future__ import annotations

__all__ = ["BadSample"]


class BadSample(Exception):  # noqa: N818 - no error: the sample is skipped
    """One sample cannot be used; `reason` is a short phrase, equal for samples with the same problem."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)
