"""The types of the language (LANGUAGE section 3), as values: comparable, hashable, printed as the messages show them.

Axes are named by a letter: `B` samples, `N` those of the data set, `L` tokens, `P` patches, `J` both in a row, `D` features,
`Q9` the 9 entries of a queue, `R` regions of an image or samples of a reference set, `K` those picked from it or from the
batch, `V` vocabulary entries, `N` concepts of a sample too.
Static types (`Similarity`, `View`, `Encoder`, `String`, `Tuple`, `Function`) exist only while a recipe is elaborated; every
other type can be the type of a node of the objective graph.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "CodesType", "ConditionType", "DistributionType", "DrawsType", "EncodedType", "EncoderType", "AssignmentType",
    "ErrorType", "FieldType", "FunctionType", "IndexType", "LogitsType", "LossType", "MaskType",
    "PatchesType", "PerSampleType", "PicksType", "PixelsType", "ScalarType", "ScoreType", "SimType",
    "SimilarityType", "StringType", "TableType", "TargetType", "TokensType", "TupleType", "Type", "VecType",
    "VectorType", "ViewSetType", "ViewType", "column_count", "holds_memory", "memory_axis", "picked_axis",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Type:
    """Base of all types. Types without fields compare by class."""


@dataclass(frozen=True, slots=True)
class FieldType(Type):
    """A batch field or a view of one; `count` is the number per sample (`Text[4]`), None for one."""

    kind: str
    count: int | None = None

    def __str__(self) -> str:
        return self.kind if self.count is None else f"{self.kind}[{self.count}]"


@dataclass(frozen=True, slots=True)
class ViewSetType(Type):
    """`Image{2}`: a call over sets is the mean over the product of its views."""

    element: Type
    count: int

    def __str__(self) -> str:
        return f"{self.element}{{{self.count}}}"


@dataclass(frozen=True, slots=True)
class EncodedType(Type):
    """What an encoder yields for a field of this kind: `.pooled`, `.tokens` with their mask."""

    kind: str

    def __str__(self) -> str:
        return f"Encoded[{self.kind}]"


@dataclass(frozen=True, slots=True)
class VecType(Type):
    """One vector per sample."""

    rows: str = "B"
    features: str = "D"

    def __str__(self) -> str:
        return f"Vec[{self.rows}, {self.features}]"


@dataclass(frozen=True, slots=True)
class VectorType(Type):
    """One vector per step, such as the mean of features over the batch; it can be added to the vector of each sample, or
    subtracted."""

    features: str = "D"

    def __str__(self) -> str:
        return f"Vector[{self.features}]"


@dataclass(frozen=True, slots=True)
class TokensType(Type):
    """Several vectors per sample, with the mask of the real ones."""

    rows: str = "B"
    tokens: str = "L"
    features: str = "D"

    def __str__(self) -> str:
        return f"Tokens[{self.rows}, {self.tokens}, {self.features}]"


@dataclass(frozen=True, slots=True)
class LogitsType(Type):
    """Logits of every token, one number per vocabulary entry."""

    rows: str = "B"
    tokens: str = "L"
    entries: str = "V"

    def __str__(self) -> str:
        return f"Logits[{self.rows}, {self.tokens}, {self.entries}]"


@dataclass(frozen=True, slots=True)
class CodesType(Type):
    """For every token the number of a vocabulary entry, negative where the token does not count."""

    rows: str = "B"
    tokens: str = "L"

    def __str__(self) -> str:
        return f"Codes[{self.rows}, {self.tokens}]"


@dataclass(frozen=True, slots=True)
class AssignmentType(Type):
    """For every patch of an image how much it belongs to each group of patches."""

    rows: str = "B"
    tokens: str = "P"
    groups: str = "G"

    def __str__(self) -> str:
        return f"Assignment[{self.rows}, {self.tokens}, {self.groups}]"


@dataclass(frozen=True, slots=True)
class PerSampleType(Type):
    """A number for each of the N samples of the data set, which outlives the step."""

    rows: str = "N"

    def __str__(self) -> str:
        return f"PerSample[{self.rows}]"


@dataclass(frozen=True, slots=True)
class IndexType(Type):
    """Where each sample of a batch is in the data set."""

    rows: str = "B"

    def __str__(self) -> str:
        return f"Index[{self.rows}]"


def picked_axis(count: int) -> str:
    """The axis for this many picks per sample; with a single pick, values keep their type."""
    return "1" if count == 1 else "K"


def memory_axis(size: int) -> str:
    """The axis of the entries of a memory: two memories of the same size may hold entries of the same samples, so their axes
    are compatible."""
    return f"Q{size}"


def holds_memory(axis: str) -> bool:
    """Whether some columns of a matrix are the entries of a memory."""
    return any(part.startswith("Q") for part in axis.split("+"))


def column_count(axis: str, samples: int) -> int:
    """The columns of a matrix over a batch of so many samples; its axis is `B`, `Q9`, or several of them side by side."""
    return sum(int(part[1:]) if part.startswith("Q") else samples for part in axis.split("+"))


@dataclass(frozen=True, slots=True)
class TableType(Type):
    """One vector for each sample of a reference set."""

    rows: str = "R"
    features: str = "D"

    def __str__(self) -> str:
        return f"Table[{self.rows}, {self.features}]"


@dataclass(frozen=True, slots=True)
class PicksType(Type):
    """Which samples each sample has picked, one (`1`) or several, `of` a reference set (`R`), the global batch (`B`), or the
    batch and a queue (`B+Q9`)."""

    rows: str = "B"
    picked: str = "K"
    of: str = "R"

    def __str__(self) -> str:
        return f"Picks[{self.rows}, {self.picked} of {self.of}]"


@dataclass(frozen=True, slots=True)
class DrawsType(Type):
    """Numbers drawn for each sample."""

    rows: str = "B"
    count: str = "K"

    def __str__(self) -> str:
        return f"Draws[{self.rows}, {self.count}]"


@dataclass(frozen=True, slots=True)
class DistributionType(Type):
    """One distribution per sample, over as many outcomes as there were features."""

    rows: str = "B"
    outcomes: str = "D"

    def __str__(self) -> str:
        return f"Distribution[{self.rows}, {self.outcomes}]"


@dataclass(frozen=True, slots=True)
class SimType(Type):
    """A similarity or logit matrix; its row and its column direction may hold different numbers (tokenmax)."""

    rows: str = "B"
    columns: str = "B"

    def __str__(self) -> str:
        return f"Sim[{self.rows}, {self.columns}]"


@dataclass(frozen=True, slots=True)
class ScoreType(Type):
    """One number per sample."""

    rows: str = "B"

    def __str__(self) -> str:
        return f"Score[{self.rows}]"


@dataclass(frozen=True, slots=True)
class ConditionType(Type):
    """One truth value per sample (a comparison of scores, a `Flag` field), or without rows one per step (of draws)."""

    rows: str = "B"

    def __str__(self) -> str:
        return f"Condition[{self.rows}]" if self.rows else "Condition"


@dataclass(frozen=True, slots=True)
class TargetType(Type):
    """Non-negative rows that sum to 1; each direction is normalised separately."""

    rows: str = "B"
    columns: str = "B"

    def __str__(self) -> str:
        return f"Target[{self.rows}, {self.columns}]"


@dataclass(frozen=True, slots=True)
class MaskType(Type):
    """Which tokens or patches."""

    rows: str = "B"
    tokens: str = "L"

    def __str__(self) -> str:
        return f"Mask[{self.rows}, {self.tokens}]"


@dataclass(frozen=True, slots=True)
class PatchesType(Type):
    """The numbers of every patch of an image, by row, column and channel."""

    rows: str = "B"
    patches: str = "P"
    numbers: str = "C"

    def __str__(self) -> str:
        return f"Patches[{self.rows}, {self.patches}, {self.numbers}]"


class ScalarType(Type):
    """One number per step: a literal, a learned parameter, a draw."""

    __slots__ = ()

    def __str__(self) -> str:
        return "Scalar"


class LossType(Type):
    """A scalar to minimise."""

    __slots__ = ()

    def __str__(self) -> str:
        return "Loss"


class StringType(Type):
    __slots__ = ()

    def __str__(self) -> str:
        return "String"


class PixelsType(Type):
    """The pixels of an image as a target, in the patches of the values that are compared with them."""

    __slots__ = ()

    def __str__(self) -> str:
        return "Pixels"


class SimilarityType(Type):
    """A way to compare two encoded streams, as a value: `cosine`, `0.5*cosine + 0.5*tokenmax`."""

    __slots__ = ()

    def __str__(self) -> str:
        return "Similarity"


@dataclass(frozen=True, slots=True)
class ViewType(Type):
    """A view that lacks its subject: `rewrite(M=4)`; `kind` is the field type it takes."""

    kind: str

    def __str__(self) -> str:
        return f"View[{self.kind}]"


@dataclass(frozen=True, slots=True)
class EncoderType(Type):
    """An encoder as a value: `vision`, `frozen(vision)`; `kind` is the field type it takes."""

    kind: str

    def __str__(self) -> str:
        return f"Encoder[{self.kind}]"


@dataclass(frozen=True, slots=True)
class TupleType(Type):
    """Several values in brackets, each with its type."""

    items: tuple[Type, ...]

    def __str__(self) -> str:
        return "(" + ", ".join(str(item) for item in self.items) + ("," if len(self.items) == 1 else "") + ")"


@dataclass(frozen=True, slots=True)
class FunctionType(Type):
    """A `def`, a recipe or a primitive, or a call of one without its subjects."""

    name: str

    def __str__(self) -> str:
        return f"function {self.name}"


class ErrorType(Type):
    """The type of an expression whose error is already reported: compatible with everything, so no second one follows."""

    __slots__ = ()

    def __str__(self) -> str:
        return "?"
