"""The formula of a program: the objective, its terms, and the definitions of all symbols."""

from __future__ import annotations

from dataclasses import dataclass

from vlmdsl.backends.latex.notation import Math, bracketed, equation, negated, product, share_of, total, words
from vlmdsl.backends.latex.writer import FormulaWriter
from vlmdsl.ir import Node, Program
from vlmdsl.passes.contrast import contrast
from vlmdsl.passes.dead import dead
from vlmdsl.passes.fold import fold
from vlmdsl.passes.share import share

__all__ = ["formula", "formula_lines", "formula_text"]


_LONGEST = 20_000
"""Most operations in a formula; that of a bundled recipe has a few hundred."""


@dataclass(frozen=True)
class _Document:
    """Equations first, then the definitions of their symbols."""

    equations: tuple[Math, ...]
    where: tuple[Math, ...]


def formula(program: Program) -> str:
    """The objective as LaTeX: an `aligned` block of equations, then of definitions.

    Takes the program before passes.
    """
    document = _document(program)
    lines = [*document.equations, *document.where]
    body = " \\\\\n".join("  " + _aligned(line.latex) for line in lines)
    return "\\begin{aligned}\n" + body + "\n\\end{aligned}"


def formula_lines(program: Program) -> list[str]:
    """The same, one equation per line, in LaTeX that matplotlib's mathtext renders."""
    document = _document(program)
    return [line.latex for line in (*document.equations, *document.where)]


def formula_text(program: Program) -> str:
    """The objective in plain text, one equation per line, then the list of symbols."""
    document = _document(program)
    lines = [line.text for line in document.equations]
    if document.where:
        lines += ["where", *("  " + line.text for line in document.where)]
    return "\n".join(lines) + "\n"


def _document(program: Program) -> _Document:
    prepared = dead(contrast(share(fold(program))))
    name = Math(r"\mathcal{L}", "L")
    if _written_out(prepared) > _LONGEST:
        return _Document(
            (equation(name, Math(words("too long to be written out").latex, "too long to be written out")),), ()
        )
    writer = FormulaWriter(prepared)
    if len(prepared.terms) == 1:
        equations = [equation(name, _loss(writer, prepared.terms[0].node))]
    else:
        parts = [Math(rf"\mathcal{{L}}_{{{words(term.name).latex}}}", f"L_{term.name}") for term in prepared.terms]
        equations = [equation(name, total(*parts))]
        equations += [equation(part, _loss(writer, term.node)) for part, term in zip(parts, prepared.terms, strict=True)]
    statements = writer.names.statements
    where = tuple(statement for group in ("values", "features", "parameters") for statement in statements[group])
    return _Document((*equations, *statements["functions"]), where)


def _written_out(program: Program) -> int:
    """The number of operations if shared values are written out: it doubles with every `let a = b + b`."""
    sizes: dict[Node, int] = {}
    for node in program.nodes():
        sizes[node] = 1 + sum(sizes[parent] for parent in node.inputs)
    return max(sizes.values(), default=0)


def _loss(writer: FormulaWriter, root: Node) -> Math:
    """A loss; equal coefficients of functions are factored out: 1/2 [ f + g ]."""
    summands = [(writer.regions.share(node), node, minus) for node, minus in _summands(root)]
    shares = {share for share, _, _ in summands}
    common = shares.pop() if len(shares) == 1 and len(summands) > 1 else 1.0
    parts = [writer.regions.loss(node, share / common) for share, node, _ in summands]
    sum_of_all = total(*(negated(part) if minus else part for part, (_, _, minus) in zip(parts, summands, strict=True)))
    return sum_of_all if common == 1.0 else product(share_of(common), bracketed(sum_of_all, "[]", "[]"))


def _summands(root: Node) -> list[tuple[Node, bool]]:
    """The summands of a loss, and which of them are subtracted; a long sum is not a deep recursion."""
    summands: list[tuple[Node, bool]] = []
    stack: list[tuple[Node, bool]] = [(root, False)]
    while stack:
        node, minus = stack.pop()
        if len(node.operation.signs) == 2:
            stack += [(node.inputs[1], minus != (node.operation.signs[1] < 0)), (node.inputs[0], minus)]
        else:
            summands.append((node, minus))
    return summands


def _aligned(line: str) -> str:
    """Align a line at its first relation."""
    for relation in (r" \leftarrow ", " = ", r" \sim "):
        left, sign, right = line.partition(relation)
        if sign:
            return f"{left} &{relation.strip()} {right}"
    return "&" + line
