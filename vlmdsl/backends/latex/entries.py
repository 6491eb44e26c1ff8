"""Entries of similarity matrices and of targets at (row, column)."""

from __future__ import annotations

from vlmdsl.backends.latex.arithmetic import ARITHMETIC, scaled
from vlmdsl.backends.latex.columns import columns_of
from vlmdsl.backends.latex.draws import partner_of
from vlmdsl.backends.latex.interface import Part, Writer
from vlmdsl.backends.latex.notation import (
    Math,
    call,
    equation,
    fraction,
    infix,
    inner_product,
    negated,
    number,
    product,
    quotient,
    readable,
    symbol,
    total,
    words,
)
from vlmdsl.ir import Node, block_of
from vlmdsl.ir.operations.matrices import REUSE, SCORE, SIMILARITY, TRANSPOSE, UNITE
from vlmdsl.ir.operations.scalars import MULTIPLY
from vlmdsl.ir.operations.targets import FLIPPED, PAIRED, SAME, SMOOTH, SOFTMAX
from vlmdsl.types import SimType, TargetType, TokensType, VecType

__all__ = [
    "POSITIVES",
    "SIZE",
    "dense_entry",
    "has_two_sides",
    "matrix_entry",
    "positives",
    "settings_of",
    "target_part",
]

SIZE = symbol("B")


def matrix_entry(writer: Writer, node: Node, row: str, column: str, direction: str) -> Math:
    """Entry (row, column) of the matrix that `direction` reads."""
    if node.operation in (SIMILARITY, SCORE):
        return _compared(writer, node, row, column, direction)
    if node.operation is TRANSPOSE:
        other = "columns" if direction == "rows" else "rows"
        return matrix_entry(writer, node.inputs[0], column, row, other)
    if node.operation is REUSE:
        return matrix_entry(writer, node.inputs[0], row, column, node.string("matrix"))
    if node.operation.excludes:
        return matrix_entry(writer, node.inputs[0], row, column, direction)
    if node.operation is MULTIPLY and not isinstance(node.inputs[1].type, SimType):
        return scaled(writer, matrix_entry(writer, node.inputs[0], row, column, direction), node.inputs[1])
    parts = [
        matrix_entry(writer, parent, row, column, direction)
        if isinstance(parent.type, SimType)
        else writer.expression(parent)
        for parent in node.inputs
    ]
    rule = ARITHMETIC.get(node.operation)
    return call(node.operation, *parts) if rule is None else rule(*parts)


def _compared(writer: Writer, node: Node, row: str, column: str, direction: str) -> Math:
    x, y = node.inputs
    by = node.string("by")
    if isinstance(x.type, VecType):  # against another, or against the entries of a memory
        left, right = writer.names.feature(x, row), writer.names.feature(y, column)
        if by == "dot":
            return inner_product(left, right)
        if by == "euclidean":
            tex = rf"\| {left.latex} - {right.latex} \|^{{2}}"
            distance = Math(tex, f"‖{left.text} - {right.text}‖²", negative=True)
            return distance if not node.attribute("arguments") else fraction(distance, symbol("D"))
        return call(by, left, right)
    assert isinstance(x.type, TokensType)
    side = direction if by == "tokenmax" else "rows"
    key = (x, y, by, node.attribute("arguments"))
    return writer.matrix(key, side, lambda name: _token_matrix(writer, node, side, name), row, column)


def _token_matrix(writer: Writer, node: Node, side: str, left: Math) -> Math:
    """The definition of a matrix that compares tokens."""
    x, y = (writer.names.feature(parent, index) for parent, index in zip(node.inputs, ("ik", "jl"), strict=True))
    pair = inner_product(x, y)
    by = node.string("by")
    if by == "tokenmax" and side == "rows":
        among = _kept_tokens(writer, node, "l", "j")
        tex, plain = rf"\frac{{1}}{{n_i}} \sum_{{k=1}}^{{n_i}} \max_{{{among.latex}}}", f"1/n_i Σ_k max_{among.text}"
    elif by == "tokenmax":
        among = _kept_tokens(writer, node, "k", "i")
        tex, plain = rf"\frac{{1}}{{m_j}} \sum_{{l=1}}^{{m_j}} \max_{{{among.latex}}}", f"1/m_j Σ_l max_{among.text}"
    elif by == "tokenmean":
        tex, plain = r"\frac{1}{n_i m_j} \sum_{k,l}", "1/(n_i m_j) Σ_k,l"
    else:
        rows, columns = (writer.names.feature(parent, index) for parent, index in zip(node.inputs, ("i", "j"), strict=True))
        return equation(left, call(by, rows, columns))
    writer.names.state("features", Math(rf"n_i,\ m_j\ {_COUNTS.latex}", f"n_i, m_j {_COUNTS.text}"))
    return equation(left, Math(f"{tex} {pair.latex}", f"{plain} {pair.text}"))


def _kept_tokens(writer: Writer, node: Node, token: str, sample: str) -> Math:
    """The tokens of a maximum: all, or those that are kept; states which."""
    arguments = node.attribute("arguments")
    assert isinstance(arguments, tuple)
    chosen = dict(arguments)
    if not chosen:
        return Math(token, token)
    much = [f"{chosen['share'] * 100:g} %"] if "share" in chosen else []
    much += [f"at most {chosen['count']}"] if "count" in chosen else []
    closest = "the largest similarity to any token of the other stream in the batch"
    if chosen.get("rank") == "partner":
        closest = "the largest sum of similarities to the tokens of their own pair"
    said = f"{' and '.join(much)} of the tokens of sample {sample}, rounded up: those with {closest}"
    name = {"i": "V_i", "j": "R_j"}[sample]
    letter = Math(name, name)
    writer.names.state("features", Math(rf"{letter.latex}\ {words(said).latex}", f"{letter.text}: {said}"))
    return Math(rf"{token} \in {letter.latex}", f"{token}∈{letter.text}")


_COUNTS = words("the numbers of tokens of a sample in the first and second stream, without padding")


def _same_place(relation: str, plain: str) -> Math:
    return Math(f"[i {relation} j]", f"[i {plain} j]")


POSITIVES = Math(r"P_i", "P_i")
"""The samples of the same class as sample i, itself included."""


def positives(writer: Writer, label: Node, missing: int) -> Math:
    """The set of the same class, defined."""
    name = writer.names.source(label)
    other = name.latex.removesuffix("_i") + "_j"
    plain = name.text.removesuffix("_i") + "_j"
    tex = rf"P_i = \{{ j : {other} = {name.latex} \}},\ \mathrm{{only\ itself\ for\ a\ sample\ without\ label\ ({missing})}}"
    text = f"P_i = {{j : {plain} = {name.text}}}, only itself for a sample without label ({missing})"
    writer.names.state("values", Math(tex, text))
    return POSITIVES


def earlier_positives(writer: Writer, target: Node) -> Math:
    """The set of the entries of a queue that are of the same class, defined."""
    label, labels = writer.names.source(target.inputs[0]), words(target.inputs[1].string("name"))
    tex = rf"E_i = \{{ j : {labels.latex}_j = {label.latex} \}}"
    writer.names.state("values", Math(tex, f"E_i = {{j : {labels.text}_j = {label.text}}}"))
    return Math("E_i", "E_i")


def target_part(writer: Writer, part: Part) -> Math:
    """Entry (i, j) of one summand of a target, times its coefficient."""
    kind, node, share = part.kind, part.node, number(part.coefficient)
    if kind == "paired":
        return product(share, _same_place("=", "="))
    if kind == "uniform":
        return fraction(share, SIZE)
    if kind == "others":
        return fraction(product(share, _same_place(r"\neq", "≠")), total(SIZE, negated(number(1.0))))
    assert node is not None
    if kind == "dense":
        return product(share, dense_entry(writer, node, part.side, part.block))
    members = positives(writer, node, part.missing)
    return fraction(product(share, _chosen(members)), _size(members))


def _chosen(members: Math) -> Math:
    return Math(rf"[j \in {members.latex}]", f"[j ∈ {members.text}]")


def _size(members: Math) -> Math:
    return Math(f"|{members.latex}|", f"|{members.text}|")


def _class_entry(writer: Writer, target: Node, block: int) -> Math:
    """Equal shares of a class: of the batch, or of the batch (block 0) and the entries of a queue (block 1)."""
    missing = int(target.number("missing"))
    if len(target.inputs) == 1:
        return target_part(writer, Part("same", 1.0, target.inputs[0], missing))
    sets = positives(writer, target.inputs[0], missing), earlier_positives(writer, target)
    return fraction(_chosen(sets[block]), total(*map(_size, sets)))


def settings_of(node: Node) -> list[Math]:
    """The arguments of a plug-in's function that differ from their defaults, by name."""
    return [infix("=", "=", words(name), words(str(value))) for name, value in node.attributes]


def has_two_sides(target: Node) -> bool:
    """Whether the directions of a target are different matrices."""
    return target.operation.of_matrix or any(map(has_two_sides, target.inputs))


def _soft_entry(writer: Writer, target: Node, side: str, block: int) -> Math:
    """An entry of a softmax or a transport plan of an affinity, in one of the kinds of columns that stand side by side."""
    kinds = columns_of(writer, target.inputs[0], side, stopped=True)
    own = kinds[block]
    inner = own.entry("j")
    if len(kinds) > 1:
        sums = total(*(kind.exponentials("k") for kind in kinds))
        entry = fraction(call("exp", inner, latex=r"\exp"), sums)
        among = own.among("j")
        return product(Math(f"[{among}]", f"[{readable(among)}]"), entry) if own.restricted else entry
    index = own.among("j") or "j"
    plain = readable(index)
    if target.operation is SOFTMAX:
        return call(f"softmax_{{{plain}}}", inner, latex=rf"\mathrm{{softmax}}_{{{index}}}")
    rounds = int(target.number("iterations"))
    said = f"transport: exp with its rows and columns scaled to equal sums in turn, {rounds} times, then each sample's to 1"
    writer.names.state("values", words(said))
    scaled_inner = quotient(inner, number(target.number("epsilon")))
    return call(f"transport_{{{plain}}}", scaled_inner, latex=rf"\mathrm{{transport}}_{{{index}}}")


def _flipped_entry(writer: Writer, target: Node) -> Math:
    """1 for a sample and its partner in the batch, or in blocks of it, read backwards."""
    if not block_of(target):
        return Math("[i + j = B + 1]", "[i + j = B + 1]")
    place = partner_of(writer.names.state, target, "i")
    return Math(f"[j = {place.latex}]", f"[j = {place.text}]")


def dense_entry(writer: Writer, target: Node, side: str = "rows", block: int = 0) -> Math:
    """Entry (i, j) of a target that is not a sum of the simple kinds, in the columns `block`."""
    if target.operation is FLIPPED:
        return _flipped_entry(writer, target)
    if target.operation.of_matrix:
        return _soft_entry(writer, target, side, block)
    if target.operation is PAIRED:
        return target_part(writer, Part("paired", 1.0, None, -1))
    if target.operation is SAME:
        return _class_entry(writer, target, block)
    if target.operation is UNITE:
        first, second = target.inputs
        assert isinstance(first.type, TargetType)
        before = first.type.columns.count("+") + 1
        half, place = (first, block) if block < before else (second, block - before)
        return dense_entry(writer, half, side, place)
    return _composed_entry(writer, target, side, block)


def _smoothed_entry(writer: Writer, target: Node, side: str) -> Math:
    """An entry of a target of which a number, or one of each sample, is spread evenly."""
    smoothed, *computed = target.inputs
    kind, entry = "uniform" if target.string("over") == "all" else "others", dense_entry(writer, smoothed, side)
    if not computed:
        epsilon = target.number("epsilon")
        return total(product(number(1 - epsilon), entry), target_part(writer, Part(kind, epsilon, None, -1)))
    share = writer.expression(computed[0])
    spread = target_part(writer, Part(kind, 1.0, None, -1))
    return total(product(total(number(1.0), negated(share)), entry), product(share, spread))


def _composed_entry(writer: Writer, target: Node, side: str, block: int) -> Math:
    """An entry of a target that is computed elementwise from others, or by a plug-in from the values of rows and columns."""
    if target.operation.module:
        row, column = ("i", "j") if side == "rows" else ("j", "i")
        (values,) = target.inputs
        return call(target.operation, writer.argument(values, row), writer.argument(values, column), *settings_of(target))
    if target.operation is SMOOTH:
        return _smoothed_entry(writer, target, side)
    parts = [
        dense_entry(writer, parent, side, block) if parent.type == target.type else writer.expression(parent)
        for parent in target.inputs
    ]
    rule = ARITHMETIC.get(target.operation)
    return call(target.operation, *parts) if rule is None else rule(*parts)
