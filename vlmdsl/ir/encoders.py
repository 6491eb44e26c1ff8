"""The encoder of a stream: a tower, heads on its pooled features, and whether it learns, is frozen or is a teacher."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from vlmdsl.ir.node import Node
from vlmdsl.ir.ramps import Ramp
from vlmdsl.types import JOINED

if TYPE_CHECKING:
    from vlmdsl.ir.modules import CodebookSettings, TextDecoderSettings

__all__ = ["Encoder", "Head", "Teacher", "encoder_of", "head_words"]


@dataclass(frozen=True, slots=True)
class Teacher:
    """How a teacher follows its tower: weights = momentum * weights + (1 - momentum) * the tower's, once per training step.

    `order` says when: `before` the forward pass, with the weights that it will use, or `after` the optimiser step. The
    momentum is `constant`, or goes to 1 in a `cosine` over the run, from the given one, or to the given one in a `warm_up`;
    or it is a separate schedule, `ramp`.
    """

    momentum: float | Ramp
    schedule: str
    order: str


@dataclass(frozen=True, slots=True)
class Head:
    """A multilayer head: `layers` linear maps, of dimension `hidden` between them and `out` at the end; 0 is the input
    dimension.

    `norm` (`batch`, `none`) and `activation` follow every map but the last. `last_norm` follows the last one: `none`, or a
    batch norm with learned scale and offset (`batch`), scale only (`scaled`), or neither (`plain`). `bias` says which maps
    add one. Batch statistics are those of the `global` batch or of each process (`local`), of `each` view separately or of
    all views of the head (`joint`). Equal heads on equal encoders are one module; another `name` makes another one.
    """

    name: str
    layers: int
    hidden: int
    out: int
    norm: str
    last_norm: str
    activation: str
    bias: str
    statistics: str
    views: str
    frozen: bool = False

    def widths(self, entering: int) -> tuple[int, ...]:
        """The feature dimensions from input to output, one more than layers."""
        return (entering, *[self.hidden or entering] * (self.layers - 1), self.out or entering)

    @property
    def learned(self) -> Head:
        """The same weights, whether a gradient reaches them or not."""
        return replace(self, frozen=False)


@dataclass(frozen=True, slots=True)
class Encoder:
    """Attribute of an `encode` node: which tower encodes, and the heads that its pooled features go through after it.

    `tower` is `vision`, `language` or a name from the recipe; `kind` is the field type it takes, `Image|Text` for
    both; a frozen tower gets no gradient and is not optimised. With a `teacher`, a running mean of the weights of tower and
    heads encodes, without gradient. An encoder that `enters` the tower after that share of its blocks takes Regions instead
    of patches. A tower with the settings of a `decoder` is a text decoder: its states predict the next token, given a
    context that the `encode` node takes beside the text. With a `codebook` the tower is one: it gives codes, and does not
    learn.
    """

    tower: str
    kind: str
    frozen: bool = False
    teacher: Teacher | None = None
    heads: tuple[Head, ...] = ()
    enters: float | None = None
    decoder: TextDecoderSettings | None = field(default=None, metadata={"added_later": True})
    codebook: CodebookSettings | None = field(default=None, metadata={"added_later": True})

    @property
    def tower_kind(self) -> str:
        """The field type of the tower: a tower that is entered part-way is one of images."""
        return self.kind if self.enters is None else "Image"

    @property
    def takes(self) -> tuple[str, ...]:
        """The kinds of streams that it encodes: its field types, several texts if it takes one, and both joined if it has
        both."""
        kinds = tuple(self.kind.split("|"))
        several = ("Concepts",) if "Text" in kinds else ()
        return (*kinds, *several) if len(kinds) == 1 else (*kinds, *several, JOINED)

    @property
    def learns(self) -> bool:
        """Whether a gradient reaches its weights, those of the tower or of a head."""
        return self.tower_learns or (self.teacher is None and any(not head.frozen for head in self.heads))

    @property
    def tower_learns(self) -> bool:
        """Whether a gradient reaches the weights of the tower."""
        return not self.frozen and self.teacher is None

    @property
    def bare(self) -> Encoder:
        """The encoder without its heads."""
        return replace(self, heads=())

    def dimension(self, tower: int) -> int:
        """The length of its pooled features, given that of the tower's."""
        for head in self.heads:
            tower = head.widths(tower)[-1]
        return tower


def encoder_of(node: Node) -> Encoder:
    """The encoder of an `encode` node."""
    encoder = node.attribute("encoder")
    assert isinstance(encoder, Encoder)
    return encoder


def head_words(head: Head) -> str:
    """The structure of a head, in words: `linear 2048, batch norm, relu, linear 128, statistics of the global batch, each
    view separately`; a layer without a number keeps the dimension of the head's input."""
    norms = {"none": "", "batch": "batch norm", "scaled": "batch norm without offset", "plain": "batch norm without weights"}
    hidden, out = (f"linear {length or ''}".rstrip() for length in (head.hidden, head.out))
    parts = [hidden, norms[head.norm], head.activation] * (head.layers - 1) + [out, norms[head.last_norm]]
    if any("batch norm" in part for part in parts):
        whose = "the global batch" if head.statistics == "global" else "each process"
        parts.append(f"statistics of {whose}, " + ("each view separately" if head.views == "each" else "all views together"))
    return ", ".join(part for part in parts if part)
