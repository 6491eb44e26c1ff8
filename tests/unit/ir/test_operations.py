"""What records say of their operations agrees with itself, and with what the operations do to numbers."""

from __future__ import annotations

import copy
import pickle

import pytest

from vlmdsl.ir import Graph
from vlmdsl.ir.operation import InternalError, Operation, define, operation_named
from vlmdsl.ir.operations import FAMILIES, OPERATIONS
from vlmdsl.ir.operations.scalars import ADD

WITH_NUMBERS = [operation for operation in OPERATIONS.values() if operation.number is not None]


def arity(operation: Operation) -> int:
    graph = Graph()
    one = graph.add("constant", value=1.0)
    try:
        graph.add(operation, one)
    except InternalError:
        return 2
    return 1


@pytest.mark.parametrize("operation", WITH_NUMBERS)
def test_traits_of_arithmetic_are_those_of_its_numbers(operation: Operation) -> None:
    number, inputs = operation.number, (0.5, 2.0)[: arity(operation)]
    assert number is not None
    if operation.signs:
        assert number(*inputs) == sum(sign * value for sign, value in zip(operation.signs, inputs, strict=True))
    assert operation.commutative == (len(inputs) == 2 and number(*inputs) == number(*reversed(inputs)))
    try:
        zero = number(*(0.0 for _ in inputs)) == 0.0
    except (ArithmeticError, ValueError):
        zero = False
    assert operation.keeps_zero == zero


def test_every_operation_is_a_constant_of_one_family() -> None:
    constants = [getattr(family, name) for family in FAMILIES for name in family.__all__ if name.isupper()]
    assert sorted(constants) == sorted(name for name, operation in OPERATIONS.items() if not operation.module)
    assert all(OPERATIONS[operation] is operation for operation in constants)


def test_a_loss_that_is_0_where_nothing_is_selected_says_what_it_counts() -> None:
    silent = [name for name, operation in OPERATIONS.items() if "none: 0" in operation.gives and not operation.counts]
    assert silent == []


def test_defaults_are_those_of_attributes() -> None:
    for operation in OPERATIONS.values():
        assert operation.defaults.keys() <= operation.attributes.keys(), operation


def test_a_record_stays_the_one_of_its_name() -> None:
    assert pickle.loads(pickle.dumps(ADD)) is ADD
    assert copy.deepcopy(ADD) is ADD
    assert operation_named("add") is ADD
    with pytest.raises(ValueError, match="'add' is already defined"):
        define(Operation("add", ADD.yields))
    with pytest.raises(InternalError, match="'ad' is not an operation"):
        operation_named("ad")
