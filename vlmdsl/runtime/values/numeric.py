"""Reads numbers from data: a scalar or an array. Strings, booleans and other values are not numbers."""

from __future__ import annotations

import math
from decimal import Decimal
from numbers import Real

import numpy as np

__all__ = ["number_array", "number_of", "whole_number"]


def number_of(value: object) -> float | None:
    """A finite number, from one or, since tables hold nothing else, from its digits; None for anything else.

    >>> number_of("1.5"), number_of(True), number_of("1_000")
    (1.5, None, None)
    """
    digits = isinstance(value, str) and "_" not in value
    if not digits and not _is_number(value):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]  # a number or a text
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def whole_number(value: object) -> int | None:
    """A whole number, which JSON may have written as 3.0; None for anything else, text included.

    >>> whole_number(3.0), whole_number("3"), whole_number(2.5)
    (3, None, None)
    """
    number = number_of(value) if _is_number(value) else None
    return int(number) if number is not None and number.is_integer() else None


def number_array(value: object) -> np.ndarray | None:
    """The numbers of an array, or of a list, nested or not, with any shape and dtype; None where rows are not equally long,
    or hold anything else: strings, booleans, null.

    >>> number_array([[1, 2.5]]).tolist(), number_array([["1", "2"]]), number_array([[True, False]])
    ([[1.0, 2.5]], None, None)
    """
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if array.dtype.kind in "iuf" or not array.size:
        return array if array.dtype.kind in "iuf" else np.empty(array.shape)
    if array.dtype.kind != "O" or not all(map(_is_number, array.flat)):
        return None
    try:
        return array.astype(np.float64)
    except OverflowError:
        return None


def _is_number(value: object) -> bool:
    return isinstance(value, Real | Decimal) and not isinstance(value, bool)
