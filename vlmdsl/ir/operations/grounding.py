"""Regions of an image and the words that name them: views of phrases as texts, region features, alignments and criteria."""

from __future__ import annotations

from vlmdsl.ir.node import Node
from vlmdsl.ir.operation import Operation, define
from vlmdsl.ir.operations.rules import NUMBER, need, one_of, take
from vlmdsl.ir.operations.views import view
from vlmdsl.types import (
    AlignmentType,
    EncodedType,
    FieldType,
    LossType,
    TableType,
    TokensType,
    Type,
    WordMapType,
)

__all__ = [
    "ALIGNMENT", "TEXT_OF", "CONCEPTS", "FOCAL", "PROMPT", "REGIONS", "REGION_CONTRAST", "REGION_DISTILLATION",
    "WORD_MAP", "names_regions",
]  # fmt: skip


def names_regions(source: Node) -> bool:
    """Whether a text knows which of its words, or which of several texts, name each region of its image."""
    return source.operation in (TEXT_OF, PROMPT, CONCEPTS)


def _boxes(kind: Type) -> None:
    need(kind == FieldType("Boxes"), f"takes Boxes, got {kind}")


def regions(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, TokensType, FieldType)
    _boxes(types[1])
    need(isinstance(types[0], TokensType) and types[0].tokens == "P", f"takes the patches of an image, got {types[0]}")
    need(min(node.number("bins"), node.number("samples")) >= 1, "has no point to read")
    return TokensType(tokens="R")


def alignment(node: Node, types: tuple[Type, ...]) -> Type:
    need(len(types) == 2, f"has {len(types)} inputs, wants 2")
    x, y = types
    need(isinstance(x, TokensType), f"aligns the regions of each sample, got {x}")
    need(isinstance(y, TokensType | TableType), f"aligns regions with words, concepts or a table, got {y}")
    assert isinstance(x, TokensType)
    words = y.tokens if isinstance(y, TokensType) else TableType().rows
    return AlignmentType(regions=x.tokens, words=words)


def word_map(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, EncodedType, FieldType)
    _boxes(types[1])
    need(names_regions(node.inputs[0].inputs[0]), "no part of this text names a region")
    assert isinstance(types[0], EncodedType)
    return WordMapType(words="N" if types[0].kind == "Concepts" else "L")


def focal(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, AlignmentType, WordMapType)
    logits, words = types
    assert isinstance(logits, AlignmentType)
    need(words == WordMapType(regions=logits.regions, words=logits.words), f"compares {logits} with {words}")
    one_of(node, "by", "sigmoid", "softmax")
    one_of(node, "reduction", "positives", "sum")
    return LossType()


def by_teacher(node: Node, types: tuple[Type, ...]) -> Type:
    take(types, AlignmentType, AlignmentType, FieldType)
    _boxes(types[2])
    need(types[0] == types[1], f"compares {types[0]} with {types[1]}")
    return LossType()


TEXT_OF = define(
    Operation(
        "text_of",
        view("Phrases", "Text"),
        per_sample_view=True,
        in_evaluation=True,
        view_word="text",
        takes="Phrases",
        gives="Text: the text that the spans are in; of a phrase per box, the phrases joined with `. `",
    )
)
PROMPT = define(
    Operation(
        "prompt",
        view("Phrases", "Text"),
        {"negatives": (int,), "full": NUMBER, "draw": (int,)},
        per_sample_view=True,
        in_evaluation=True,
        takes="Phrases",
        carries="`negatives` (the most), `full` (how often there are so many), `draw`",
        gives="Text: the names of the boxes and names of others, shuffled and joined with `. `",
    )
)
CONCEPTS = define(
    Operation(
        "concepts",
        view("Phrases", "Concepts"),
        {"count": (int,), "defined": (bool,), "draw": (int,)},
        per_sample_view=True,
        in_evaluation=True,
        takes="Phrases",
        carries="`count` (N), `defined` (whether definitions take the place of names), `draw`",
        gives="Concepts: the names of the boxes, and names of others up to N, each as a separate text",
    )
)
REGIONS = define(
    Operation(
        "regions",
        regions,
        {"bins": (int,), "samples": (int,)},
        per_sample=True,
        passes_features=True,
        takes="Tokens of the patches of an image, Boxes",
        carries="`bins` along a side of each box, `samples` along a side of each bin",
        gives="Tokens of regions: the mean of the patch features at points spread over each box (RoIAlign)",
    )
)
ALIGNMENT = define(
    Operation(
        "alignment",
        alignment,
        compares=True,
        multiplies=True,
        per_sample=True,
        takes="Tokens of regions, Tokens of a text or concepts, or a Table",
        gives="Alignment: the product of each region with each word of its sample",
    )
)
WORD_MAP = define(
    Operation(
        "word_map",
        word_map,
        stops_gradient=True,
        takes="encode of a text that names regions, Boxes",
        gives="WordMap: which tokens of the text, or which of several texts, name each box",
    )
)
FOCAL = define(
    Operation(
        "focal",
        focal,
        {"alpha": NUMBER, "gamma": NUMBER, "by": (str,), "reduction": (str,)},
        counts="region with a word",
        takes="Alignment, WordMap",
        carries="`alpha` (negative: no weights), `gamma`; `by` (`sigmoid`, `softmax`); `reduction` (`positives`, `sum`)",
        gives=(
            "Loss: the focal loss of all words of all regions, over the regions of the global batch that have a word, or of"
            " points over those that have a box"
        ),
    )
)
REGION_DISTILLATION = define(
    Operation(
        "region_distillation",
        by_teacher,
        {"above": NUMBER},
        counts="region",
        takes="Alignment, Alignment of the teacher, Boxes",
        carries="`above`: the least probability of a concept for the regions that count",
        gives=(
            "Loss: the mean divergence of the softmax of each region from the teacher's, over the regions of which the"
            " teacher is sure; all regions if it is sure of none"
        ),
    )
)
REGION_CONTRAST = define(
    Operation(
        "region_contrast",
        by_teacher,
        {"above": NUMBER},
        counts="region",
        takes="Alignment, Alignment of the teacher, Boxes",
        carries="`above`, as for `region_distillation`",
        gives=(
            "Loss: each region against the concepts that the teacher assigns to all regions that count, as often as it"
            " assigns them; the mean cross-entropy of those with the concept of the region"
        ),
    )
)
