"""Regions of an image, their logits against words, and criteria over these (GLIP, DetCLIP, RegionCLIP, FIBER)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from vlmdsl.ir import Node
from vlmdsl.primitives.correspondence import check_patches, check_regions, check_words
from vlmdsl.primitives.faults import wrong_type
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Meaning, Parameters, Primitive, Subject
from vlmdsl.primitives.values import Value
from vlmdsl.types import TableType

_BOXES = Subject("boxes", ("Boxes",), "the boxes of the regions")


class RegionsParameters(Parameters):
    """Arguments of `regions`."""

    bins: int = Field(default=2, ge=1, le=14, description="parts along each side of a box")
    samples: int = Field(default=2, ge=1, le=8, description="points along each side of a part")


def _regions(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    patches, boxes = builder.tokens(subjects["image"], "image", "regions"), subjects["boxes"]
    assert isinstance(boxes, Node)
    assert isinstance(parameters, RegionsParameters)
    check_patches(builder, patches, "image", "regions", "an Image, or the patches of one")
    return builder.add("regions", patches, boxes, bins=parameters.bins, samples=parameters.samples)


register(
    Primitive(
        name="regions",
        family="grounding",
        summary=(
            "A feature of each box of an image: the mean of the tower's patch features at points spread over the box, with "
            "bilinear interpolation (RoIAlign)."
        ),
        meaning=_regions,
        subjects=(Subject("image", ("Encoded", "Image", "Tokens"), "the image, or a tower's output for it"), _BOXES),
        parameters=RegionsParameters,
        formula=r"r_{ik} = \frac{1}{n} \sum_{u \in \mathrm{grid}(b_{ik})} f(x_i)(u)",
        cost="2 R P D FLOPs per sample",
        example=(
            "recipe grounded(image: Image, boxes: Boxes, phrases: Phrases)\nlet words = language(text_of(phrases))\n"
            "minimize focal(alignment(regions(image, boxes), words), word_map(words, boxes))"
        ),
    )
)


def _align(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    regions = builder.tokens(subjects["regions"], "regions", "alignment")
    words = subjects["words"]
    if not (isinstance(words, Node) and isinstance(words.type, TableType)):
        words = builder.tokens(words, "words", "alignment")
    return builder.add("alignment", regions, words)


register(
    Primitive(
        name="alignment",
        family="grounding",
        summary=(
            "The product of each region of an image with each word of its text, each of its concepts or each entry of a "
            "table: logits, which are divided by a temperature and shifted as a similarity is."
        ),
        meaning=_align,
        subjects=(
            Subject("regions", ("Tokens", "Encoded", "Image"), "regions of the image, or its patches"),
            Subject("words", ("Tokens", "Encoded", "Text", "Concepts", "Table"), "words of the text, concepts, or a table"),
        ),
        formula=r"z_{ikl} = \langle r_{ik}, w_{il} \rangle",
        cost="2 R L D FLOPs and R L numbers per sample",
        example=(
            "recipe grounded(image: Image, boxes: Boxes, phrases: Phrases)\nlet words = language(text_of(phrases))\n"
            "minimize focal(alignment(regions(image, boxes), words) / learned(1), word_map(words, boxes))"
        ),
    )
)


class FocalParameters(Parameters):
    """Arguments of `focal`."""

    alpha: float = Field(default=0.25, ge=-1.0, le=1.0, description="weight of positives, 1 - alpha of others; -1: none")
    gamma: float = Field(default=2.0, ge=0.0, le=10.0, description="power of the probability that is missing")
    by: Literal["sigmoid", "softmax"] = Field(
        default="sigmoid",
        description="`sigmoid`: each word is a separate yes or no; `softmax`: a region has a distribution over the words",
    )
    reduction: Literal["positives", "sum"] = Field(
        default="positives",
        description=(
            "`positives`: divided by the regions of the global batch with a word, or of points by those with a box, at "
            "least 1; `sum`: not divided"
        ),
    )


def _focal(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    logits, target = subjects["logits"], subjects["target"]
    assert isinstance(logits, Node)
    assert isinstance(target, Node)
    assert isinstance(parameters, FocalParameters)
    values = parameters.model_dump()
    values |= {name: float(values[name]) for name in ("alpha", "gamma")}
    check_words(builder, logits, target, "target", "focal")
    return builder.add("focal", logits, target, **values)


register(
    Primitive(
        name="focal",
        family="grounding",
        summary=(
            "The focal loss of the words of each region: a sum over all words of all regions that are not padding, divided "
            "by the number of regions of the global batch that have a word, or, of points, that have a box. With "
            "`alpha=-1, gamma=0` plain binary cross-entropy."
        ),
        meaning=_focal,
        subjects=(
            Subject("logits", ("Alignment",), "logits of regions and words"),
            Subject("target", ("WordMap",), "which words name each region"),
        ),
        parameters=FocalParameters,
        laws=("permutation", "non_negative"),
        formula=r"\frac{1}{N_+} \sum_{i,k,l} -\alpha_{ikl} (1 - p_{ikl})^\gamma \log p_{ikl}",
        cost="R L numbers per sample",
        example=(
            "recipe grounded(image: Image, boxes: Boxes, phrases: Phrases)\nlet words = language(text_of(phrases))\n"
            "minimize focal(alignment(regions(image, boxes), words), word_map(words, boxes), alpha=25%, gamma=2)"
        ),
    )
)


class SureParameters(Parameters):
    """Arguments of criteria over regions that a teacher names."""

    above: float = Field(
        default=0.1,
        ge=0.0,
        lt=1.0,
        description="a region counts where the teacher gives an entry a higher probability; if none has one, all count",
    )


_BY_TEACHER = (
    Subject("logits", ("Alignment",), "logits of regions and the entries of a table"),
    Subject("teacher", ("Alignment",), "those of the teacher"),
    _BOXES,
)


def _by_teacher(operation: str) -> Meaning:
    def meaning(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
        logits, teacher, boxes = (subjects[name] for name in ("logits", "teacher", "boxes"))
        assert isinstance(logits, Node)
        assert isinstance(teacher, Node)
        assert isinstance(boxes, Node)
        assert isinstance(parameters, SureParameters)
        if logits.type != teacher.type:
            raise wrong_type(builder, "teacher", operation, teacher, f"the teacher's {logits.type}")
        for argument, own in (("logits", logits), ("teacher", teacher)):
            check_regions(builder, own, boxes, argument, operation)
        return builder.add(operation, logits, builder.add("stop", teacher), boxes, above=float(parameters.above))

    return meaning


_EXAMPLE = (
    "recipe distilled(image: Image, boxes: Boxes, phrases: Phrases)\nencoder elder = ema(vision)\n"
    "let names = language(concepts(phrases, count=8))\nlet student = alignment(regions(image, boxes), names) / 0.1\n"
    "let teacher = alignment(regions(elder(image), boxes), names) / 0.1\nminimize {}(student, teacher, boxes)"
)

register(
    Primitive(
        name="region_distillation",
        family="grounding",
        summary=(
            "The divergence of the softmax of each region over concepts from that of a teacher, averaged over the regions "
            "of the global batch of which the teacher is sure (RegionCLIP)."
        ),
        meaning=_by_teacher("region_distillation"),
        subjects=_BY_TEACHER,
        parameters=SureParameters,
        laws=("permutation", "non_negative"),
        formula=r"\frac{1}{|K|} \sum_{(i,k) \in K} \mathrm{KL}(\bar{p}_{ik} \| p_{ik})",
        cost="R K numbers per sample",
        example=_EXAMPLE.format("region_distillation"),
    )
)

register(
    Primitive(
        name="region_contrast",
        family="grounding",
        summary=(
            "Each region against the concepts that the teacher assigns to the regions of the global batch of which it is "
            "sure: those with the same concept are positives together, in one direction (RegionCLIP)."
        ),
        meaning=_by_teacher("region_contrast"),
        subjects=_BY_TEACHER,
        parameters=SureParameters,
        laws=("permutation", "non_negative"),
        formula=(
            r"-\frac{1}{|K|} \sum_{j \in K} \log \frac{n_{c_j} e^{z_{j c_j}}}{\sum_l n_l e^{z_{jl}}}, \quad"
            r" c_j = \arg\max_l \bar{p}_{jl}, \; n_l = |\{j : c_j = l\}|"
        ),
        cost="R K numbers per sample",
        example=_EXAMPLE.format("region_contrast"),
    )
)
