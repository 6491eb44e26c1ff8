"""The allowed forms of emitted source: it is parsed and checked before it runs, so no text of a recipe becomes code.

`emit.py` and `calls.py` escape text from recipes; an error in them is caught here, as an internal error.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable

from vlmdsl.backends.torch import ops
from vlmdsl.backends.torch.naming import FUNCTION
from vlmdsl.ir.verify import InternalError

__all__ = ["allowed_tree"]

PARAMETERS = ("inputs", "parameters", "state")
"""The parameters of every function of emitted source."""

_IMPORT = ast.dump(ast.parse("from vlmdsl.backends.torch import ops").body[0])
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div)
_RESERVED = frozenset({"ops", *PARAMETERS})


def allowed_tree(source: str) -> ast.Module:
    """The syntax tree of emitted source; InternalError for anything that the emitter does not write.

    That is one import, functions of the known names, assignments to plain names, and expressions of constants, names
    assigned before, arithmetic, items of the parameters by a constant, and calls of functions of `ops`.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise _fault(f"it does not parse: {error}") from None
    if not tree.body or ast.dump(tree.body[0]) != _IMPORT:
        raise _fault("it does not begin with the import of the operations")
    for statement in tree.body[1:]:
        _check_function(statement)
    return tree


def _check_function(function: ast.stmt) -> None:
    if not isinstance(function, ast.FunctionDef) or not FUNCTION.fullmatch(function.name):
        raise _fault("something else than one of its functions", function)
    if ast.unparse(function.args) != ", ".join(PARAMETERS) or function.decorator_list or function.returns:
        raise _fault("a strange signature", function)
    assigned = set(PARAMETERS)
    for statement in function.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if _assignable(name):
                _check_values([value], assigned)
                assigned.add(name)
            case ast.Return(value=ast.expr() as value):
                _check_values([value], assigned)
            case _:
                raise _fault("a statement that is neither an assignment nor a result", statement)


def _assignable(name: str) -> bool:
    return name not in _RESERVED and not FUNCTION.fullmatch(name)


def _check_values(expressions: Iterable[ast.expr], assigned: set[str]) -> None:
    """Fault unless the expressions, and those inside of them, are allowed; iterative, since sums are long."""
    waiting = list(expressions)
    while waiting:
        expression = waiting.pop()
        inside = _inside(expression, assigned)
        if inside is None:
            raise _fault("an expression that the emitter does not write", expression)
        waiting.extend(inside)


def _inside(expression: ast.expr, assigned: set[str]) -> list[ast.expr] | None:  # noqa: PLR0911 - one a construct
    """The expressions inside of one that is allowed itself; None for one that is not."""
    match expression:
        case ast.Constant(value=None | bool() | int() | float() | str()):
            return []
        case ast.Name(id=name) | ast.Attribute(value=ast.Name(id=name), attr="loss" | "accuracy"):
            return [] if name in assigned else None
        case ast.Subscript(value=ast.Name(id="inputs" | "parameters" | "state"), slice=ast.Constant(value=str())):
            return []
        case ast.BinOp(left=left, op=operator, right=right):
            return [left, right] if isinstance(operator, _OPERATORS) else None
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return [operand]
        case ast.Tuple(elts=items):
            return items
        case ast.Dict(keys=keys, values=values):
            return values if all(isinstance(key, ast.Constant) and isinstance(key.value, str) for key in keys) else None
        case ast.Call():
            return _inside_call(expression)
    return None


def _inside_call(call: ast.Call) -> list[ast.expr] | None:
    """The arguments of `ops.FUNCTION(...)`, `ops.tiled.FUNCTION(...)`, `inputs.get("NAME")` or `inputs["NAME"].detach()`;
    None for any other call."""
    match call:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="ops"), attr=function)) if function in ops.__all__:
            return _arguments(call)
        case ast.Call(func=ast.Attribute(value=ast.Attribute(value=ast.Name(id="ops"), attr="tiled"), attr=function)) if (
            function in ops.tiled.__all__
        ):
            return _arguments(call)
        case ast.Call(func=ast.Attribute(value=ast.Name(id="inputs"), attr="get"), args=[ast.Constant()], keywords=[]):
            return []
        case ast.Call(func=ast.Attribute(value=ast.Subscript() as item, attr="detach"), args=[], keywords=[]):
            return [item]
    return None


def _arguments(call: ast.Call) -> list[ast.expr] | None:
    return call.args + [keyword.value for keyword in call.keywords] if all(k.arg for k in call.keywords) else None


def _fault(reason: str, node: ast.AST | None = None) -> InternalError:
    place = "" if node is None else f" in line {getattr(node, 'lineno', '?')}: {ast.unparse(node)[:200]!r}"
    return InternalError("the emitter", None, f"emitted source holds {reason}{place}")
