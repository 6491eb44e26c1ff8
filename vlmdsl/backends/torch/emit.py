"""From a planned program to readable torch source: one function, a line a node, each with the recipe's place.

The text is what runs (`objective.py` executes it as it is) and what `vlmdsl emit` shows. How an operation is
called is its row in `calls.py`.
"""

from __future__ import annotations

from collections.abc import Iterable

from vlmdsl.backends.torch.calls import Values, call_of, literal
from vlmdsl.backends.torch.naming import Names, has_line
from vlmdsl.diagnostics.cells import displayed
from vlmdsl.ir import (
    Node,
    Program,
    block_of,
    mixtures,
    readings,
    walk,
)
from vlmdsl.ir.digest import digest
from vlmdsl.ir.operations.contrast import CONTRAST
from vlmdsl.ir.operations.encoding import ENCODE
from vlmdsl.ir.operations.scalars import CONSTANT, RETAIN
from vlmdsl.ir.operations.views import BLEND
from vlmdsl.source import SourceMap

__all__ = ["emit", "emit_value"]


def emit(program: Program, sources: SourceMap | None = None) -> str:
    """The source of `objective(inputs, parameters, state) -> (loss, terms, metrics, new_state)`; with `sources`, lines name
    the recipe's. Where images are mixed, `mixtures(inputs)` gives what to mix them by, (share, block) in turn, by name, and
    where they are blended with texts, `blends(inputs)` their share by stream."""
    return _Writer(program, sources or SourceMap()).module()


def emit_value(program: Program, node: Node) -> str:
    """The source of `objective(inputs, parameters, state)` that returns the value of one node instead of the losses.

    Samples that the losses leave out are there as well.
    """
    return _Writer(program, SourceMap(), everybody=True).value_module(node)


class _Writer:
    """Writes one program: the function, a line a node, and its results."""

    def __init__(self, program: Program, sources: SourceMap, *, everybody: bool = False) -> None:
        self._program = program
        self._sources = sources
        self._everybody = everybody
        self._names = Names(program)
        self._values = Values(program)

    def module(self) -> str:
        body = [line for node in _after_encoding(self._program.roots()) for line in self._lines(node)]
        written = [*self._header(), *(f"    {line}" for line in [*body, *self._results()])]
        written += [*self._mixtures(), *self._blends()]
        return "\n".join(written) + "\n"

    def _mixtures(self) -> list[str]:
        """The function of what images are mixed by, which is computed before they are encoded."""
        mixed = {read.name: mixtures(read.source) for read in readings(self._values.streams)}
        body = self._body(node.inputs[1] for nodes in mixed.values() for node in nodes)
        said = {name: [self._mixture(node) for node in nodes] for name, nodes in mixed.items() if nodes}
        return _function("mixtures", body, [(name, f"({' '.join(pairs)})") for name, pairs in said.items()])

    def _mixture(self, node: Node) -> str:
        return f"({self._values.of(node.inputs[1])}, {block_of(node)}),"

    def _blends(self) -> list[str]:
        """The function of the images' shares where they are blended with texts."""
        shares = {
            stream.name: stream.source.inputs[2] for stream in self._values.streams if stream.source.operation is BLEND
        }
        body = self._body(shares.values())
        return _function("blends", body, [(name, self._values.of(share)) for name, share in shares.items()])

    def _body(self, roots: Iterable[Node]) -> list[str]:
        return [line for node in walk(roots) for line in self._lines(node)]

    def value_module(self, root: Node) -> str:
        body = [line for node in _after_encoding([root], everybody=self._everybody) for line in self._lines(node)]
        return "\n".join([*self._header(), *(f"    {line}" for line in [*body, f"return {self._values.of(root)}"])]) + "\n"

    def _header(self) -> list[str]:
        program = self._program
        return [
            f"# recipe {displayed(program.name)}, meaning sha256:{digest(program)[:16]}",
            *(f"# from {displayed(name)} sha256:{value[:16]}" for name, value in program.digests),
            "",
            "from vlmdsl.backends.torch import ops",
            "",
            "",
            "def objective(inputs, parameters, state):",
        ]

    def _lines(self, node: Node) -> list[str]:
        """The statement of a node; none for numbers, which stand where they are used, and for what encoders do."""
        if node.operation is CONSTANT:
            self._values.refer(node, repr(node.number("value")))
            return []
        if not has_line(node):
            return []
        if self._everybody and node.operation is RETAIN:
            self._values.refer(node, self._values.of(node.inputs[0]))
            return []
        written = call_of(self._values, node)
        name = self._names.of(node)
        self._values.refer(node, f"{name}.loss" if node.operation is CONTRAST else name)
        first, *rest = f"{name} = {written}".split("\n")
        return [*([first, *rest][:-1]), [first, *rest][-1] + self._place(node)]

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
            regions = [self._names.of(region) for region in _regions(term.node)]
            if regions:
                total = " + ".join(f"{name}.accuracy" for name in regions)
                metrics.append((f"{term.name}.accuracy", total if len(regions) == 1 else f"({total}) / {len(regions)}"))
        updates = [(update.state.string("name"), self._values.of(update.node)) for update in self._program.updates]
        return [
            f"loss = {' + '.join(value for _, value in terms)}",
            f"terms = {_dictionary(terms)}",
            f"metrics = {_dictionary(metrics)}",
            f"return loss, terms, metrics, {_dictionary(updates)}",
        ]


def _after_encoding(roots: Iterable[Node], *, everybody: bool = False) -> list[Node]:
    """What is computed once the features are there: all that `roots` need but what is done to fields before; of `everybody`,
    without the conditions by which samples are left out."""
    needed: set[Node] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            inputs = node.inputs[:1] if everybody and node.operation is RETAIN else node.inputs
            stack.extend(() if node.operation is ENCODE else inputs)
    return [node for node in walk(roots) if node in needed]


def _regions(term: Node) -> list[Node]:
    """The contrastive regions that a term is made of, in order."""
    return [node for node in walk([term]) if node.operation is CONTRAST]


def _dictionary(items: list[tuple[str, str]]) -> str:
    return "{" + ", ".join(f"{literal(name)}: {value}" for name, value in items) + "}"


def _function(name: str, body: list[str], result: list[tuple[str, str]]) -> list[str]:
    """A function of what is drawn for a step, after a gap; nothing where there is nothing to tell."""
    lines = [f"    {line}" for line in [*body, f"return {_dictionary(result)}"]]
    return ["", "", f"def {name}(inputs):", *lines] if result else []
