"""Limits on what is read of foreign data, and from where: beyond them a sample is skipped, or a table rejected, by name."""

from __future__ import annotations

from dataclasses import dataclass

from vlmdsl.schema import DataConfig

__all__ = ["DEFAULT_LIMITS", "LONGEST_DESCRIPTION", "Limits"]

LONGEST_DESCRIPTION = 8 * 2**20
"""Bytes of one sample's text or JSON. Parsed JSON takes tens of times its length in memory."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, pixels and characters, and the folders that image paths may lead into beside their own."""

    file_bytes: int
    table_bytes: int
    image_pixels: int
    text_characters: int
    allowed_folders: tuple[str, ...] = ()
    shard_bytes: int = 2**36
    cache: str | None = None
    """Where copies of shards are kept that are elsewhere or compressed; None: in the cache of the user."""

    @classmethod
    def of(cls, config: DataConfig) -> Limits:
        """The limits that a configuration sets.

        >>> Limits.of(DataConfig()).image_pixels
        67108864
        """
        return cls(
            file_bytes=config.max_file_bytes,
            table_bytes=config.max_table_bytes,
            image_pixels=config.max_image_pixels,
            text_characters=config.max_text_characters,
            allowed_folders=config.allowed_folders,
            shard_bytes=config.max_shard_bytes,
            cache=config.cache,
        )


DEFAULT_LIMITS = Limits.of(DataConfig())
