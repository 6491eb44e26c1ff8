"""The sizes that a plan is made for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from vlmdsl.ir import Node, Update, encoder_of, walk
from vlmdsl.ir.operations.encoding import ENCODE, POOLED
from vlmdsl.ir.operations.mining import FETCH, MINE
from vlmdsl.ir.operations.reference import TAKE
from vlmdsl.ir.operations.views import BLEND, DROP
from vlmdsl.types import InputsType, LabelsType, SimType, TokensType, column_count

__all__ = ["ITEM_BYTES", "SMALLEST", "Workload", "entry_bytes", "picks_per_sample", "seen_by"]

ITEM_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
"""Data types that features may have, with the bytes of one number."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The sizes a plan is made for: `batch` samples on `world` processes, features of `dim`, tokens per sample, vocabulary
    entries, samples of a reference set; the kind of device; the side of images in pixels; and how many samples of a process
    go through the towers at once (`micro`; None: all). `text_blocks` is the depth of a text tower, for modules that share
    its blocks: that of BERT."""

    batch: int
    world: int
    dim: int
    dtype: str
    image_tokens: int
    text_tokens: int
    vocabulary: int = 49_408
    references: int = 65_536
    device: str = "cpu"
    image_size: int = 224
    micro: int | None = None
    text_blocks: int = 12

    @property
    def patch_numbers(self) -> int:
        """Number of values in one patch of an image, with 3 channels per pixel."""
        return 3 * round(self.image_size / math.sqrt(self.image_tokens)) ** 2

    def input_bytes(self, kind: str) -> int:
        """Bytes of an image in float32, or of the token ids and the mask of a text."""
        return 9 * self.text_tokens if kind == "Text" else 12 * self.image_size**2

    @property
    def entries(self) -> int:
        """Entries of this process's part of a similarity matrix: b B."""
        return self.batch // self.world * self.batch

    def entries_of(self, matrix: SimType) -> int:
        """Entries of this process's part of a matrix, whose columns may be several batches side by side, or a memory."""
        return self.batch // self.world * column_count(matrix.columns, self.batch)

    @property
    def item(self) -> int:
        return ITEM_BYTES[self.dtype]

    @property
    def unit(self) -> int:
        """FLOP of one product over this process's part of the similarity matrix: 2 b B D."""
        return 2 * self.entries * self.dim

    def tokens(self, node: Node) -> int:
        """Tokens per sample, without dropped patches; 1 for pooled features. Kinds of unknown length count as a text."""
        if not isinstance(node.type, TokensType):
            return 1
        if node.type.tokens == "K":
            return _picked(node)
        sources, patches = list(walk([node])), self.image_tokens
        for source in sources:
            patches = int(patches * (1 - source.number("share"))) if source.operation is DROP else patches
        sizes = {"P": patches, "L": self.text_tokens, "J": patches + self.text_tokens}
        if any(source.operation is BLEND for source in sources):
            sizes["J"] = max(patches, self.text_tokens)
        return sizes.get(node.type.tokens, self.text_tokens)

    def received(self, whole: int, *, reduced: bool = False) -> int:
        """Bytes that each process receives when `whole` is gathered or scattered; an all-reduce does both."""
        return (2 if reduced else 1) * whole * (self.world - 1) // self.world


SMALLEST = Workload(1, 1, 1, "float32", 1, 1)
"""One sample: the workload to plan for if sizes are unknown."""


def seen_by(node: Node, workload: Workload) -> Workload:
    """The workload with the dimension of the features of a node: that of a head, if they come from one."""
    encodes = (feature.inputs[0] for feature in walk([node]) if feature.operation is POOLED)
    lengths = (encoder_of(encode).dimension(workload.dim) for encode in encodes if encode.operation is ENCODE)
    return replace(workload, dim=next(lengths, workload.dim))


def entry_bytes(update: Update, workload: Workload) -> int:
    """The bytes of an entry of a queue: of an input, of a label or key, or of features in float32."""
    kept = update.state.type
    if isinstance(kept, InputsType):
        return workload.input_bytes(kept.kind)
    return 8 if isinstance(kept, LabelsType) else seen_by(update.node, workload).dim * ITEM_BYTES["float32"]


def _picked(node: Node) -> int:
    """Number of samples picked per sample, from the reference set or the batch, if `node` is computed from picks."""
    while node.operation not in (TAKE, FETCH):
        node = node.inputs[0]
    return picks_per_sample(node.inputs[1])


def picks_per_sample(picks: Node) -> int:
    """Number of samples that an operation picks for each sample."""
    return int(picks.inputs[1].number("count") if picks.operation is MINE else picks.number("k"))
