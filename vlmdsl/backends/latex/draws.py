"""Numbers drawn per step, and mixtures with the reversed batch or blocks of it, as mathematics."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from vlmdsl.backends.latex.notation import Math, call, equation, negated, number, product, symbol, total, words
from vlmdsl.ir import Node, block_of

__all__ = ["State", "drawn", "following", "from_outside", "mixture", "partner_of", "picked"]

State: TypeAlias = Callable[[str, Math], None]
"""Adds a statement to a group of definitions."""

_GREEK = {"lam": ("lambda", "λ"), "alpha": ("alpha", "α"), "gamma": ("gamma", "γ"), "mu": ("mu", "μ"), "rho": ("rho", "ρ")}
_DISTRIBUTIONS = {"beta": (r"\mathrm{Beta}", "Beta"), "uniform": (r"\mathcal{U}", "U")}


def drawn(state: State, node: Node) -> Math:
    """The symbol of a draw; states its distribution."""
    letter = _letter(node)
    arguments = node.attribute("arguments")
    assert isinstance(arguments, tuple)
    latex, text = _DISTRIBUTIONS[node.string("distribution")]
    source = call(text, *map(number, arguments), latex=latex)
    once = words("once per step")
    statement = Math(rf"{letter.latex} \sim {source.latex},\ {once.latex}", f"{letter.text} ~ {source.text}, {once.text}")
    state("parameters", statement)
    return letter


def following(state: State, node: Node) -> Math:
    """The symbol of a schedule; states it."""
    letter, path = _letter(node), str(node.attribute("ramp"))
    state("parameters", Math(rf"{letter.latex}\ {words(path).latex}", f"{letter.text} {path}"))
    return letter


def _letter(node: Node) -> Math:
    """The name of a number, as a Greek letter if it is the name of one."""
    name = node.string("name")
    return symbol(rf"\{_GREEK[name][0]}", _GREEK[name][1]) if name in _GREEK else words(name)


def from_outside(state: State, node: Node) -> Math:
    """The symbol of a number from the caller; states that."""
    letter = words(node.string("name"))
    said = words("passed by the caller")
    state("parameters", Math(rf"{letter.latex}\ {said.latex}", f"{letter.text}: {said.text}"))
    return letter


def partner_of(state: State, node: Node, index: str) -> Math:
    """The place of the partner of sample `index` in the batch read backwards, or in its blocks, which are stated then."""
    block = block_of(node)
    if not block:
        return Math(f"(B + 1 - {index})", f"(B + 1 - {index})")
    said = f"the partner of i, blocks of {block} consecutive samples read backwards"
    state("values", Math(rf"\sigma_{{{block}}}(i)\ {words(said).latex}", f"σ_{block}(i): {said}"))
    return Math(rf"\sigma_{{{block}}}({index})", f"σ_{block}({index})")


def mixture(share: Math, own: Math, partner: Math) -> Math:
    """A sample mixed with its partner."""
    return total(product(share, own), product(total(number(1.0), negated(share)), partner))


def picked(letter: Math, inner: Math, pick: Math, node: Node) -> Math:
    """What the letter of a picked image or text stands for: that of another sample, of the batch or of a queue too."""
    latex, text = inner.latex.removesuffix("_i"), inner.text.removesuffix("_i")
    defined = equation(letter, Math(f"{latex}_{{{pick.latex}}}", f"{text}_{pick.text}"))
    if len(node.inputs) == 2:
        return defined
    size = number(node.inputs[2].number("size"))
    pool = words(f"of the batch or of the latest {size.text} of earlier steps")
    return Math(rf"{defined.latex},\ {pool.latex}", f"{defined.text}, {pool.text}")
