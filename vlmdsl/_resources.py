"""The package as it lies here: its version, and its data folders `grammar/` and `recipes/`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["installed_version", "root"]


def installed_version() -> str:
    """The version in the installed metadata; `0+checkout` where the package is only on the path, not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("vlmdsl")
    except PackageNotFoundError:
        return "0+checkout"


def root(kind: Literal["grammar", "recipes"]) -> Traversable:
    """The folder of the grammar or of the bundled recipes.

    The checkout comes first: an editable install also holds copies of the data, which go stale.
    """
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / kind).is_dir():
        return checkout / kind
    from importlib.resources import files

    packaged = files("vlmdsl") / "_data" / kind
    if packaged.is_dir():
        return packaged
    raise FileNotFoundError(f"vlmdsl's {kind} folder is missing: looked in {checkout / kind} and {packaged}")
