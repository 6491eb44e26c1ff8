"""Names of towers that other libraries make."""

from __future__ import annotations

from pathlib import Path

__all__ = ["PRETRAINED", "folder_of", "is_pretrained"]

PRETRAINED = ("hf", "timm", "open_clip")
"""The families of towers that come from a library, with their weights and their own images or texts."""


def is_pretrained(name: str) -> bool:
    """Whether an encoder comes from a library: `hf:NAME`, `timm:NAME`, `open_clip:NAME`.

    >>> is_pretrained("timm:vit_tiny_patch16_224"), is_pretrained("vit:tiny")
    (True, False)
    """
    return name.partition(":")[0] in PRETRAINED and ":" in name


def folder_of(name: str) -> Path | None:
    """The folder of this machine that a pretrained encoder is loaded from; None for one of a hub, or a built-in one."""
    folder = Path(name.partition(":")[2])
    return folder if is_pretrained(name) and folder.is_dir() else None
