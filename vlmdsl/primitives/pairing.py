"""Texts swapped with those of other samples, and matching where it is known which texts are those of their images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import Field

from vlmdsl.ir import Head, Module, Node, Use, root_field, walk
from vlmdsl.ir.operations.modules import APPLY, OWN, use_of
from vlmdsl.ir.operations.views import FIELD, SWAP
from vlmdsl.primitives.faults import bad_value, wrong_type
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.samples import SAMPLES, chosen_samples
from vlmdsl.primitives.spec import Builder, Parameters, Primitive, Subject
from vlmdsl.primitives.values import Value
from vlmdsl.types import EncodedType

_MATCHING = Head("matching", 2, 0, 2, "none", "none", "tanh", "all", "global", "each")
"""The head of matching: two linear maps with a tanh between them, to two logits, the second of which stands for a match."""


class SwapParameters(Parameters):
    """Arguments of `swap`."""

    share: float = Field(default=0.1, gt=0.0, lt=1.0, description="the probability of another sample's text")


def _swap(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    text = subjects["text"]
    assert isinstance(text, Node)
    assert isinstance(parameters, SwapParameters)
    if text.operation is not FIELD:
        raise bad_value(builder, "text", "swap", "it is a view: swap the text first, and then take views of it")
    return builder.add("swap", text, share=float(parameters.share), draw=builder.draw())


register(
    Primitive(
        name="swap",
        family="views",
        summary=(
            "The text, or with some probability the text of another sample of the data, drawn again in each epoch (FLAVA). "
            "`matches` says which it is; evaluation uses the sample's own."
        ),
        meaning=_swap,
        subjects=(Subject("text", ("Text",), "the text"),),
        parameters=SwapParameters,
        formula=r"t_i \text{ or } t_j",
        cost="none",
        example="let caption = swap(text)\nminimize contrast(image, caption, queries=matches(caption))",
        view_of="Text",
    )
)


def _matches(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    text = subjects["text"]
    assert isinstance(text, Node)
    if text.operation is not SWAP:
        help = ("name the text, `let caption = swap(text)`, and use it here, too",)
        raise bad_value(builder, "text", "matches", "it is always the text of the sample", *help)
    return builder.add("own", text, name=f"{root_field(text).string('name')}_own")


register(
    Primitive(
        name="matches",
        family="views",
        summary="Whether a text is that of the sample, and not one that `swap` took from another.",
        meaning=_matches,
        subjects=(Subject("text", ("Text",), "a swapped text, before any view of it"),),
        formula=r"t_i = t_i^{\mathrm{own}}",
        cost="none",
        example="let caption = swap(text)\nminimize contrast(image, caption, queries=matches(caption))",
    )
)


def _matching(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    pairs, truth = subjects["pairs"], subjects["truth"]
    if not isinstance(pairs, Node) or pairs.operation is not APPLY or pairs.type != EncodedType("Text"):
        raise wrong_type(builder, "pairs", "matching", pairs, "a text given an image, `text | image`")
    assert isinstance(truth, Node)
    swapped, said = _swaps([pairs]), _swaps(node for node in walk([truth]) if node.operation is OWN)
    if swapped != said:
        reason = "it does not say which texts of the pairs are swapped"
        help = ("name the text, `let caption = swap(text)`, and write `matching(caption | image, matches(caption))`",)
        raise bad_value(builder, "truth", "matching", reason, *help)
    head = Module(_MATCHING.name, "head", _MATCHING, on=use_of(pairs).module)
    logits = builder.add("apply", builder.add("pooled", pairs), use=Use(head))
    return builder.add("matching", logits, truth, *chosen_samples(builder, subjects, "matching"))


def _swaps(nodes: Iterable[Node]) -> set[Node]:
    """The swapped texts below nodes."""
    return {node for node in walk(nodes) if node.operation is SWAP}


register(
    Primitive(
        name="matching",
        family="fusion",
        summary=(
            "Image-text matching where it is known which texts are their images': a head of two linear maps with a tanh "
            "between them on a text given an image; the mean cross-entropy over all samples (FLAVA)."
        ),
        meaning=_matching,
        subjects=(
            Subject("pairs", ("Encoded",), "texts given images"),
            Subject("truth", ("Condition", "Flag"), "which of them belong together"),
            *SAMPLES,
        ),
        formula=r"-\frac{1}{N} \sum_i \log p(m_i \mid t_i, x_i)",
        cost="the head",
        example=(
            "recipe pairs(image: Image, text: Text, match: Flag)\nencoder fusion = fuse(depth=2)\n"
            "minimize matching(text | image, match)"
        ),
    )
)
