"""Writes the table of operations in `docs/architecture.md` from their records: `python docs/make_operations.py`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from vlmdsl.ir.operation import Operation
from vlmdsl.ir.operations import FAMILIES, OPERATIONS

PAGE = Path(__file__).with_name("architecture.md")
BEGIN, END = "<!-- operations: python docs/make_operations.py -->", "<!-- end of operations -->"
_WORDS = {"declares_type", "named", "origin", "module"}
"""Fields of a record that the table does not list as traits."""


def table() -> str:
    """The table: operations that differ in their names only share a row."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for family in FAMILIES:
        constants = [getattr(family, name) for name in family.__all__ if name.isupper()]
        for operation in sorted(constants, key=list(OPERATIONS).index):
            cells = (operation.takes, operation.carries, operation.gives, ", ".join(traits_of(operation)))
            rows.setdefault(cells, []).append(operation.name)
    lines = ["| operation | inputs | attributes | type | traits |", "|---|---|---|---|---|"]
    lines += [f"| `{' '.join(names)}` | {' | '.join(cells)} |" for cells, names in rows.items()]
    return "\n".join(line.replace("|  |", "| |").replace("|  |", "| |") for line in lines)


def traits_of(operation: Operation) -> list[str]:
    """The traits that a record has, by their names."""
    names = [field.name for field in fields(operation) if isinstance(field.default, bool) and field.name not in _WORDS]
    return [f"`{name}`" for name in names if getattr(operation, name)]


def page() -> str:
    """The page with its table as the records are now."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
