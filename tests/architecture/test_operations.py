"""Operations are known by their records: few places compare them with a name, and no table of names is kept by hand."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from vlmdsl.ir.operation import operation_named
from vlmdsl.ir.operations import OPERATIONS

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = 40
"""Fewer literals than this may stand for operations outside the records."""
RECORDS = ("vlmdsl/ir/operation.py", "vlmdsl/ir/operations/")
_LEAST_OF_A_TABLE = 3
"""So many names of operations side by side, and nothing else, are a list of operations."""


def _operation_names(expression: ast.expr) -> list[str]:
    """The operations that a string, or a tuple, list or set of strings names."""
    if isinstance(expression, ast.Constant):
        return [expression.value] if isinstance(expression.value, str) and expression.value in OPERATIONS else []
    if isinstance(expression, ast.Tuple | ast.List | ast.Set):
        return [name for element in expression.elts for name in _operation_names(element)]
    return []


def _is_operation(expression: ast.expr) -> bool:
    return (isinstance(expression, ast.Attribute) and expression.attr == "operation") or (
        isinstance(expression, ast.Name) and expression.id == "operation"
    )


def literals(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of each string that stands for an operation: in a comparison, and in tables and lists of operations."""
    exported: set[ast.expr] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(map(_is_operation, (node.left, *node.comparators))):
            for side in (node.left, *node.comparators):
                yield from ((node.lineno, name) for name in _operation_names(side))
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            exported.add(node.value)
        elif node not in exported and isinstance(node, ast.Dict | ast.Set | ast.Tuple | ast.List):
            elements = node.keys if isinstance(node, ast.Dict) else node.elts
            keys = [element for element in elements if element is not None]
            names = [name for key in keys if isinstance(key, ast.Constant) for name in _operation_names(key)]
            if len(names) == len(keys) >= _LEAST_OF_A_TABLE:
                yield from ((node.lineno, name) for name in names)


def test_operations_are_seldom_named_by_a_string() -> None:
    places = [
        f"{path.relative_to(ROOT)}:{line}: {name!r}"
        for folder in ("vlmdsl", "cli")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not path.relative_to(ROOT).as_posix().startswith(RECORDS)
        for line, name in literals(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert len(places) < ALLOWED, "\n".join(places)


def test_types_of_nodes_are_inferred() -> None:
    """Only the type of a field or of a memory is passed to `add`: it is data."""
    places = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in sorted((ROOT / "vlmdsl").rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "add" and call.args
        if isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str)
        if any(keyword.arg == "type" for keyword in call.keywords)
        if not operation_named(call.args[0].value).declares_type
    ]
    assert places == []


def test_the_count_sees_comparisons_and_tables() -> None:
    source = """
if node.operation == "add" or operation in ("exp", "log"): pass
TABLE = {"add": 1, "subtract": 2, "multiply": 3}
LIST = frozenset({"softmax", "transport", "paired"})
OTHER = {"add": 1, "brush": 2, "comb": 3}
"""
    assert len(list(literals(ast.parse(source)))) == 3 + 3 + 3
