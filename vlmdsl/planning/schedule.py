"""Plans a step: which modules are called on which values, in which order, and what is computed in between.

The stage of a value is the number of module calls on the longest path to it. Calls of one stage with one use and mode are
one call. A `Compute` exists at a stage only where a call of a later stage needs what it computes, and at the end; a node
goes into the earliest of them at or after its stage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from vlmdsl.ir import Node, Program, encoder_of, parts_of, walk
from vlmdsl.ir.counted import read_by_metrics
from vlmdsl.ir.operations.encoding import ENCODE, MIX, POOLED, TOKENS, VOCABULARY, context_of
from vlmdsl.ir.operations.mining import FETCH
from vlmdsl.ir.operations.modules import APPLY, OWN, STATES, pooler_of, replacements_of, use_of
from vlmdsl.ir.operations.per_sample import INDEX
from vlmdsl.ir.operations.prediction import TOKEN_IDS
from vlmdsl.ir.operations.scalars import CONSTANT, DRAW, RAMP, SCALAR
from vlmdsl.ir.operations.views import BLEND, CROP, DROP
from vlmdsl.ir.schedule import Applied, Apply, Compute, Linear, Load, Lowering, Mode, Schedule, Split, Value
from vlmdsl.ir.uses import Use, VocabularySettings, uses_of, vocabulary_use
from vlmdsl.planning.lowering import LoweringRequest, lowerings_of
from vlmdsl.planning.workload import SMALLEST, Workload
from vlmdsl.types import (
    EncodedType,
    FieldType,
    InputsType,
    LabelsType,
    MemoryType,
    PerSampleType,
    SimType,
    TargetType,
    WordMapType,
)

__all__ = ["AFTER_EPOCH", "applied_of", "is_loaded", "linear_of", "logits_of", "product_of", "schedule_of"]

AFTER_EPOCH = "after_epoch"
"""The name of the function that follows an epoch."""
_COMPUTED_AGAIN = (SimType, TargetType, WordMapType)
"""Types that no function passes on: matrices of all pairs, which may never be materialised, and maps of words, which are
inputs, are computed where they are used."""


def schedule_of(
    program: Program,
    workload: Workload = SMALLEST,
    request: LoweringRequest | None = None,
    losses: Mapping[Node, Lowering] | None = None,
) -> Schedule:
    """The schedule of a step of an optimised program, with the lowerings for batches of these sizes.

    `losses` are those of token losses: a `chunked` one is computed without logits. DiagnosticError (V0605) if a lowering is
    requested of a term that does not have it.
    """
    lowerings, losses = lowerings_of(program, workload, request), losses or {}
    chunked = frozenset(loss for loss, lowering in losses.items() if lowering.name == "chunked")
    return _Planner(program, chunked).schedule({**lowerings, **losses})


def is_loaded(node: Node) -> bool:
    """Whether a node comes with the batch: a field, a per-sample view, a draw, a schedule."""
    if node.operation in (DRAW, INDEX, OWN, RAMP, SCALAR):
        return True
    computed = node.operation in (FETCH, MIX) or node.operation.pairs_fields
    return isinstance(node.type, FieldType) and not computed


class _Planner:
    """Finds the stage of each value of a program, then the steps."""

    def __init__(self, program: Program, chunked_losses: frozenset[Node]) -> None:
        self._program, self._chunked_losses = program, chunked_losses
        self._unmade = {loss.inputs[0] for loss in chunked_losses}
        self._without_logits = {logits.inputs[0] for logits in self._unmade if logits.operation is VOCABULARY}
        self._nodes = [node for node in program.nodes() if node not in self._unmade]
        self._stages: dict[Value, int] = {}
        self._modes: dict[Applied, Mode] = {}
        for node in self._nodes:
            self._take(node)
        self._last = max((self._stages[root] for root in program.roots()), default=0)
        self._early = self._needed_by_calls()
        self._computes = sorted({self._stages[node] for node in self._given_to_calls()} | {self._last})

    def schedule(self, lowerings: Mapping[Node, Lowering]) -> Schedule:
        calls = self._calls()
        computes = self._emitted()
        steps: list[Compute | Apply] = []
        for stage in range(self._last + 1):
            steps += [apply for at, apply in calls if at == stage]
            steps += [compute for at, compute in computes.items() if at == stage]
        teachers = dict.fromkeys(call.use for _, call in calls if call.use.follows and call.use.module.on is None)
        return Schedule(
            Load(tuple(self._loaded())),
            tuple(steps),
            lowerings,
            before=tuple(use for use in teachers if use.follows and use.follows.order == "before"),
            after={
                "step": tuple(use for use in teachers if use.follows and use.follows.order == "after"),
                "epoch": (Compute(AFTER_EPOCH, ()),) if self._program.updates_after("epoch") else (),
            },
        )

    def _take(self, node: Node) -> None:
        """The stage of a node, whose inputs have theirs."""
        if node.operation is ENCODE:
            self._stages[node] = self._apply(node)
        elif node.operation is APPLY:
            output = applied_of(node)
            self._stages[node] = self._stages[output] = 1 + max(self._stages[parent] for parent in node.inputs)
            self._modes[output] = self._mode_of(node)
        elif node.operation in (VOCABULARY, TOKEN_IDS):
            self._stages[node] = self._predict(node.inputs[0])
        else:
            computed = [self._stages[parent] for parent in node.inputs if parent not in self._unmade]
            computed += [self._multiply(parent) for parent in node.inputs if parent in self._unmade]
            self._stages[node] = max(computed, default=0)

    def _multiply(self, logits: Node) -> int:
        """The stage of what a function multiplies to obtain logits itself: of patches what their linear map gives without
        the product."""
        if logits.operation is VOCABULARY:
            return self._stages[linear_of(applied_of(logits.inputs[0])).value]
        output = product_of(logits).value
        self._stages[output] = 1 + self._stages[logits.inputs[0]]
        self._modes[output] = self._mode_of(logits)
        return self._stages[output]

    def _predict(self, encoded: Node) -> int:
        """The stage of the logits of an encoded text, or of the states that the last function multiplies instead."""
        states = applied_of(encoded)
        value = linear_of(states).value if encoded in self._without_logits else logits_of(states)
        if value is not states:
            self._stages[value], self._modes[value] = self._stages[states] + 1, self._modes[states]
        return self._stages[value]

    def _mode_of(self, apply: Node) -> Mode:
        """The mode of a module on features: what it takes differs as the images that the tower saw do."""
        if use_of(apply).module.family in ("decoder", "linear"):
            below = apply.inputs[0]
            return self._modes[applied_of(below if below.operation is APPLY else below.inputs[0])]
        if not isinstance(apply.type, EncodedType):
            return Mode("Vec")
        if pooler_of(apply) is not None:
            return self._context_mode(apply.inputs[0])[1]
        return Mode("Text", context=self._context_mode(apply.inputs[1]) if len(apply.inputs) == 2 else None)

    def _context_mode(self, states: Node) -> tuple[str, Mode]:
        """What encoded a context, and in which mode."""
        while states.operation not in (ENCODE, APPLY):
            states = states.inputs[0]
        output = applied_of(states)
        return output.use.module.name, self._modes[output]

    def _apply(self, encode: Node) -> int:
        """The stage of the output of an encoder: one call for the tower, and one per head."""
        assert isinstance(encode.type, EncodedType)
        stage, mode = max(self._stages[parent] for parent in encode.inputs), _mode(encode.inputs[0], encode.type.kind)
        if encoder_of(encode).decoder is not None:
            context = context_of(encode)
            whole = any(encode in node.inputs and node.operation in (POOLED, TOKENS, STATES) for node in self._nodes)
            split = Split(encode.string("prefix"), encode.number("parallel"), whole)
            mode = replace(mode, context=None if context is None else self._context_mode(context), split=split)
        value = _entering(encode)
        for use in uses_of(encoder_of(encode)):
            value, stage = Applied(use, value), stage + 1
            self._stages[value], self._modes[value] = stage, mode
            mode = Mode(encode.type.kind)
        return stage

    def _calls(self) -> list[tuple[int, Apply]]:
        """The calls with their stages, in the order of first use. The inputs of one call of a head come from one use."""
        groups: dict[tuple[int, Use, Mode, Use | None], list[Value]] = {}
        for applied, mode in self._modes.items():
            below = applied.value.use if isinstance(applied.value, Applied) else None
            groups.setdefault((self._stages[applied], applied.use, mode, below), []).append(applied.value)
        return [(stage, Apply(use, mode, tuple(values))) for (stage, use, mode, _), values in groups.items()]

    def _needed_by_calls(self) -> set[Node]:
        """The computed nodes that some call needs, directly or indirectly."""
        needed: set[Node] = set()
        waiting = [node for applied in self._modes for node in _taken(applied.source)]
        while waiting:
            node = waiting.pop()
            if node in needed or is_loaded(node) or node.operation.reads_encoder_output or node.operation is APPLY:
                continue
            if node.operation.pairs_fields:
                waiting.extend((*parts_of(node), *node.inputs[2:]))
                continue
            needed.add(node)
            waiting.extend(node.inputs)
        return {node for node in needed if node.operation is not CONSTANT}

    def _is_light(self, node: Node) -> bool:
        """Whether a node depends only on numbers, plain fields and state; it is recomputed rather than passed on."""
        return self._stages[node] == 0 and not isinstance(node.type, FieldType)

    def _at(self, node: Node) -> int:
        """The stage of the `Compute` that a computed node goes into."""
        # The last function updates the state.
        of_state = isinstance(node.type, MemoryType | LabelsType | InputsType | PerSampleType)
        if of_state or (self._is_light(node) and node not in self._early):
            return self._last
        return next(stage for stage in self._computes if stage >= self._stages[node])

    def _emitted(self) -> dict[int, Compute]:
        """The emitted functions by their stages."""
        gives: dict[int, dict[Node, None]] = {stage: {} for stage in self._computes}
        takes: dict[int, dict[Value | Linear, None]] = {stage: {} for stage in self._computes}
        read = [(self._at(node), value) for node in self._computed() for value in self._read(node)]
        at_end = (*self._program.roots(), *read_by_metrics(self._program))
        for stage, value in [*read, *((self._last, node) for node in at_end)]:
            for taken in self._needed_for(value, stage):
                takes[stage][taken] = None
                if isinstance(taken, Node) and not is_loaded(taken):
                    gives[self._at(taken)][taken] = None
        for node in self._given_to_calls():
            gives[self._at(node)][node] = None
        names = {stage: "objective" if stage == self._last else f"before_{stage + 1}" for stage in self._computes}
        return {stage: Compute(names[stage], tuple(takes[stage]), tuple(gives[stage])) for stage in self._computes}

    def _read(self, node: Node) -> Iterator[Value | Linear]:
        """What a computed node reads: nodes, and outputs of modules instead of encoders."""
        for parent in node.inputs:
            if parent in self._unmade:
                if parent.operation is APPLY:
                    yield product_of(parent)
            elif parent.operation not in (ENCODE, APPLY):
                yield parent
            elif node.operation in (VOCABULARY, TOKEN_IDS):
                states = applied_of(parent)
                yield linear_of(states) if parent in self._without_logits else logits_of(states)
            else:
                yield applied_of(parent)

    def _needed_for(self, value: Value | Linear, stage: int) -> Iterator[Value | Linear]:
        """What the function of a stage takes to obtain a value: the value, or the inputs that it is recomputed from."""
        waiting, seen = [value], {value}
        while waiting:
            value = waiting.pop()
            if not isinstance(value, Node) or is_loaded(value):
                yield value
                continue
            at = self._at(value)
            if at < stage and not (self._is_light(value) or isinstance(value.type, _COMPUTED_AGAIN)):
                yield value
            elif at != stage:
                below = [parent for parent in self._read(value) if parent not in seen]
                seen.update(below)
                waiting += reversed(below)

    def _computed(self) -> Iterator[Node]:
        """The nodes that some emitted function computes."""
        for node in self._nodes:
            if not node.operation.pairs_fields and node.operation not in (ENCODE, APPLY) and not is_loaded(node):
                yield node

    def _given_to_calls(self) -> Iterator[Node]:
        """The computed nodes that calls take: mixed images, and the shares of blended pairs."""
        for applied in self._modes:
            source = applied.source
            parts = (*parts_of(source), *source.inputs[2:]) if source.operation is BLEND else parts_of(source)
            taken = source.inputs if source.operation in (APPLY, ENCODE) else parts
            yield from (part for part in taken if part in self._early)

    def _loaded(self) -> Iterator[Node]:
        """The values of a batch: of a chain of views only the last."""
        read = {parent for node in self._nodes if not is_loaded(node) for parent in node.inputs}
        read.update(self._program.roots())
        for node in self._nodes:
            if is_loaded(node) and node in read:
                yield node


def _taken(source: Node) -> tuple[Node, ...]:
    """The nodes that a call takes: a source, or the inputs of an `apply` node, or of the `encode` node of a text decoder."""
    return source.inputs if source.operation in (APPLY, ENCODE) else (source,)


def logits_of(states: Applied) -> Applied:
    """The logits of the tokens whose states a module outputs."""
    return Applied(vocabulary_use(states.use), states)


def linear_of(states: Applied) -> Linear:
    """The input of a function that itself multiplies these states, or a transform of them, by a weight."""
    use = vocabulary_use(states.use)
    transform = isinstance(use.module.settings, VocabularySettings) and use.module.settings.transform
    return Linear(use, Applied(replace(use, product=False), states) if transform else states)


def product_of(logits: Node) -> Linear:
    """The input of a function that itself multiplies the states of patches by the weight of a linear map."""
    use = use_of(logits)
    return Linear(use, Applied(replace(use, product=False), logits))


def applied_of(encode: Node) -> Applied:
    """The output of the last head, the tower or the module of an `encode` or `apply` node."""
    if encode.operation is APPLY:
        return Applied(use_of(encode), encode)
    value = _entering(encode)
    for use in uses_of(encoder_of(encode)):
        value = Applied(use, value)
    assert isinstance(value, Applied)
    return value


def _entering(encode: Node) -> Value:
    """What enters a tower: a source; for a text decoder all inputs of the node, which stands for them."""
    return encode.inputs[0] if encoder_of(encode).decoder is None else encode


def _mode(source: Node, kind: str) -> Mode:
    """What a tower sees of a source: the side of the smallest crop, and the shares of patches that are dropped."""
    sides, dropped = [1.0], []
    for node in walk([source]):
        if node.operation is CROP:
            sides.append(node.number("side"))
        elif node.operation is DROP:
            dropped.append(node.number("share"))
    replaced = any(replacements_of(part) for part in parts_of(source))
    return Mode(kind, min(sides), tuple(dropped), source.operation is BLEND, replaced=replaced)
