"""Stages and flows: the programs of a file, and the checks between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from vlmdsl.diagnostics import Diagnostic, Label, suggestion
from vlmdsl.diagnostics.catalog.meaning import UnusedField
from vlmdsl.diagnostics.catalog.names import UnusedDefinition
from vlmdsl.diagnostics.catalog.stages import (
    FieldOutsideFlow,
    NotAField,
    NoWriter,
    NumbersDiffer,
    StageUnused,
    UnknownStart,
)
from vlmdsl.frontend.names import BARE_FIELDS, check_names, free_names
from vlmdsl.frontend.scope import FileScope
from vlmdsl.ir import Flow, Program, Writing, decoded_texts, encoder_of, parameters, states, writer_of, writings
from vlmdsl.ir import Stage as StageOfRun
from vlmdsl.source import Span
from vlmdsl.syntax import expressions_of
from vlmdsl.syntax.tree import Def, EncoderDeclaration, Item, Let, Module, Name, Recipe, Stage
from vlmdsl.syntax.tree import Flow as FlowBlock

__all__ = [
    "Block", "blocks_of", "check_blocks", "check_fields", "check_numbers", "check_starts", "check_unused", "check_written",
    "stages_of",
]  # fmt: skip


@dataclass(frozen=True)
class Block:
    """One program of a file: the `minimize` of a flow or stage, or of the whole file."""

    stage: Stage | None
    flow: FlowBlock | None
    module: Module
    """The file as if this were its only objective: its own statements, those of the stage, those of the flow."""

    @property
    def name(self) -> Name | None:
        """Its name in the file; None in a file without blocks."""
        block = self.flow or self.stage
        return None if block is None else block.name

    def scope(self, file: FileScope) -> FileScope:
        """The names that are visible in it: those of the file and of its blocks."""
        own = [item for block in (self.stage, self.flow) if block is not None for item in block.items]
        lets = {item.name.name: item for item in own if isinstance(item, Let)}
        encoders = {item.name.name: item for item in own if isinstance(item, EncoderDeclaration)}
        functions = {item.name.name: item for item in own if isinstance(item, Def)}  # not allowed here; reported elsewhere
        scope = replace(file.fresh(), lets={**file.lets, **lets}, encoders={**file.encoders, **encoders})
        return replace(scope, definitions={**file.definitions, **functions}) if functions else scope


def blocks_of(module: Module) -> list[Block]:
    """The programs of a file in order; a file without blocks has one."""
    of_file = [item for item in module.items if not isinstance(item, Stage | FlowBlock)]
    blocks: list[Block] = []
    for item in module.items:
        if isinstance(item, FlowBlock):
            blocks.append(Block(None, item, _joined(module, of_file, item.items)))
        elif isinstance(item, Stage):
            flows = [inner for inner in item.items if isinstance(inner, FlowBlock)]
            own = [inner for inner in item.items if not isinstance(inner, FlowBlock)]
            blocks += [Block(item, flow, _joined(module, of_file, own, flow.items)) for flow in flows]
            if not flows:
                blocks.append(Block(item, None, _joined(module, of_file, own)))
    return blocks or [Block(None, None, module)]


def _joined(module: Module, *items: Iterable[Item]) -> Module:
    return replace(module, items=tuple(item for group in items for item in group))


def check_blocks(blocks: Sequence[Block], file: FileScope) -> list[Diagnostic]:
    """The diagnostics of `check_names` for each program; a definition is unused only if no program uses it."""
    said = [check_names(block.module, block.scope(file)) for block in blocks]
    unused = Counter(diagnostic for each in said for diagnostic in each if diagnostic.code == UnusedDefinition.code)
    present = Counter(item.name.span for block in blocks for item in block.module.items if hasattr(item, "name"))
    every = dict.fromkeys(diagnostic for each in said for diagnostic in each)
    return [each for each in every if each not in unused or unused[each] == present[each.primary.span]]


def check_starts(module: Module) -> Iterator[Diagnostic]:
    """V0217 for a stage whose `from` names no earlier stage."""
    stages = [item for item in module.items if isinstance(item, Stage)]
    names = [stage.name.name for stage in stages]
    for number, stage in enumerate(stages):
        if stage.start is None:
            continue
        start, earlier = stage.start, names[:number]
        if start.name in earlier:
            continue
        labels: tuple[Label, ...] = ()
        reason = "there is no such stage"
        if start.name == stage.name.name:
            reason = "that is the stage itself"
        elif start.name in names:
            reason = "it comes later"
            labels = (Label(stages[names.index(start.name)].name.span, "the later stage"),)
        help = suggestion(start.name, earlier, "the stages before it") if earlier else "omit `from`: this is the first stage"
        yield UnknownStart.at(
            start.span, reason, secondary=labels, help=(help,), name=stage.name.name, start=start.name, reason=reason
        )


def check_unused(module: Module, stages: Sequence[StageOfRun]) -> Iterator[Diagnostic]:
    """V0523 for a stage that no later stage starts from, and whose decoders write nothing for one."""
    blocks = [item for item in module.items if isinstance(item, Stage)]
    used = {block.start.name for block in blocks if block.start is not None}
    for number, stage in enumerate(stages):
        writers = (writer_of(writing, stages[:number]) for flow in stage.flows for writing in writings(flow.program))
        used |= {writer.name for writer in writers if writer is not None}
    for block in blocks[:-1]:
        if block.name.name not in used:
            help = f"write `stage {blocks[-1].name.name} from {block.name.name}`, or remove the stage"
            yield StageUnused.at(block.name.span, help=(help,), name=block.name.name)


def check_written(stages: Sequence[StageOfRun], place: Span) -> Iterator[Diagnostic]:
    """V0524 for a text of which no earlier stage trains the decoder."""
    for number, stage in enumerate(stages):
        for flow in stage.flows:
            for writing, node in writings(flow.program).items():
                if writer_of(writing, stages[:number]) is None:
                    span = next(iter(flow.program.graph.spans_of(node)), place)
                    yield NoWriter.at(span, name=writing.by, reason=_why_not_written(writing, stages[:number]))


def _why_not_written(writing: Writing, earlier: Sequence[StageOfRun]) -> str:
    if not earlier:
        return "no stage comes before this one"
    trained = (
        stage.name
        for stage in earlier
        for flow in stage.flows
        for encode in decoded_texts(flow.program)
        if encoder_of(encode).tower == writing.by
    )
    other = next(trained, None)
    if other is None:
        return "no earlier stage trains it with `next_token`"
    how = "without one, or without an image" if writing.prompt else "after one, or without an image"
    return f"here it writes {'after' if writing.prompt else 'without'} a prompt, and the stage `{other}` trains it {how}"


def check_fields(block: Block, header: Recipe | None, used: set[str], *, complete: bool) -> Iterator[Diagnostic]:
    """V0219 for a declared field that the recipe does not have, V0218 for a field that is read and not declared, V0503 for
    a field that is declared and not read (only if all of the flow was elaborated: `complete`)."""
    flow = block.flow
    if flow is None or flow.fields is None:
        return
    declared = [each.name.name for each in header.parameters if each.default is None] if header else list(BARE_FIELDS)
    named = {field.name for field in flow.fields}
    for field in flow.fields:
        if field.name not in declared:
            help = suggestion(field.name, declared, "its fields")
            yield NotAField.at(field.span, help=(help,), name=field.name, flow=flow.name.name)
        elif complete and field.name not in used:
            yield UnusedField.at(field.span, name=field.name)
    for name in declared:
        if name in used and name not in named:
            place = _first_use(flow.items, name)
            label = (Label(flow.name.span, "the flow"),) if place is not None else ()
            fields = ", ".join([*(field.name for field in flow.fields), name])
            help = f"write `flow {flow.name.name}({fields})`, or do not read it here"
            yield FieldOutsideFlow.at(place or flow.name.span, secondary=label, help=(help,), name=name, flow=flow.name.name)


def _first_use(items: Iterable[Item], name: str) -> Span | None:
    expressions = (expression for item in items for expression in expressions_of(item))
    return next((used.span for each in expressions for used in free_names(each) if used.name == name), None)


def check_numbers(programs: Sequence[tuple[Block, Program]]) -> Iterator[Diagnostic]:
    """V0522 for learned numbers and states that have the same name in two flows of a stage but differ."""
    seen: dict[tuple[Name | None, str], tuple[object, Span | None]] = {}
    for block, program in programs:
        for node in (*parameters(program), *states(program)):
            name, form = node.string("name"), (node.operation, node.type, node.attributes)
            place = next((span for span in program.graph.spans_of(node) if span.file == program.name), None)
            place = place or next(iter(program.graph.spans_of(node)), None)
            first, where = seen.setdefault((None if block.stage is None else block.stage.name, name), (form, place))
            if first != form and block.name is not None:
                labels = () if where is None else (Label(where, "the other one"),)
                help = f"give one of them another name, or define `{name}` once, before the flows"
                yield NumbersDiffer.at(place or block.name.span, secondary=labels, help=(help,), name=name)


def stages_of(programs: Sequence[tuple[Block, Program]]) -> tuple[StageOfRun, ...]:
    """The stages of a file, from its programs."""
    stages: dict[str, StageOfRun] = {}
    for block, program in programs:
        name = "" if block.stage is None else block.stage.name.name
        start = "" if block.stage is None or block.stage.start is None else block.stage.start.name
        flows = [] if block.stage is None else [item for item in block.stage.items if isinstance(item, FlowBlock)]
        flows = flows or [each.flow for each, _ in programs if each.flow is not None and each.stage is None]
        rest = 1.0 - sum(flow.share.value for flow in flows if flow.share is not None)
        share = 1.0 if block.flow is None else rest if block.flow.share is None else block.flow.share.value
        flow = Flow("" if block.flow is None else block.flow.name.name, share, program)
        stage = stages.setdefault(name, StageOfRun(name, (), start))
        stages[name] = replace(stage, flows=(*stage.flows, flow))
    return tuple(stages.values())
