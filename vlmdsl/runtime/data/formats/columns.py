"""Values of Arrow as the columns of a sample: read on access, bounded, damage named."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.environment import PackageMissing
from vlmdsl.runtime.data.limits import LONGEST_DESCRIPTION, Limits
from vlmdsl.runtime.data.source import BadSample
from vlmdsl.source import Span

__all__ = ["class_names_in", "load_pyarrow", "value_of"]

_PICTURE = {"bytes", "path"}
"""The members of an image, as the library `datasets` writes it."""

_MOST_CLASSES = 1_000_000


def load_pyarrow(what: str) -> ModuleType:
    """The module `pyarrow`; `DiagnosticError` (V0901) if it is not installed."""
    try:
        import pyarrow
    except ImportError as fault:
        help = ("run `pip install 'vlmdsl[arrow]'`", "or write the samples to a `.jsonl` or `.csv` table, or to tar shards")
        missing = PackageMissing.at(Span("<command line>", 0, 0), what=what, package="pyarrow", help=help)
        raise DiagnosticError((missing,)) from fault
    module: ModuleType = pyarrow
    return module


def value_of(scalar: Callable[[], Any], limits: Limits, named: Callable[[str], object] | None = None) -> object:
    """The value of one cell; of an image that is stored with its path the bytes, or where there are none the path, or what
    `named` reads of it.

    Raises `BadSample` for a cell that is too large or damaged.
    """
    is_path = False
    try:
        cell = scalar()
        if hasattr(cell, "keys") and set(cell.keys()) == _PICTURE:
            content = cell["bytes"]
            is_path = not content.is_valid
            cell = cell["path"] if is_path else content
        size = 0 if not cell.is_valid or not hasattr(cell, "as_buffer") else cell.as_buffer().size
        binary = hasattr(cell, "as_buffer") and "binary" in str(cell.type)
        if size > (limits.file_bytes if binary else LONGEST_DESCRIPTION):
            raise BadSample("file too large" if binary else "text too large")
        value: object = cell.as_py()
    except BadSample:
        raise
    except Exception as fault:
        # pyarrow meets damaged files with ArrowInvalid, OSError, ValueError, UnicodeDecodeError: none may stop a run.
        raise BadSample("damaged column") from fault
    return named(value) if named is not None and is_path and isinstance(value, str) else value


def class_names_in(metadata: object) -> tuple[str, ...] | None:
    """The names of the classes of the column `label`, where the library `datasets` wrote them into the metadata of a schema;
    else None.

    >>> feature = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    >>> class_names_in({b"huggingface": json.dumps({"info": {"features": feature}}).encode()})
    ('cat', 'dog')
    """
    try:
        described: Any = metadata
        names = json.loads(described[b"huggingface"])["info"]["features"]["label"]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    if (
        not isinstance(names, list)
        or not 0 < len(names) <= _MOST_CLASSES
        or not all(isinstance(name, str) for name in names)
    ):
        return None
    return tuple(names)
