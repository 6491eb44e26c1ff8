"""Regions and the words that name them, as mathematics."""

from __future__ import annotations

from collections.abc import Callable

from vlmdsl.backends.latex.interface import Writer
from vlmdsl.backends.latex.notation import PRODUCT, Math, call, equation, inner_product, number, total, words
from vlmdsl.ir import Node
from vlmdsl.ir.operations.detection import (
    ASSIGNED_WORDS,
    ATSS,
    BOX_ERROR,
    CENTRENESS,
    GIOU,
    MATCH_BOXES,
    MATCHED_IOU,
    SOFT_TOKEN_LOSS,
    TOKEN_CONTRAST_LOSS,
    WORD_BIAS,
)
from vlmdsl.ir.operations.encoding import ENCODE
from vlmdsl.ir.operations.grounding import ALIGNMENT, FOCAL, REGION_CONTRAST, REGION_DISTILLATION, WORD_MAP
from vlmdsl.types import TableType

__all__ = ["GROUNDING"]


def _align(writer: Writer, node: Node) -> Math:
    """The logit of region k and word l of sample i."""
    regions, entries = node.inputs
    region = writer.names.feature(regions, "ik")
    if isinstance(entries.type, TableType):
        entry = Math("c_{l}", "c_l")
        writer.names.state("features", Math(rf"{entry.latex}\ {words('entry l of the table').latex}", "c_l: entry l"))
    else:
        entry = writer.names.feature(entries, "il")
    return inner_product(region, entry)


def _word_bias(writer: Writer, node: Node) -> Math:
    logits, numbers = node.inputs
    return total(writer.expression(logits), writer.names.feature(numbers, "il"))


def _word_map(writer: Writer, node: Node) -> Math:
    """1 where word l of the text of sample i names region k."""
    assigned = node.operation is ASSIGNED_WORDS
    encode = (node.inputs[0] if assigned else node).inputs[0]
    assert encode.operation is ENCODE
    region = f"the box {writer.expression(node.inputs[1]).text}" if assigned else "region k"
    said = f"1 where word l of {writer.names.source(encode.inputs[0]).text} names {region}, else 0"
    writer.names.state("values", Math(rf"y_{{ikl}}\ {words(said).latex}", f"y_ikl: {said}"))
    return Math("y_{ikl}", "y_ikl")


def _logits(writer: Writer, letter: str, node: Node) -> Math:
    """A letter for the logits, which are stated."""
    name = Math(rf"{letter}_{{ikl}}", f"{letter}_ikl")
    writer.names.state("values", equation(name, writer.expression(node)))
    return name


def _focal(writer: Writer, node: Node) -> Math:
    logits, target = _logits(writer, "z", node.inputs[0]), writer.expression(node.inputs[1])
    gamma, alpha = node.number("gamma"), node.number("alpha")
    if node.string("by") == "softmax":
        said = "softmax over the words l of z_ikl"
        writer.names.state("values", Math(rf"p_{{ikl}}\ {words(said).latex}", f"p_ikl: {said}"))
        body = Math(
            rf"-\left(1 - p_{{ikl}} / \tilde{{y}}_{{ikl}}\right)^{{{number(gamma).latex}}}"
            r" \tilde{y}_{ikl} \log p_{ikl}",
            f"-(1 - p_ikl/y'_ikl)^{number(gamma).text} y'_ikl log p_ikl",
        )
        said = "y_ikl over the number of words of the region"
        writer.names.state("values", Math(rf"\tilde{{y}}_{{ikl}}\ {words(said).latex}", f"y'_ikl: {said}"))
    else:
        chosen = f"sigmoid({logits.text}) where {target.text} = 1, else 1 - sigmoid({logits.text})"
        writer.names.state("values", Math(rf"p_{{ikl}}\ {words(chosen).latex}", f"p_ikl: {chosen}"))
        power = (rf"(1 - p_{{ikl}})^{{{number(gamma).latex}}}", f"(1 - p_ikl)^{number(gamma).text} ") if gamma else ("", "")
        weight = ("", "")
        if alpha >= 0:
            weight = (r"\alpha_{ikl}\,", "α_ikl ")
            stated = f"{alpha:g} where {target.text} = 1, else {1 - alpha:g}"
            writer.names.state("values", Math(rf"\alpha_{{ikl}}\ {words(stated).latex}", f"α_ikl: {stated}"))
        body = Math(rf"-{weight[0]}{power[0]} \log p_{{ikl}}", f"-{weight[1]}{power[1]}log p_ikl")
    if node.string("reduction") == "sum":
        return Math(rf"\sum_{{i,k,l}} {body.latex}", f"Σ_i,k,l {body.text}", PRODUCT)
    assigned = node.inputs[1].operation is ASSIGNED_WORDS
    said = (
        f"the {'patches of the batch that have a box' if assigned else 'regions of the batch that a word names'}, at least 1"
    )
    writer.names.state("values", Math(rf"N_+\ {words(said).latex}", f"N+: {said}"))
    return Math(rf"\frac{{1}}{{N_+}} \sum_{{i,k,l}} {body.latex}", f"1/N+ Σ_i,k,l {body.text}", PRODUCT)


def _sure(writer: Writer, node: Node) -> None:
    """States the regions that count, and both distributions."""
    _logits(writer, "z", node.inputs[0])
    _logits(writer, "t", node.inputs[1])
    said = (
        f"the regions (i, k) with a largest entry of softmax_l(t_ikl) above {node.number('above'):g}; all, if there are none"
    )
    writer.names.state("values", Math(rf"K\ {words(said).latex}", f"K: {said}"))


def _distillation(writer: Writer, node: Node) -> Math:
    _sure(writer, node)
    divergence = call("KL", Math(r"\mathrm{softmax}_l\, t_{ikl}", "softmax_l t_ikl"), Math(r"z_{ikl}", "softmax_l z_ikl"))
    divergence = Math(
        r"\mathrm{KL}\left( \mathrm{softmax}_l\, t_{ikl} \,\|\, \mathrm{softmax}_l\, z_{ikl} \right)", divergence.text
    )
    return Math(rf"\frac{{1}}{{|K|}} \sum_{{(i,k) \in K}} {divergence.latex}", f"1/|K| Σ_(i,k)∈K {divergence.text}", PRODUCT)


def _contrast(writer: Writer, node: Node) -> Math:
    _sure(writer, node)
    said = "the entry l with the largest t_ikl"
    writer.names.state("values", Math(rf"c_{{ik}}\ {words(said).latex}", f"c_ik: {said}"))
    said = "how many regions in K have the entry l"
    writer.names.state("values", Math(rf"n_{{l}}\ {words(said).latex}", f"n_l: {said}"))
    inside = r"\frac{n_{c_{ik}} e^{z_{ik c_{ik}}}}{\sum_l n_l e^{z_{ikl}}}"
    text = "n_c_ik e^z_ikc_ik / Σ_l n_l e^z_ikl"
    return Math(rf"\frac{{1}}{{|K|}} \sum_{{(i,k) \in K}} -\log {inside}", f"1/|K| Σ_(i,k)∈K -log({text})", PRODUCT)


def _atss(writer: Writer, node: Node) -> Math:
    boxes = writer.expression(node.inputs[1])
    said = (
        f"the box of {boxes.text} that patch k is for, if any (ATSS, {node.number('topk'):g} candidates, anchors of"
        f" {node.number('scale'):g} patches)"
    )
    writer.names.state("values", Math(rf"a_{{ik}}\ {words(said).latex}", f"a_ik: {said}"))
    return Math("a_{ik}", "a_ik")


def _matching(writer: Writer, node: Node) -> Math:
    boxes = writer.expression(node.inputs[3])
    weights = "{} affinity with its words, {} absolute error, {} GIoU".format(
        *(f"{node.number(name):g}" for name in ("affinity", "l1", "giou"))
    )
    said = f"the box of {boxes.text} that patch k is matched with, if any (Hungarian: {weights})"
    writer.names.state("values", Math(rf"a_{{ik}}\ {words(said).latex}", f"a_ik: {said}"))
    return Math("a_{ik}", "a_ik")


def _count(writer: Writer) -> None:
    said = "the boxes of the batch, at least 1"
    writer.names.state("values", Math(rf"N\ {words(said).latex}", f"N: {said}"))


def _soft_tokens(writer: Writer, node: Node) -> Math:
    logits, target, _, assigned = node.inputs
    own, place = writer.names.feature(logits, "ik"), writer.expression(assigned)
    writer.expression(target)
    _count(writer)
    said = (
        f"y of the box {place.text} over the number of its words, with the weight 1; without a box, all on the last entry, "
        f"with the weight {node.number('without'):g}"
    )
    writer.names.state("values", Math(rf"w_{{ik}} \tilde{{y}}_{{ikl}}\ {words(said).latex}", f"w_ik y'_ikl: {said}"))
    inside = rf"-\log \mathrm{{softmax}}_l({own.latex})"
    return Math(
        rf"\frac{{1}}{{N}} \sum_{{i,k,l}} w_{{ik}} \tilde{{y}}_{{ikl}} \left({inside}\right)",
        f"1/N Σ_i,k,l w_ik y'_ikl (-log softmax_l({own.text}))",
        PRODUCT,
    )


def _token_contrast(writer: Writer, node: Node) -> Math:
    logits = writer.expression(node.inputs[0])
    writer.names.state("values", equation(Math("s_{ikl}", "s_ikl"), logits))
    writer.expression(node.inputs[1])
    _count(writer)
    said = "over all k with some y_ikl = 1, and in the other direction over all l"
    writer.names.state("values", Math(rf"\ldots\ {words(said).latex}", f"…: {said}"))
    return Math(
        r"\frac{1}{2N} \left[\sum_{i,k} \left(\log \sum_l e^{s_{ikl}} - \mathrm{mean}_{y_{ikl}=1} s_{ikl}\right)"
        r" + \sum_{i,l} \left(\log \sum_k e^{s_{ikl}} - \mathrm{mean}_{y_{ikl}=1} s_{ikl}\right)\right]",
        "1/(2N) [Σ_i,k (log Σ_l e^s_ikl - mean_y=1 s_ikl) + Σ_i,l (log Σ_k e^s_ikl - mean_y=1 s_ikl)]",
        PRODUCT,
    )


def _of_matched(writer: Writer, node: Node) -> Math:
    predicted, boxes, assigned = node.inputs
    own, place = writer.names.feature(predicted, "ik"), writer.expression(assigned)
    box = writer.expression(boxes)
    _count(writer)
    if node.operation is BOX_ERROR:
        inner = (
            rf"\| \sigma({own.latex}) - {box.latex}[{place.latex}] \|_1",
            f"‖sigmoid({own.text}) - {box.text}[{place.text}]‖_1",
        )
    else:
        inner = (
            rf"\left(1 - \mathrm{{GIoU}}(\sigma({own.latex}), {box.latex}[{place.latex}])\right)",
            f"(1 - GIoU(sigmoid({own.text}), {box.text}[{place.text}]))",
        )
    return Math(rf"\frac{{1}}{{N}} \sum_{{i,k}} {inner[0]}", f"1/N Σ_i,k {inner[1]}", PRODUCT)


def _giou(writer: Writer, node: Node) -> Math:
    predicted, boxes, assigned = node.inputs
    place = writer.expression(assigned)
    box, own = writer.expression(boxes), writer.names.feature(predicted, "ik")
    said = "how central patch k is in its box, 0 without one"
    writer.names.state("values", Math(rf"c_{{ik}}\ {words(said).latex}", f"c_ik: {said}"))
    said = f"the box that {own.text} says relative to the anchor of patch k"
    writer.names.state("values", Math(rf"\hat{{b}}_{{ik}}\ {words(said).latex}", f"b'_ik: {said}"))
    inner = rf"c_{{ik}} \left(1 - \mathrm{{GIoU}}(\hat{{b}}_{{ik}}, {box.latex}[{place.latex}])\right)"
    return Math(
        rf"\frac{{\sum_{{i,k}} {inner}}}{{\sum_{{i,k}} c_{{ik}}}}",
        f"Σ_i,k c_ik (1 - GIoU(b'_ik, {box.text}[{place.text}])) / Σ_i,k c_ik",
        PRODUCT,
    )


def _centreness(writer: Writer, node: Node) -> Math:
    predicted, _, assigned = node.inputs
    place, own = writer.expression(assigned), writer.names.feature(predicted, "ik")
    said = "how central patch k is in its box, 0 without one"
    writer.names.state("values", Math(rf"c_{{ik}}\ {words(said).latex}", f"c_ik: {said}"))
    said = f"the patches (i, k) with a box {place.text}"
    writer.names.state("values", Math(rf"A\ {words(said).latex}", f"A: {said}"))
    return Math(
        rf"\frac{{1}}{{|A|}} \sum_{{(i,k) \in A}} \mathrm{{BCE}}({own.latex}, c_{{ik}})",
        f"1/|A| Σ_(i,k)∈A BCE({own.text}, c_ik)",
        PRODUCT,
    )


GROUNDING: dict[str, Callable[[Writer, Node], Math]] = {
    ALIGNMENT: _align,
    WORD_MAP: _word_map,
    ASSIGNED_WORDS: _word_map,
    WORD_BIAS: _word_bias,
    ATSS: _atss,
    GIOU: _giou,
    CENTRENESS: _centreness,
    MATCH_BOXES: _matching,
    SOFT_TOKEN_LOSS: _soft_tokens,
    TOKEN_CONTRAST_LOSS: _token_contrast,
    BOX_ERROR: _of_matched,
    MATCHED_IOU: _of_matched,
    FOCAL: _focal,
    REGION_DISTILLATION: _distillation,
    REGION_CONTRAST: _contrast,
}
"""The rules of operations on regions and words."""
