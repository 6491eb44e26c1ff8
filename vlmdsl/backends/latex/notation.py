"""Mathematics in two notations at once: LaTeX (the subset that mathtext renders too) and plain text."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

__all__ = [
    "ATOM", "PRODUCT", "SUM", "Math", "bracketed", "call", "equation", "fraction", "infix", "inner_product", "log",
    "negated", "number", "product", "quotient", "share_of", "share_over", "sum_over", "symbol", "total", "under", "words",
]  # fmt: skip

SUM, PRODUCT, ATOM = 0, 1, 2

_LATEX = {
    **{sign: f"\\{sign}" for sign in "_ %$#&{}"},
    **{"\\": r"\backslash ", "^": r"\wedge ", "~": r"\sim ", '"': "''", "`": "'"},
}
"""Special characters of LaTeX, and their escapes."""


@dataclass(frozen=True, slots=True)
class Math:
    """One expression. `level` is its precedence; a leading minus is kept separately, so that it can move outward."""

    latex: str
    text: str
    level: int = ATOM
    negative: bool = False

    def signed(self) -> tuple[str, str]:
        """Both notations with the sign."""
        return ("-" + self.latex, "-" + self.text) if self.negative else (self.latex, self.text)


def symbol(latex: str, text: str | None = None) -> Math:
    return Math(latex, latex if text is None else text)


def words(text: str) -> Math:
    """Upright text between mathematics; no character of it is a command."""
    return Math(r"\mathrm{" + "".join(_LATEX.get(character, character) for character in text) + "}", text)


def number(value: float) -> Math:
    """A number: simple fractions as fractions, others with their significant digits."""
    negative, size = value < 0, abs(value)
    simple = Fraction(size).limit_denominator(16)
    if size and simple.denominator > 1 and abs(float(simple) - size) < 1e-12 and not _is_short(size):
        formula = fraction(number(simple.numerator), number(simple.denominator))
        return replace(formula, negative=negative)
    digits = f"{size:.10g}"
    if "e" not in digits:
        return Math(digits, digits, ATOM, negative)
    mantissa, _, exponent = digits.partition("e")
    power_of_ten = rf"10^{{{int(exponent)}}}"
    latex = power_of_ten if mantissa == "1" else rf"{mantissa} \cdot {power_of_ten}"
    return Math(latex, digits, PRODUCT, negative)


def _is_short(size: float) -> bool:
    """Whether a decimal is shorter than a fraction: 0.1 rather than 1/10, but 1/2."""
    return len(f"{size:.10g}") <= 4 and size not in (0.5, 0.25)


def bracketed(inner: Math, latex: str = "()", text: str = "()") -> Math:
    tex, plain = inner.signed()
    return Math(rf"\left{latex[0]} {tex} \right{latex[1]}", text[0] + plain + text[1])


def _at_least(inner: Math, level: int) -> Math:
    """The expression with brackets if `level` requires them."""
    return inner if inner.level >= level and not inner.negative else bracketed(inner)


def negated(inner: Math) -> Math:
    if inner.negative or inner.level > SUM:
        return replace(inner, negative=not inner.negative)
    return replace(bracketed(inner), negative=True)


def total(*summands: Math) -> Math:
    """A sum; negative summands are subtracted."""
    if len(summands) == 1:
        return summands[0]
    tex, plain = summands[0].signed()
    for summand in summands[1:]:
        sign = "-" if summand.negative else "+"
        inner = replace(summand, negative=False)
        inner = _at_least(inner, PRODUCT) if summand.negative else inner
        tex, plain = f"{tex} {sign} {inner.latex}", f"{plain} {sign} {inner.text}"
    return Math(tex, plain, SUM)


def product(*factors: Math) -> Math:
    """A product; the signs of the factors are collected in front, and a factor 1 is omitted."""
    negative = sum(factor.negative for factor in factors) % 2 == 1
    inner = [_at_least(replace(factor, negative=False), PRODUCT) for factor in factors]
    kept = [factor for factor in inner if factor.text != "1"] or inner[:1]
    latex = kept[0].latex
    for before, after in pairwise(kept):
        dot = r"\cdot" if before.latex[-1:].isdigit() and after.latex[:1].isdigit() else r"\,"
        latex = f"{latex} {dot} {after.latex}"
    level = kept[0].level if len(kept) == 1 else PRODUCT
    return Math(latex, " ".join(factor.text for factor in kept), level, negative)


def quotient(above: Math, below: Math) -> Math:
    """A quotient on one line."""
    negative = above.negative != below.negative
    above, below = (replace(part, negative=False) for part in (above, below))
    above, below = _at_least(above, PRODUCT), _at_least(below, ATOM)
    return Math(f"{above.latex} / {below.latex}", f"{above.text}/{below.text}", PRODUCT, negative)


def fraction(above: Math, below: Math) -> Math:
    """A quotient with a bar."""
    negative = above.negative != below.negative
    above, below = (replace(part, negative=False) for part in (above, below))
    plain = f"{_at_least(above, PRODUCT).text}/{_at_least(below, ATOM).text}"
    return Math(rf"\frac{{{above.latex}}}{{{below.latex}}}", plain, PRODUCT, negative)


def squared(inner: Math) -> Math:
    """The square of any expression."""
    base = _at_least(replace(inner, negative=False) if inner.level > SUM else inner, ATOM)
    return Math(f"{{{base.latex}}}^{{2}}", f"{base.text}²")


def inner_product(left: Math, right: Math) -> Math:
    base = left.latex if "^" not in left.latex else f"{{{left.latex}}}"
    return Math(rf"{base}^{{\top}} {right.latex}", f"{left.text}·{right.text}", PRODUCT)


def infix(latex: str, text: str, *operands: Math) -> Math:
    """A relation between its operands."""
    tex, plain = zip(*(operand.signed() for operand in operands), strict=True)
    return Math(f" {latex} ".join(tex), f" {text} ".join(plain), SUM)


def call(name: str, *arguments: Math, latex: str = "") -> Math:
    """A function of its arguments; `latex` if it has a special command."""
    tex, plain = zip(*(argument.signed() for argument in arguments), strict=True) if arguments else ((), ())
    head = latex or words(name).latex
    return Math(rf"{head}\left( {', '.join(tex)} \right)", f"{name}({', '.join(plain)})")


def log(inner: Math) -> Math:
    """A logarithm; a fraction with a bar needs no brackets in LaTeX."""
    if inner.latex.startswith(r"\frac") and not inner.negative:
        return Math(rf"\log {inner.latex}", f"log({inner.text})", PRODUCT)
    return call("log", inner, latex=r"\log")


def sum_over(index: str, body: Math, among: str = "") -> Math:
    """The sum over an index, from 1 to B or `among` a set or a condition (`j \\neq i`)."""
    if body.negative:
        return negated(sum_over(index, negated(body), among))
    inner = body if body.level >= PRODUCT else bracketed(body, "[]", "[]")
    tex, plain = inner.latex, inner.text
    if not among:
        return Math(rf"\sum_{{{index}=1}}^{{B}} {tex}", f"Σ_{index} {plain}", PRODUCT)
    return under(Math(r"\sum", "Σ"), among, Math(tex, plain))


def under(operator: Math, among: str, body: Math) -> Math:
    """An operator over the indices `among` which a condition holds."""
    return Math(rf"{operator.latex}_{{{among}}} {body.latex}", f"{operator.text}_{{{readable(among)}}} {body.text}", PRODUCT)


def readable(conditions: str) -> str:
    """Conditions on an index, from LaTeX to text."""
    plain = conditions.replace(r"\neq", "≠").replace(r"\in", "∈").replace(" ", "").replace(",", ", ")
    plain = re.sub(r"\\mathrm\{(\w+)\}_\{(\w+)\}", r"\1_\2", plain)
    return re.sub(r"∈\\overline\{(\w+)\}", r" not in \1", plain)


def equation(left: Math, right: Math) -> Math:
    tex, plain = right.signed()
    return Math(f"{left.latex} = {tex}", f"{left.text} = {plain}", SUM)


def share_of(coefficient: float) -> Math:
    """A coefficient as a simple fraction where it is one."""
    exact = Fraction(coefficient).limit_denominator(1000)
    if abs(float(exact) - coefficient) > 1e-12 or exact.denominator == 1:
        return number(coefficient)
    return fraction(number(float(exact.numerator)), number(float(exact.denominator)))


def share_over(coefficient: float, size: Math) -> Math:
    """coefficient / size as one fraction."""
    exact = Fraction(coefficient).limit_denominator(1000)
    if abs(float(exact) - coefficient) > 1e-12:
        return fraction(number(coefficient), size)
    above, below = number(float(exact.numerator)), exact.denominator
    return fraction(above, size if below == 1 else Math(f"{below} {size.latex}", f"{below}{size.text}", PRODUCT))
