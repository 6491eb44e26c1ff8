"""Numbers drawn once a step, and mixtures with the batch or blocks of it read backwards, as mathematics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmdsl.backends.latex.notation import Math, call, negated, number, product, symbol, total, words
from vlmdsl.ir import Node, block_of

if TYPE_CHECKING:
    from vlmdsl.backends.latex.names import Names

__all__ = ["drawn", "mixture", "partner_of"]

_GREEK = {"lam": ("lambda", "λ"), "alpha": ("alpha", "α"), "gamma": ("gamma", "γ"), "mu": ("mu", "μ"), "rho": ("rho", "ρ")}
_DISTRIBUTIONS = {"beta": (r"\mathrm{Beta}", "Beta"), "uniform": (r"\mathcal{U}", "U")}


def drawn(names: Names, node: Node) -> Math:
    """The symbol of a draw, whose distribution is stated."""
    name = node.string("name")
    letter = symbol(rf"\{_GREEK[name][0]}", _GREEK[name][1]) if name in _GREEK else words(name)
    arguments = node.attribute("arguments")
    assert isinstance(arguments, tuple)
    latex, text = _DISTRIBUTIONS[node.string("distribution")]
    source = call(text, *map(number, arguments), latex=latex)
    once = words("once a step")
    statement = Math(rf"{letter.latex} \sim {source.latex},\ {once.latex}", f"{letter.text} ~ {source.text}, {once.text}")
    names.state("parameters", statement)
    return letter


def partner_of(names: Names, node: Node, index: str) -> Math:
    """The place of the partner of sample `index` in the batch read backwards, or in its blocks, which are stated then."""
    block = block_of(node)
    if not block:
        return Math(f"(B + 1 - {index})", f"(B + 1 - {index})")
    said = f"the partner of i, blocks of {block} consecutive samples read backwards"
    names.state("values", Math(rf"\sigma_{{{block}}}(i)\ {words(said).latex}", f"σ_{block}(i): {said}"))
    return Math(rf"\sigma_{{{block}}}({index})", f"σ_{block}({index})")


def mixture(share: Math, own: Math, partner: Math) -> Math:
    """A sample mixed with its partner."""
    return total(product(share, own), product(total(number(1.0), negated(share)), partner))
