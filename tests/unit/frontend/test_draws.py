"""Numbers drawn once per step: which calls are one draw, what they may decide, and what they may not."""

from __future__ import annotations

import pytest

from vlmdsl.api.check import check
from vlmdsl.api.driver import build
from vlmdsl.ir import Program, draws, inputs
from vlmdsl.ir.digest import digest

HEADER = "vlo 1\nrecipe mine(image: Image, text: Text, lam: Number)\n"
MIXED = "minimize contrast(image, mix(text, by={own}), targets={share} * paired + (1 - {share}) * flipped)"


def planned(body: str) -> Program:
    return build(HEADER + body).planned


def test_a_named_draw_used_twice_is_one_and_two_calls_are_two() -> None:
    one = planned("let share = beta(2, 3)\n" + MIXED.format(own="share", share="share"))
    assert [node.string("name") for node in draws(one)] == ["share"]
    two = planned(MIXED.format(own="beta(2, 3)", share="beta(2, 3)"))
    assert len({node.string("name") for node in draws(two)}) == 3
    assert digest(one) != digest(two)


def test_a_draw_is_an_input_without_axes_whose_name_means_nothing() -> None:
    one, other = (
        planned(f"let {name} = uniform(0, 1)\n" + MIXED.format(own=name, share=name)) for name in ("lot", "chance")
    )
    assert [(port.name, port.axes, port.dtype) for port in inputs(one)][-1] == ("lot", (), "float")
    assert digest(one) == digest(other)


def test_a_draw_does_not_take_the_name_of_a_field() -> None:
    body = 'minimize mean(lam) + contrast(image, mix(text, by=beta(1, 1, name="lam")))'
    assert [port.name for port in inputs(planned(body))][-2:] == ["lam", "lam_2"]


def test_no_block_is_the_whole_batch() -> None:
    body = "minimize contrast(image, mix(text, by=0.5{block}), targets=0.5 * paired + 0.5 * flipped{target})"
    plain, whole, blocks = (
        digest(planned(body.format(block=block, target=target)))
        for block, target in (("", ""), (", block=0", "(block=0)"), (", block=4", "(block=4)"))
    )
    assert plain == whole != blocks


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("minimize contrast(mix(image, by=learned(0.5)), text)", "V0301"),
        ("minimize contrast(image, text, keep=uniform(0, 1) < 0.5)", "V0301"),
        ("minimize contrast(image, mix(text, by=lam))", "V0301"),
        ("minimize contrast(image, mix(text, by=uniform(1, 0)))", "V0407"),
        ("minimize contrast(image, mix(text, by=beta(0, 1)))", "V0405"),
        ("minimize contrast(image, mix(text, by=0.5, block=-1))", "V0405"),
        ("minimize contrast(image, text, targets=flipped(block=1.5))", "V0405"),
    ],
)
def test_what_a_draw_may_not_be(body: str, code: str) -> None:
    assert code in [fault.code for fault in check(HEADER + body)]
