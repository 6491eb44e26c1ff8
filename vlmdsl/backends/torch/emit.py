"""From a planned program to readable torch source: one function per `Compute` of its schedule, one line per node, each with
the recipe's place.

This text runs (`objective.py` executes it) and is what `vlmdsl emit` shows. Calls of operations are in `calls.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vlmdsl.backends.torch.calls import Values, call_of, literal
from vlmdsl.backends.torch.naming import Names, has_line
from vlmdsl.backends.torch.passing import passed_value
from vlmdsl.diagnostics.cells import displayed
from vlmdsl.ir import Node, Program, Update, walk
from vlmdsl.ir.counted import counted_in, read_by_metrics
from vlmdsl.ir.digest import digest
from vlmdsl.ir.operations.contrast import CONTRAST
from vlmdsl.ir.operations.encoding import ENCODE
from vlmdsl.ir.operations.modules import APPLY
from vlmdsl.ir.operations.prediction import TOKEN_LOSS
from vlmdsl.ir.operations.scalars import CONSTANT, RETAIN
from vlmdsl.ir.schedule import Compute, Lowering, Schedule
from vlmdsl.passes.gathering import gathered_once
from vlmdsl.planning import AFTER_EPOCH, schedule_of
from vlmdsl.source import SourceMap

__all__ = ["emit", "emit_value"]


def emit(
    program: Program,
    sources: SourceMap | None = None,
    schedule: Schedule | None = None,
) -> str:
    """The source of every `Compute` of the program's schedule, as functions of (inputs, parameters, state).

    The last one, `objective`, gives (loss, terms, metrics, new_state); one that runs before a module is called gives what it
    computes by name; `after_epoch` gives the states that are updated after an epoch. With `sources`, lines name the
    recipe's. Operations run as `schedule.lowerings` says.
    """
    schedule = schedule or schedule_of(program)
    return _Writer(program, sources or SourceMap(), schedule.lowerings).module(schedule)


def emit_value(program: Program, node: Node) -> str:
    """The source of `objective(inputs, parameters, state)` that returns the value of one node instead of the losses.

    It includes samples that are excluded from the losses.
    """
    return _Writer(program, SourceMap(), {}, everybody=True).value_module(node)


class _Writer:
    """Writes one program: the function, one line per node, and its results."""

    def __init__(
        self, program: Program, sources: SourceMap, lowerings: Mapping[Node, Lowering], *, everybody: bool = False
    ) -> None:
        self._program = program
        self._sources = sources
        self._everybody = everybody
        self._names = Names(program)
        self._lowerings = lowerings
        chunked = [node for node, lowering in lowerings.items() if lowering.name == "chunked"]
        self._unmade = {node.inputs[0] for node in chunked if node.operation is TOKEN_LOSS}
        self._values = Values(program, lowerings)
        self._shared = gathered_once(program)

    def module(self, schedule: Schedule) -> str:
        passed = self._names.passed(schedule)
        functions = ["\n".join(self._function(compute, passed)) for compute in schedule.computes]
        if schedule.after["epoch"]:
            functions.append("\n".join(self._after_epoch()))
        return "\n".join([*self._header(), "\n\n\n".join(functions)]) + "\n"

    def _function(self, compute: Compute, passed: Mapping[Node, str]) -> list[str]:
        """One function: its inputs by name, one line per node, and its results."""
        self._values = Values(self._program, self._lowerings)
        taken = [value for value in compute.takes if isinstance(value, Node) and (not has_line(value) or value.inputs)]
        self._accuracies = {
            node: f"{self._names.of(node)}.accuracy" for node in self._program.nodes() if node.operation is CONTRAST
        }
        for node in taken:
            self._values.refer(node, passed_value(node, passed[node]))
            if node.operation is CONTRAST:
                self._accuracies[node] = f"inputs[{literal(passed[node] + '_accuracy')}]"
        roots = compute.gives or (*self._program.step_roots(), *read_by_metrics(self._program))
        body = [line for node in _needed(roots, taken) if node not in taken for line in self._lines(node)]
        passed_on = [(passed[node], self._values.of(node)) for node in compute.gives]
        given_regions = [node for node in compute.gives if node.operation is CONTRAST]
        passed_on += [(f"{passed[node]}_accuracy", self._accuracies[node]) for node in given_regions]
        results = [f"return {_dictionary(passed_on)}"] if passed_on else self._results()
        return [f"def {compute.name}(inputs, parameters, state):", *(f"    {line}" for line in [*body, *results])]

    def _after_epoch(self) -> list[str]:
        """The function that takes the state at the end of an epoch and gives what is updated then."""
        self._values = Values(self._program, self._lowerings)
        updates = self._program.updates_after("epoch")
        body = [line for node in _needed([update.node for update in updates]) for line in self._lines(node)]
        return [
            f"def {AFTER_EPOCH}(inputs, parameters, state):",
            *(f"    {line}" for line in [*body, f"return {self._updated(updates)}"]),
        ]

    def value_module(self, root: Node) -> str:
        body = [line for node in _needed([root], everybody=self._everybody) for line in self._lines(node)]
        lines = [f"    {line}" for line in [*body, f"return {self._values.of(root)}"]]
        return "\n".join([*self._header(), "def objective(inputs, parameters, state):", *lines]) + "\n"

    def _header(self) -> list[str]:
        program = self._program
        return [
            f"# recipe {displayed(program.name)}, meaning sha256:{digest(program)[:16]}",
            *(f"# from {displayed(name)} sha256:{value[:16]}" for name, value in program.digests),
            "",
            "from vlmdsl.backends.torch import ops",
            "",
            "",
        ]

    def _lines(self, node: Node) -> list[str]:
        """The statement of a node; none for numbers, which are written where they are used, and for calls of encoders."""
        if node.operation is CONSTANT:
            self._values.refer(node, repr(node.number("value")))
            return []
        if not has_line(node) or node in self._unmade:
            return []
        if self._everybody and node.operation is RETAIN:
            self._values.refer(node, self._values.of(node.inputs[0]))
            return []
        written = call_of(self._values, node)
        name = self._names.of(node)
        self._values.refer(node, f"{name}.loss" if node.operation is CONTRAST else name)
        *first, last = f"{name} = {written}".split("\n")
        lines = [*first, last + self._place(node)]
        if node in self._shared:
            everybody = self._names.gathered(node)
            self._values.gather(node, everybody)
            lines.append(f"{everybody} = ops.gather({name})")
        return lines

    def _place(self, node: Node) -> str:
        spans = self._program.graph.spans_of(node)
        if not spans or spans[0].file not in self._sources.texts:
            return ""
        line, _ = self._sources.get(spans[0].file).position(spans[0].start)
        return f"  # {displayed(spans[0].file)}:{line}"

    def _results(self) -> list[str]:
        terms = [(term.name, self._values.of(term.node)) for term in self._program.terms]
        metrics = [(metric.name, self._values.of(metric.node)) for metric in self._program.metrics]
        for term in self._program.terms:
            regions = [self._accuracies[region] for region in _regions(term.node)]
            if regions:
                total = " + ".join(regions)
                metrics.append((f"{term.name}.accuracy", total if len(regions) == 1 else f"({total}) / {len(regions)}"))
            for counted, nodes in counted_in(term.node).items():
                written = ", ".join(self._values.of(node) for node in nodes)
                metrics.append((f"{term.name}.{counted.metric}", f"ops.{counted.function}({written})"))
        return [
            f"loss = {' + '.join(value for _, value in terms)}",
            f"terms = {_dictionary(terms)}",
            f"metrics = {_dictionary(metrics)}",
            f"return loss, terms, metrics, {self._updated(self._program.updates_after('step'))}",
        ]

    def _updated(self, updates: Iterable[Update]) -> str:
        """States by name with what they become."""
        return _dictionary([(update.state.string("name"), self._values.of(update.node)) for update in updates])


def _needed(roots: Iterable[Node], taken: Iterable[Node] = (), *, everybody: bool = False) -> list[Node]:
    """What `roots` need once modules have been called and `taken` is there, inputs before users; of `everybody`, without the
    conditions by which samples are left out."""
    roots = list(roots)
    ends = set(taken)
    needed: set[Node] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            inputs = node.inputs[:1] if everybody and node.operation is RETAIN else node.inputs
            stack.extend(() if node.operation in (ENCODE, APPLY) or node in ends else inputs)
    return [node for node in walk(roots) if node in needed]


def _regions(term: Node) -> list[Node]:
    """The contrastive regions of a term, in order."""
    return [node for node in walk([term]) if node.operation is CONTRAST]


def _dictionary(items: list[tuple[str, str]]) -> str:
    return "{" + ", ".join(f"{literal(name)}: {value}" for name, value in items) + "}"
