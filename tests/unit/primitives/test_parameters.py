"""Parameters of primitives: what fits, what does not and why, and what is said of them."""

from __future__ import annotations

from typing import Literal

import pytest

from vlmdsl.primitives import all_primitives
from vlmdsl.primitives.parameters import Misfit, Parameters, declared, parameter, takes


def _ordered(pair: tuple[float, float]) -> str:
    return "" if pair[0] <= pair[1] else "must be the smaller first"


class Base(Parameters):
    share: float = parameter(default=0.5, gt=0, le=1, description="a share")
    count: int = parameter(alias="M", ge=1, lt=4)


class Some(Base):
    name: str = parameter(default="a", pattern="^[a-z]*$", min_length=1)
    along: Literal["rows", "columns"] = parameter(default="rows")
    upper: float | None = parameter(default=None, ge=-1)
    pair: tuple[float, float] = parameter(default=(0.0, 1.0), check=_ordered)
    words: tuple[Literal["x", "y"], ...] = parameter(default=("x",), min_length=1)
    count: int = parameter(default=2, alias="M", ge=1)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"share": 0}, "must be greater than 0"),
        ({"share": 1.5}, "must be less than or equal to 1"),
        ({"share": float("nan")}, "must be greater than 0"),
        ({"share": "x"}, "must be a number"),
        ({"M": 0}, "must be greater than or equal to 1"),
        ({"M": 1.5}, "must be a whole number"),
        ({"name": 1}, "must be a string"),
        ({"name": "A"}, "must match `^[a-z]*$`"),
        ({"name": ""}, "must be at least 1 long"),
        ({"along": "row"}, 'must be one of "rows", "columns"'),
        ({"upper": -2}, "must be greater than or equal to -1"),
        ({"pair": (2, 1)}, "must be the smaller first"),
        ({"pair": (1.0,)}, "must have 2 items, and has 1"),
        ({"pair": 1.0}, "must be a tuple, in brackets"),
        ({"words": ()}, "must be at least 1 long"),
        ({"words": ("x", "z")}, 'must be one of "x", "y"'),
    ],
)
def test_what_does_not_fit_is_said(given: dict[str, object], reason: str) -> None:
    with pytest.raises(Misfit) as misfit:
        Some(**given)
    assert misfit.value.reason == reason
    assert misfit.value.parameter.name == next(iter(given))


def test_what_fits_is_read_by_attribute() -> None:
    found = Some(M=1, upper=1, pair=(0, 1), words=("y", "x"))
    assert vars(found) == {
        "share": 0.5, "count": 1, "name": "a", "along": "rows", "upper": 1.0, "pair": (0.0, 1.0), "words": ("y", "x"),
    }  # fmt: skip
    assert isinstance(found.upper, float)
    assert isinstance(found.pair[0], float)
    with pytest.raises(AttributeError):
        found.count = 3


def test_a_declaration_may_be_replaced_and_keeps_its_place() -> None:
    assert [each.name for each in declared(Some)] == ["share", "M", "name", "along", "upper", "pair", "words"]
    assert [each.required for each in declared(Base)] == [False, True]
    assert [takes(each) for each in declared(Base)] == ["number > 0, <= 1", "whole number >= 1, < 4"]


def test_nothing_else_is_taken() -> None:
    with pytest.raises(TypeError, match="wants M"):
        Base()
    with pytest.raises(TypeError, match="has no count"):
        Base(M=1, count=1)


def test_an_attribute_without_a_declaration_is_a_mistake_of_ours() -> None:
    class Bare(Parameters):
        share: float = 0.5

    with pytest.raises(TypeError, match=r"Bare\.share"):
        declared(Bare)


@pytest.mark.parametrize("name", sorted(all_primitives()))
def test_every_parameter_of_the_kernel_is_documented_and_its_default_fits(name: str) -> None:
    primitive = all_primitives()[name]
    for each in declared(primitive.parameters):
        assert each.description or primitive.origin != "vlmdsl"
    optional = {each.name: each.default for each in declared(primitive.parameters) if not each.required}
    needed = {each.name for each in declared(primitive.parameters) if each.required}
    if not needed:
        given = {key: value for key, value in optional.items() if value not in (None, "")}
        assert vars(primitive.parameters(**given)) == vars(primitive.parameters())
