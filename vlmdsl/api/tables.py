"""A table of results as text."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["table_text"]


def table_text(table: Table, width: int = 125) -> str:
    """The lines of a table, without colour and without spaces at the end."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, color_system=None, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())
