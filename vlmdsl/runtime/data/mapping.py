"""Maps columns of the data to fields of a recipe; missing ones are reported before the first step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.diagnostics.catalog.data import CannotLoad, FieldLacksColumn, MalformedMapping, UnknownColumn, UnknownField
from vlmdsl.diagnostics.suggest import closest, suggestion
from vlmdsl.ir import ONE_SOURCE, Program, column_of, root_field
from vlmdsl.ir.operations.reference import REFERENCE
from vlmdsl.ir.operations.scalars import SCALAR
from vlmdsl.ir.operations.views import FIELD
from vlmdsl.runtime.data.classes import Classes, classes_of
from vlmdsl.runtime.data.limits import DEFAULT_LIMITS, Limits
from vlmdsl.runtime.data.source import BadSample, Source, first_fault, probed_positions, remarks_of
from vlmdsl.runtime.data.stand_ins import calls_of, columns_of, stand_ins_for
from vlmdsl.runtime.values import FieldColumns, SampleColumns, family_of
from vlmdsl.source import Span
from vlmdsl.types import FIELD_KINDS, FieldType, plain_kinds

__all__ = [
    "EVALUATED", "SOURCE", "FieldMapping", "Requirement", "map_fields", "parse_assignments", "plain_fields", "requirements",
]  # fmt: skip

_COMMAND_LINE = Span("<command line>", 0, 0)
_REWRITES = "_rewrites"
SOURCE = "source"
"""The field with the source of a sample, if the recipe requires batches of one source."""

_USUAL_COLUMNS: dict[str, tuple[str, ...]] = {
    "image": ("image", "filepath", "file_name", "path", "image_path"),
    "text": ("text", "caption", "txt"),
    "text_rewrites": ("text_rewrites", "rewrites"),
    "label": ("label", "cls", "class"),
}
"""The default columns of fields; the default of others is their name."""

EVALUATED = ("label", "class_name")
"""The fields that the evaluation reads if the data has them, even if the recipe does not."""

EVALUATED_KINDS = ("Image", "Text")
"""The kinds of fields that the evaluation compares."""

_WITHOUT_A_CALLER = (
    "to fix it, make it a hyper-parameter: `scale = 14.3` in the signature instead of `scale: Scalar`",
    "to learn it, write `learned(0.07)` where it is used",
)
"""What a recipe can write instead of a Scalar in its signature, for a run without a caller."""


@dataclass(frozen=True)
class Requirement:
    """A field that the recipe reads: its name, its kind (as in `FIELD_KINDS`, or `Rewrites`), and its place.

    An optional one is used if the data has it.
    """

    field: str
    kind: str
    span: Span = _COMMAND_LINE
    optional: bool = False


def plain_fields(program: Program) -> dict[str, str]:
    """The fields that the objective itself reads, such as boxes and labels, with their kinds."""
    fields = {node.string("name"): node.type for node in program.nodes() if node.operation is FIELD}
    return {name: kind.kind for name, kind in fields.items() if isinstance(kind, FieldType) and kind.kind in plain_kinds()}


def requirements(program: Program, views: bool = True) -> list[Requirement]:
    """What a program needs of the data: its live fields, and the rewrites of texts that a view draws from.

    Without `views` only images and texts, which is what the evaluation needs; other fields are optional. Raises
    `DiagnosticError` for a field that no data can feed.
    """
    needs: dict[str, Requirement] = {}
    faults: list[Diagnostic] = []
    for node in program.nodes():
        span = next(iter(program.graph.spans_of(node)), _COMMAND_LINE)
        if isinstance(node.type, FieldType) and node.type.kind in FIELD_KINDS and not FIELD_KINDS[node.type.kind].has_column:
            continue
        if node.operation is REFERENCE:
            column = column_of(node)
            needs.setdefault(column.field, Requirement(column.field, column.kind, span))
        elif node.operation is FIELD:
            assert isinstance(node.type, FieldType)
            name = node.string("name")
            if FIELD_KINDS[node.type.kind].family is None or node.type.count is not None:
                faults.append(CannotLoad.at(span, what=f"the field `{name}` of type `{node.type}`"))
            needs[name] = Requirement(name, node.type.kind, span, not views and node.type.kind not in EVALUATED_KINDS)
        elif node.operation is SCALAR and views:
            what = f"the number `{node.string('name')}`, which the caller of the objective passes"
            faults.append(CannotLoad.at(span, what=what, help=_WITHOUT_A_CALLER))
        elif node.operation.reads_rewrites and views:
            name = root_field(node).string("name") + _REWRITES
            needs.setdefault(name, Requirement(name, "Rewrites", span))
    if program.batch_policy == ONE_SOURCE and views:
        needs.setdefault(SOURCE, Requirement(SOURCE, "Any", optional=True))
    if faults:
        raise DiagnosticError(tuple(faults))
    return list(needs.values())


def mapped_names(needs: Sequence[Requirement]) -> list[str]:
    """What a mapping of a recipe with these needs may name, besides what the evaluation reads.

    Mapping the rewrites of a text that it does not rewrite is harmless: commands are edited, recipes swapped.
    """
    rewrites = [need.field + _REWRITES for need in needs if need.kind == "Text"]
    return list(dict.fromkeys([*(need.field for need in needs), *rewrites]))


@dataclass(frozen=True)
class FieldMapping:
    """Field -> the columns that feed it, field of kind Label -> its class names, field -> what its family's `probe` said of
    the data, and at how many characters texts are cut.

    `numbered` are the fields of kind Label whose data has numbers, which the names belong to.
    """

    columns: Mapping[str, tuple[str, ...]]
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    text_characters: int = DEFAULT_LIMITS.text_characters
    numbered: frozenset[str] = frozenset()

    @cached_property
    def _class_numbers(self) -> dict[str, dict[str, int]]:
        return {name: {word: number for number, word in enumerate(words)} for name, words in self.classes.items()}

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    @property
    def stand_ins(self) -> dict[str, list[str]]:
        """Field -> the stand-ins that feed it, as the mapping writes them."""
        written = calls_of({name: ",".join(columns) for name, columns in self.columns.items()})
        return {name: [str(call) for call in calls] for name, calls in written.items()}

    def field(self, name: str) -> FieldColumns:
        """The description of a field for its family."""
        return FieldColumns(
            name,
            self.columns.get(name, ()),
            self.columns.get(name + _REWRITES, ()),
            self._class_numbers.get(name),
            self.text_characters,
            self.facts.get(name),
        )

    def read(self, name: str, kind: str, columns: Mapping[str, object]) -> Any:
        """The value of one sample, for a kind that needs only its columns; raises `BadSample`."""
        return family_of(kind).read(SampleColumns(columns), self.field(name))


def parse_assignments(assignments: Iterable[str]) -> dict[str, str]:
    """`["text=caption"]` as `{"text": "caption"}`; raises `DiagnosticError` for what is not an assignment.

    >>> parse_assignments(["text_rewrites=tags,cldr_en"])
    {'text_rewrites': 'tags,cldr_en'}
    """
    parsed: dict[str, str] = {}
    for text in assignments:
        name, separator, columns = (part.strip() for part in text.partition("="))
        if not separator or not name or not all(part.strip() for part in columns.split(",")):
            help = f"write `--map {name or 'text'}=COLUMN`, as in `--map text=caption`"
            raise DiagnosticError((MalformedMapping.at(_COMMAND_LINE, given=text, help=(help,)),))
        parsed[name] = columns
    return parsed


def map_fields(
    source: Source,
    needs: Iterable[Requirement],
    assignments: Mapping[str, str] | None = None,
    classes: Mapping[str, tuple[str, ...]] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    *,
    foreign: bool = False,
) -> FieldMapping:
    """Finds the columns for every need, by `assignments` (field -> columns, with commas between) or under the usual names.

    `label` and `class_name` are mapped too where the data has them. `classes` are the names of classes by number that hold
    where the data itself has numbers and no names; `foreign` data is only evaluated. Raises `DiagnosticError` with all that
    is lacking.
    """
    needs, assignments = list(needs), assignments or {}
    faults = _misdirected(needs, assignments)
    taken = {need.field for need in needs}
    mapped: dict[str, tuple[str, ...]] = {}
    for need in [*needs, *(Requirement(name, "Any", optional=True) for name in EVALUATED if name not in taken)]:
        if need.field in assignments:
            columns = columns_of(assignments[need.field])
            unknown = [column for column in columns if column not in source.columns]
            if unknown and need in needs and need.optional:
                continue
            faults.extend(_unknown_column(source, need, column) for column in unknown)
        else:
            usual = _USUAL_COLUMNS.get(need.field, (need.field,))
            # A column that is a separate field does not feed another one: ALIP's `caption` is not its `text`.
            columns = tuple(name for name in usual if name in source.columns and (name == need.field or name not in taken))
            if not columns and not need.optional:
                faults.append(_lacking(source, need, foreign=foreign))
        if columns:
            mapped[need.field] = columns
    if faults:
        raise DiagnosticError(tuple(faults))
    labels = [need.field for need in needs if need.kind == "Label"] + ["label"]
    named = _classes(source, mapped, labels, classes or {})
    numbered = frozenset(name for name, own in named.items() if own.numbered)
    class_names = {name: own.names for name, own in named.items()}
    facts = {need.field: _facts(source, need, mapped[need.field]) for need in needs if need.field in mapped}
    return FieldMapping(mapped, class_names, facts, limits.text_characters, numbered)


def _facts(source: Source, need: Requirement, columns: tuple[str, ...]) -> Any:
    """The facts that the family of a field gets from some of the samples."""
    field_kind = FIELD_KINDS.get(need.kind)
    if field_kind is None or field_kind.family is None:
        return None
    return family_of(need.kind).probe(_probed(source), FieldColumns(need.field, columns))


def _probed(source: Source) -> Iterator[Mapping[str, object]]:
    """The columns of up to 64 samples that can be read."""
    for index in probed_positions(len(source)):
        try:
            yield source[index]
        except BadSample:
            continue


def _misdirected(needs: list[Requirement], assignments: Mapping[str, str]) -> list[Diagnostic]:
    """Assignments to fields that nothing reads."""
    names = list(dict.fromkeys([*mapped_names(needs), *EVALUATED]))
    return [
        UnknownField.at(_COMMAND_LINE, field=name, help=(suggestion(name, names, "the fields"),))
        for name in assignments
        if name not in names
    ]


def _unknown_column(source: Source, need: Requirement, column: str) -> Diagnostic:
    # A stand-in is missing if one of its columns is.
    (call,) = calls_of({need.field: column}).get(need.field, [None])
    column = column if call is None else next(name for name in call.columns if name not in source.columns)
    return UnknownColumn.at(
        _COMMAND_LINE,
        column=column,
        notes=(f"`--map` names it for the field `{need.field}`", f"the data is {source.name}"),
        help=(suggestion(column, source.columns, "the columns"),),
    )


def _lacking(source: Source, need: Requirement, *, foreign: bool) -> Diagnostic:
    rewrites = need.kind == "Rewrites"
    close = closest(need.field, source.columns)
    example = close or ("COLUMN,COLUMN" if rewrites else "COLUMN")
    labels = [name for name in _USUAL_COLUMNS["label"] if name in source.columns and foreign and need.kind == "Text"]
    what = "alternatives of a text, in one or several columns" if rewrites else f"a field of type {need.kind}"
    return FieldLacksColumn.at(
        need.span,
        f"needs {what}",
        field=need.field,
        notes=(f"columns of {source.name}: {_listed(source.columns)}", *_doubts(source)),
        help=(
            f"name the column: `--map {need.field}={example}`",
            *(
                f"or measure its classes alone: `--map {need.field}={name} --set evaluation.retrieval=false`"
                for name in labels[:1]
            ),
            *(
                f"or choose a stand-in, `--map {need.field}={form}`: {makes}"
                for form, makes in stand_ins_for("Text" if rewrites else need.kind, source.columns)
            ),
        ),
    )


def _doubts(source: Source) -> list[str]:
    """Possible reasons for a missing column."""
    fault = first_fault(source)
    return [*([] if fault is None else [f"none of its samples can be read: {fault}"]), *remarks_of(source)[:3]]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def _classes(
    source: Source, mapped: dict[str, tuple[str, ...]], labels: Iterable[str], class_names: Mapping[str, tuple[str, ...]]
) -> dict[str, Classes]:
    """The classes of every label field that is mapped, as far as they can be known: those that the data names, else the
    given `class_names`. Names that tell the classes apart replace numbers that do not in `mapped`."""
    classes: dict[str, Classes] = {}
    for name in dict.fromkeys(labels):
        if name in mapped:
            own = classes_of(source, mapped[name], mapped.get("class_name", ()))
            mapped[name] = own.columns
            if own.names or name in class_names:
                classes[name] = own if own.names else Classes(class_names[name], own.columns, numbered=True)
    return classes
