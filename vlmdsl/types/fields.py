"""The kinds of fields that a sample may have, as the language and the compiler see them, without torch.

The run-time behaviour of a kind is its `family`, which is imported when data is read.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmdsl.types.types import ConditionType, FieldType, ScoreType, Type

__all__ = ["FIELD_KINDS", "JOINED", "FieldKind", "as_value", "plain_kinds", "register_field_kind", "token_axis"]

JOINED = "Joined"
"""The kind of an image and a text joined into one sequence: no field has it, `join` makes it."""

_ROOM = "vlmdsl.runtime.values"


@dataclass(frozen=True, slots=True)
class FieldKind:
    """One kind of field.

    `summary` says what a batch holds for it, `words` how messages name it, and `family` where its
    `vlmdsl.runtime.values.Family` is (`module:Class`; None if data cannot hold it). A field that encoders take has a
    `token_axis`, the letter of their token axis. A field that is an input of the objective has `axes` and a `dtype`
    (`float`, `bool`, `int64`), and may be read as a value of another type, `reads_as`; for a vector, `probe` returns its
    length. `has_column` is false if it is computed from the key of the sample instead of a column. A sample may have
    `several` under one name (`Text[4]`). `note` is shown on the page of a recipe, next to the type.
    """

    name: str
    summary: str
    words: str
    family: str | None
    token_axis: str | None = None
    dtype: str | None = None
    axes: tuple[str, ...] = ("B",)
    reads_as: Type | None = None
    has_column: bool = True
    several: bool = False
    note: str = ""


FIELD_KINDS: dict[str, FieldKind] = {}
"""All types of batch fields, by name; `register_field_kind` adds one."""


def register_field_kind(kind: FieldKind) -> FieldKind:
    """Add a kind of field to the language. ValueError if there is another one with that name.

    >>> register_field_kind(FIELD_KINDS["Label"]).words
    'a Label'
    """
    if FIELD_KINDS.setdefault(kind.name, kind) != kind:
        raise ValueError(f"there is a kind of field called {kind.name} already")
    return kind


def plain_kinds() -> frozenset[str]:
    """The kinds that are inputs of the objective and that data can hold."""
    return frozenset(kind.name for kind in FIELD_KINDS.values() if kind.dtype is not None and kind.family is not None)


def as_value(type: Type) -> Type:
    """The type of a field where a value is expected (a Flag is a condition); other types are unchanged."""
    kind = FIELD_KINDS.get(type.kind) if isinstance(type, FieldType) and type.count is None else None
    return type if kind is None or kind.reads_as is None else kind.reads_as


def token_axis(kind: str) -> str:
    """The name of the token axis that an encoder yields for a field of this kind, or for both joined."""
    axis = "J" if kind == JOINED else FIELD_KINDS[kind].token_axis
    assert axis is not None, f"no encoder takes a {kind}"
    return axis


for _kind in (
    FieldKind("Image", "an image: [B, 3, H, W], float", "an Image", f"{_ROOM}.image:ImageFamily", "P", several=True),
    FieldKind(
        "Text",
        "a text: token ids [B, L], int64, with a mask [B, L], true = a token",
        "a Text",
        f"{_ROOM}.text:TextFamily",
        token_axis="L",
        several=True,
    ),
    FieldKind(
        "Label",
        "the class of each sample: [B], int64; the missing marker is a class by itself",
        "a Label",
        f"{_ROOM}.scalar:LabelFamily",
        dtype="int64",
    ),
    FieldKind(
        "Flag",
        "a truth value of each sample: [B], bool",
        "a Flag",
        f"{_ROOM}.scalar:FlagFamily",
        dtype="bool",
        reads_as=ConditionType(),
    ),
    FieldKind(
        "Number",
        "a number per sample: [B], float",
        "a Number field",
        f"{_ROOM}.scalar:NumberFamily",
        dtype="float",
        reads_as=ScoreType(),
    ),
    FieldKind(
        "Scalar",
        "one number per step, passed by the caller: 0-d, float; not read from data",
        "a number",
        None,
        note="one number per step, passed by the caller, not read from data",
    ),
    FieldKind(
        "Key",
        "the identity of each sample: [B], int64; a hash of its key in the data",
        "a Key field",
        f"{_ROOM}.scalar:KeyFamily",
        dtype="int64",
        has_column=False,
        note="identifies each sample: no column is needed",
    ),
    FieldKind(
        "Segments",
        "the segment of every pixel of an image, such as a superpixel: whole numbers [H, W]; a batch holds those of patches",
        "segments of an image",
        f"{_ROOM}.segments:SegmentFamily",
    ),
    FieldKind(
        "Regions",
        "regions of an image, as features of a detector: [B, R, F], float, with a mask [B, R], true = a region",
        "regions of an image",
        f"{_ROOM}.regions:RegionFamily",
        token_axis="R",
    ),
    FieldKind(
        "Boxes",
        "boxes in an image, left, top, right and bottom as shares of what the tower sees: [B, R, 4], float; a row of zeros"
        " is padding",
        "boxes in an image",
        f"{_ROOM}.boxes:BoxFamily",
        dtype="float",
        axes=("B", "R", "E"),
        note="boxes in pixels of the image: left, top, right, bottom",
    ),
    FieldKind(
        "Phrases",
        "what the boxes of an image are called: a phrase for each, or the parts of a caption that name it",
        "the phrases of boxes",
        f"{_ROOM}.phrases:PhraseFamily",
        note="a phrase per box, or a text with the spans of each box",
    ),
    FieldKind(
        "Concepts",
        "several texts per sample, each encoded by itself: token ids [B, N, L], int64, with masks",
        "several texts per sample",
        f"{_ROOM}.phrases:ConceptFamily",
        token_axis="N",
    ),
):
    register_field_kind(_kind)
