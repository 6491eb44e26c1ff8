"""The whole front end in one function: text in, programs and diagnostics out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from vlmdsl.diagnostics import Diagnostic, limited
from vlmdsl.diagnostics.catalog.meaning import NothingToLearn, TooLarge, TowerOfTwoKinds, UnusedField, ZeroTerm
from vlmdsl.diagnostics.catalog.names import InputNameTwice, NothingMinimized, Recursion, UnknownBatchPolicy
from vlmdsl.diagnostics.catalog.values import BadValue
from vlmdsl.diagnostics.suggest import suggestion
from vlmdsl.frontend.elaborate import Elaborator
from vlmdsl.frontend.finish import finish
from vlmdsl.frontend.gradients import check_trained, teaches, zeros
from vlmdsl.frontend.modules import Loaded, Loader
from vlmdsl.frontend.names import free_names
from vlmdsl.frontend.scope import FileScope
from vlmdsl.frontend.session import EnoughError, Session
from vlmdsl.frontend.signature import bind_signature, chosen_values, field_node
from vlmdsl.frontend.stages import Block, check_fields, check_numbers, check_unused, check_written, stages_of
from vlmdsl.ir import BATCH_POLICIES, MIXED, Node, Program, Stage, boxed_images, encoder_of, inputs, root_field, walk
from vlmdsl.ir.operations.encoding import ENCODE, VOCABULARY, transforms
from vlmdsl.ir.operations.modules import OWN
from vlmdsl.ir.operations.scalars import SCALAR
from vlmdsl.primitives.default_encoders import DEFAULT_ENCODERS
from vlmdsl.primitives.values import NumberValue, StringValue, Value
from vlmdsl.source import SourceMap, SourceText, Span
from vlmdsl.syntax.tree import Batch, Cite, Minimize, Module, Recipe, Status
from vlmdsl.types import FieldType

__all__ = ["FrontEnd", "load"]


class FrontEnd(NamedTuple):
    """What the front end found: the stages if there is no error, the diagnostics, and the texts they point into."""

    stages: tuple[Stage, ...]
    """With the programs of their flows: one of one flow, both without a name, for a file without blocks. Empty where
    there is an error."""
    diagnostics: list[Diagnostic]
    sources: SourceMap
    module: Module
    uses: Mapping[tuple[str, str], str]
    """(name of a text, path in its `use`) -> name of the used text."""

    @property
    def program(self) -> Program | None:
        """The only program; None where there is an error, or several."""
        flows = [flow for stage in self.stages for flow in stage.flows]
        return flows[0].program if len(flows) == 1 else None


def load(
    text: SourceText,
    *,
    knobs: Mapping[str, object] | None = None,
    folder: Path | None = None,
    kept: Mapping[tuple[str, str], SourceText] | None = None,
) -> FrontEnd:
    """Load, resolve and elaborate a recipe. Never raises for any text.

    `knobs` set the recipe's hyper-parameters; `folder` is where its relative `use` are looked up, unless `kept` has what
    they mean: (name of a text, path that it uses) -> text.
    """
    loader = Loader(kept=kept)
    loaded = loader.load(text, folder)
    session = Session(diagnostics=list(loader.diagnostics))
    stages: tuple[Stage, ...] = ()
    complete = loader.complete
    if not any(_prevents_elaboration(diagnostic) for diagnostic in loader.diagnostics):
        try:
            stages = _elaborate(session, loaded, loader, knobs or {})
        except EnoughError:
            complete = False
    if any(diagnostic.severity == "error" for diagnostic in session.diagnostics):
        stages = ()
    diagnostics = limited(_ordered(session.diagnostics, text.name), complete=complete)
    return FrontEnd(stages, diagnostics, loader.sources, loaded.module, loader.uses)


def _prevents_elaboration(diagnostic: Diagnostic) -> bool:
    """A tree with errors, or an infinite definition, cannot be evaluated."""
    return diagnostic.severity == "error" and (diagnostic.code.startswith("V01") or diagnostic.code == Recursion.code)


def _ordered(diagnostics: list[Diagnostic], main: str) -> list[Diagnostic]:
    """By place, the main file first."""
    unique = list(dict.fromkeys(diagnostics))
    return sorted(unique, key=lambda d: (d.primary.span.file != main, d.primary.span.file, d.primary.span.start, d.code))


def _elaborate(session: Session, loaded: Loaded, loader: Loader, knobs: Mapping[str, object]) -> tuple[Stage, ...]:
    """The stages of a file, each program elaborated by itself: what they call alike is one when they are trained."""
    header = next((item for item in loaded.module.items if isinstance(item, Recipe)), None)
    programs: list[tuple[Block, Program]] = []
    used: set[str] = set()
    for block in loaded.blocks:
        session = session.next()
        program = _program(session, block, loaded, loader, knobs)
        for fault in check_fields(block, header, session.used_fields, complete=program is not None):
            session.report(fault)
        used |= session.used_fields
        if program is not None:
            programs.append((block, program))
    if len(programs) < len(loaded.blocks):
        return ()
    _report_unused_fields(session, header, used)
    _report_towers(session, [program for _, program in programs], loaded.module.span)
    _report_two_heads_of_words(session, [program for _, program in programs], loaded.module.span)
    stages = stages_of(programs)
    place = loaded.module.span
    idle = any(fault.code == NothingToLearn.code for fault in session.diagnostics)
    faults = (
        check_numbers(programs),
        check_unused(loaded.module, stages),
        check_written(stages, place),
        () if idle else check_trained([program for _, program in programs], place),
    )
    for fault in chain.from_iterable(faults):
        session.report(fault)
    return stages


def _program(session: Session, block: Block, loaded: Loaded, loader: Loader, knobs: Mapping[str, object]) -> Program | None:
    module = block.module
    scope = loaded.scope if block.name is None else block.scope(loaded.scope)
    minimize = next((item for item in module.items if isinstance(item, Minimize)), None)
    if minimize is None:
        session.report(NothingMinimized.at(module.span, help=("add, for example, `minimize contrast(image, text)`",)))
        return None
    session.encoders = {kind: encoder for encoder in DEFAULT_ENCODERS.values() for kind in encoder.takes}
    elaborator = Elaborator(session)
    header = next((item for item in module.items if isinstance(item, Recipe)), None)
    try:
        choices = _signature(elaborator, header, scope, minimize, knobs)
        elaborator.install_encoders(scope)
        terms = elaborator.terms(minimize, scope)
    except RecursionError:
        session.report(TooLarge.at(minimize.span, reason="expressions and calls are nested too deeply"))
        return None
    if len(terms) < len(minimize.terms):
        return None
    fields = _fields(header, scope.values, session, all_of_them=block.name is None)
    program = finish(
        session,
        name=header.name.name if header else "expression",
        terms=terms,
        documentation=header.documentation if header else "",
        citations=tuple(item.text.value for item in module.items if isinstance(item, Cite)),
        status=next((item.text.value for item in module.items if isinstance(item, Status)), ""),
        batch_policy=_batch_policy(module, session),
        knobs=_hyperparameters(header, scope.values | choices),
        fields=fields,
        digests=loader.digests(),
    )
    _report_nothing_to_learn(session, program, minimize)
    _report_names_of_inputs(session, program, header, minimize.span)
    _report_unread_swaps(session, program, minimize.span)
    _report_boxes_of_two_images(session, program, minimize.span)
    return program


def _batch_policy(module: Module, session: Session) -> str:
    """The policy of the `batch` statement; `mixed` without one."""
    statement = next((item for item in module.items if isinstance(item, Batch)), None)
    if statement is None:
        return MIXED
    policy = statement.policy
    if policy.name not in BATCH_POLICIES:
        help = suggestion(policy.name, BATCH_POLICIES, "the policies")
        session.report(UnknownBatchPolicy.at(policy.span, help=(help,), name=policy.name))
    return policy.name


def _signature(
    elaborator: Elaborator, header: Recipe | None, scope: FileScope, minimize: Minimize, knobs: Mapping[str, object]
) -> dict[str, Value]:
    """Binds fields and hyper-parameters in the file's scope; without a signature, the fields are `image` and `text`."""
    place = header.name.span if header else minimize.span
    choices = chosen_values(elaborator, header, header.name.name if header else "an expression", knobs, place)
    if header is not None:
        bind_signature(elaborator, header, scope, choices)
    else:
        image = field_node(elaborator, "image", FieldType("Image"), minimize.span)
        text = field_node(elaborator, "text", FieldType("Text"), minimize.span)
        scope.values.update(image=image, text=text)
        elaborator.session.default_fields = (image, text)
    return choices


def _fields(
    header: Recipe | None, values: dict[str, Value], session: Session, *, all_of_them: bool
) -> tuple[tuple[str, FieldType], ...]:
    """The fields of the signature with their types; of one of several programs those that it reads."""
    names = [parameter.name.name for parameter in header.parameters] if header else sorted(session.used_fields)
    names = [name for name in names if all_of_them or name in session.used_fields]
    kinds = ((name, _field_kind(values.get(name))) for name in names)
    return tuple((name, kind) for name, kind in kinds if kind is not None)


def _field_kind(value: Value | None) -> FieldType | None:
    """The type of a field in the signature; None if it is not a field."""
    if not isinstance(value, Node):
        return None
    if value.operation is SCALAR:
        return FieldType("Scalar")
    return value.type if isinstance(value.type, FieldType) else None


def _hyperparameters(header: Recipe | None, values: dict[str, Value]) -> tuple[tuple[str, object], ...]:
    knobs = [parameter.name.name for parameter in header.parameters if parameter.default is not None] if header else []
    plain = ((name, values.get(name)) for name in knobs)
    return tuple((name, value.value) for name, value in plain if isinstance(value, NumberValue | StringValue))


def _report_unused_fields(session: Session, header: Recipe | None, used: set[str]) -> None:
    for parameter in header.parameters if header else ():
        if parameter.default is None and parameter.name.name not in used:
            session.report(UnusedField.at(parameter.name.span, name=parameter.name.name))


def _report_names_of_inputs(session: Session, program: Program, header: Recipe | None, span: Span) -> None:
    """V0213 for a name that two inputs of the objective would have, at the field with this name if there is one."""
    places = {parameter.name.name: parameter.name.span for parameter in header.parameters} if header else {}
    names = Counter(spec.name for spec in inputs(program))
    for name in (name for name, count in names.items() if count > 1):
        session.report(InputNameTwice.at(places.get(name, span), name=name))


def _report_unread_swaps(session: Session, program: Program, span: Span) -> None:
    """V0405 for `matches` of a swapped text that no tower reads: which texts are swapped is part of the text of a batch."""
    read = set(walk(node for node in program.nodes() if node.operation is ENCODE))
    for node in program.nodes():
        if node.operation is OWN and node.inputs[0] not in read:
            place = next(iter(program.graph.spans_of(node)), span)
            reason = "no tower reads this text"
            help = "name the text, `let caption = swap(text)`, and use it in both places"
            session.report(BadValue.at(place, help=(help,), argument="text", function="matches", reason=reason))


def _report_boxes_of_two_images(session: Session, program: Program, span: Span) -> None:
    """V0405 for boxes that are compared with two images: they are places in one, and are read by its size."""
    for boxes, images in boxed_images(program).items():
        first, *others = images.items()
        name = root_field(first[0].inputs[0]).string("name")
        for encode, node in others:
            own = root_field(encode.inputs[0]).string("name")
            if own != name:
                place = next(iter(program.graph.spans_of(node)), span)
                reason = f"they are places in `{name}`, which they are compared with elsewhere, and this is `{own}`"
                help = f"declare boxes of `{own}`: `{own}_boxes: Boxes`"
                session.report(BadValue.at(place, help=(help,), argument=boxes, function=node.operation, reason=reason))


def _report_towers(session: Session, programs: Iterable[Program], span: Span) -> None:
    """V0521 for towers of two kinds with one name: uses of one name share weights."""
    kinds: dict[str, str] = {}
    for program in programs:
        for node in program.nodes():
            if node.operation is ENCODE:
                encoder = encoder_of(node)
                kind = kinds.setdefault(encoder.tower, encoder.tower_kind)
                if kind != encoder.tower_kind:
                    place = next(iter(program.graph.spans_of(node)), span)
                    session.report(TowerOfTwoKinds.at(place, name=encoder.tower, first=kind, second=encoder.tower_kind))


def _report_two_heads_of_words(session: Session, programs: Iterable[Program], span: Span) -> None:
    """V0405 for a tower whose words are predicted with a transform in one place and without in another: its head is one."""
    transformed: dict[str, bool] = {}
    for program in programs:
        for node in program.nodes():
            if node.operation is not VOCABULARY or node.inputs[0].operation is not ENCODE:
                continue
            tower = encoder_of(node.inputs[0]).tower
            if transformed.setdefault(tower, transforms(node)) != transforms(node):
                place = next(iter(program.graph.spans_of(node)), span)
                reason = f"`{tower}` has one head over words, and it has a transform in one place and none in another"
                help = 'write `linear(x, transform="gelu")` in all places, of `mlm(x)` as `token_loss(linear(...), ...)`'
                session.report(BadValue.at(place, help=(help,), argument="transform", function="linear", reason=reason))


def _report_nothing_to_learn(session: Session, program: Program, minimize: Minimize) -> None:
    """V0501 if no gradient reaches an encoder or a learned parameter; V0502 for one of several terms that is zero
    without a hyper-parameter that says so."""
    zero = zeros(program.roots())
    if not teaches((term.node for term in program.terms), zero):
        reason = "everything that could be trained is frozen, stopped, constant or multiplied by 0"
        session.report(NothingToLearn.at(minimize.span, reason=reason))
        return
    switched_off = {name for name, value in program.knobs if value == 0}
    for term, written in zip(program.terms, minimize.terms, strict=True):
        if term.node in zero and not any(used.name in switched_off for used in free_names(written.value)):
            session.report(ZeroTerm.at(written.value.span, term=term.name))
