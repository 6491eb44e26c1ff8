"""From a planned program to readable torch source: one function, a line a node, each with the recipe's place.

The text is what runs (`objective.py` executes it as it is) and what `vlmdsl emit` shows. A new operation is one row of
`RULES`: how a call of it is written, given how its inputs are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from vlmdsl.backends.torch.naming import Names, has_line
from vlmdsl.ir import (
    Contrast,
    Direction,
    Node,
    Program,
    Stream,
    TargetPart,
    block_of,
    column_of,
    encoder_of,
    mixtures,
    readings,
    streams,
    walk,
)
from vlmdsl.ir.digest import digest
from vlmdsl.source import SourceMap
from vlmdsl.types import LossType, ScalarType, ScoreType, TargetType

__all__ = ["RULES", "emit", "emit_value"]


def emit(program: Program, sources: SourceMap | None = None) -> str:
    """The source of `objective(inputs, parameters, state) -> (loss, terms, metrics, new_state)`; with `sources`, lines name
    the recipe's. Where images are mixed, `mixtures(inputs)` gives what to mix them by, (share, block) in turn, by name, and
    where they are blended with texts, `blends(inputs)` their share by stream."""
    return _Writer(program, sources or SourceMap()).module()


def emit_value(program: Program, node: Node) -> str:
    """The source of `objective(inputs, parameters, state)` that returns the value of one node instead of the losses."""
    return _Writer(program, SourceMap()).value_module(node)


class _Writer:
    """Writes one program; `value(node)` is how a node is referred to once its line stands."""

    def __init__(self, program: Program, sources: SourceMap) -> None:
        self._program = program
        self._sources = sources
        self._names = Names(program)
        self._values: dict[int, str] = {}
        self._streams = {stream.encode.index: stream for stream in streams(program)}

    def value(self, node: Node) -> str:
        return self._values[node.index]

    def stream(self, encode: Node) -> Stream:
        return self._streams[encode.index]

    def module(self) -> str:
        body = [line for node in _after_encoding(self._program.roots()) for line in self._lines(node)]
        written = [*self._header(), *(f"    {line}" for line in [*body, *self._results()])]
        written += [*self._mixtures(), *self._blends()]
        return "\n".join(written) + "\n"

    def _mixtures(self) -> list[str]:
        """The function of what images are mixed by, which is computed before they are encoded."""
        mixed = {read.name: mixtures(read.source) for read in readings(self._streams.values())}
        body = self._body(node.inputs[1] for nodes in mixed.values() for node in nodes)
        said = {
            name: [f"({self.value(node.inputs[1])}, {block_of(node)})," for node in nodes] for name, nodes in mixed.items()
        }
        return _function("mixtures", body, [(name, f"({' '.join(pairs)})") for name, pairs in said.items() if pairs])

    def _blends(self) -> list[str]:
        """The function of the images' shares where they are blended with texts."""
        blended = [stream for stream in self._streams.values() if stream.source.operation == "blend"]
        body = self._body(stream.source.inputs[2] for stream in blended)
        return _function("blends", body, [(stream.name, self.value(stream.source.inputs[2])) for stream in blended])

    def _body(self, roots: Iterable[Node]) -> list[str]:
        return [line for node in walk(roots) for line in self._lines(node)]

    def value_module(self, root: Node) -> str:
        body = [line for node in _after_encoding([root]) for line in self._lines(node)]
        return "\n".join([*self._header(), *(f"    {line}" for line in [*body, f"return {self.value(root)}"])]) + "\n"

    def _header(self) -> list[str]:
        program = self._program
        return [
            f"# recipe {program.name}, meaning sha256:{digest(program)[:16]}",
            *(f"# from {name} sha256:{value[:16]}" for name, value in program.digests),
            "",
            "from vlmdsl.backends.torch import ops",
            "",
            "",
            "def objective(inputs, parameters, state):",
        ]

    def _lines(self, node: Node) -> list[str]:
        """The statement of a node; none for numbers, which stand where they are used, and for what encoders do."""
        if node.operation == "constant":
            self._values[node.index] = repr(node.number("value"))
            return []
        if not has_line(node):
            return []
        written = RULES[node.operation](self, node)
        name = self._names.of(node)
        self._values[node.index] = f"{name}.loss" if node.operation == "contrast" else name
        first, *rest = f"{name} = {written}".split("\n")
        return [*([first, *rest][:-1]), [first, *rest][-1] + self._place(node)]

    def _place(self, node: Node) -> str:
        spans = self._program.graph.spans_of(node)
        if not spans or spans[0].file not in self._sources.texts:
            return ""
        line, _ = self._sources.get(spans[0].file).position(spans[0].start)
        return f"  # {spans[0].file}:{line}"

    def _results(self) -> list[str]:
        terms = [(term.name, self.value(term.node)) for term in self._program.terms]
        metrics = [(metric.name, self.value(metric.node)) for metric in self._program.metrics]
        for term in self._program.terms:
            regions = [self._names.of(region) for region in _regions(term.node)]
            if regions:
                total = " + ".join(f"{name}.accuracy" for name in regions)
                metrics.append((f"{term.name}.accuracy", total if len(regions) == 1 else f"({total}) / {len(regions)}"))
        updates = [(update.state.string("name"), self.value(update.node)) for update in self._program.updates]
        return [
            f"loss = {' + '.join(value for _, value in terms)}",
            f"terms = {_dictionary(terms)}",
            f"metrics = {_dictionary(metrics)}",
            f"return loss, terms, metrics, {_dictionary(updates)}",
        ]


Rule: TypeAlias = Callable[[_Writer, Node], str]


def _after_encoding(roots: Iterable[Node]) -> list[Node]:
    """What is computed once the features are there: all that `roots` need but what is done to fields before."""
    needed: set[Node] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack.extend(() if node.operation == "encode" else node.inputs)
    return [node for node in walk(roots) if node in needed]


def _regions(term: Node) -> list[Node]:
    """The contrastive regions that a term is made of, in order."""
    return [node for node in walk([term]) if node.operation == "contrast"]


def _dictionary(items: list[tuple[str, str]]) -> str:
    return "{" + ", ".join(f'"{name}": {value}' for name, value in items) + "}"


def _function(name: str, body: list[str], result: list[tuple[str, str]]) -> list[str]:
    """A function of what is drawn for a step, after a gap; nothing where there is nothing to tell."""
    lines = [f"    {line}" for line in [*body, f"return {_dictionary(result)}"]]
    return ["", "", f"def {name}(inputs):", *lines] if result else []


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _call(function: str, *attributes: str) -> Rule:
    """`ops.FUNCTION(inputs, attribute=...)`; an attribute that is not there has its default."""

    def rule(writer: _Writer, node: Node) -> str:
        arguments = [writer.value(parent) for parent in node.inputs]
        given = dict(node.attributes)
        arguments += [f"{name}={_literal(given[name])}" for name in attributes if name in given]
        return f"ops.{function}({', '.join(arguments)})"

    return rule


def _infix(symbol: str, function: str) -> Rule:
    """`x SYMBOL y` on numbers and scores, a call on what is more than one tensor."""
    call = _call(function)

    def rule(writer: _Writer, node: Node) -> str:
        if not all(isinstance(parent.type, ScalarType | ScoreType | LossType) for parent in node.inputs):
            return call(writer, node)
        return f" {symbol} ".join(writer.value(parent) for parent in node.inputs)

    return rule


def _negate(writer: _Writer, node: Node) -> str:
    written = writer.value(node.inputs[0])
    return f"-{written}" if isinstance(node.type, ScalarType | ScoreType | LossType) else f"ops.negate({written})"


def _named_input(writer: _Writer, node: Node) -> str:
    return f'inputs["{node.string("name")}"]'


def _pooled(writer: _Writer, node: Node) -> str:
    stream = writer.stream(node.inputs[0])
    return f'inputs["{stream.name}"]' + ("" if encoder_of(stream.encode).learns else ".detach()")


def _tokens(writer: _Writer, node: Node) -> str:
    stream = writer.stream(node.inputs[0])
    name = f"{stream.name}_tokens" if stream.pooled else stream.name
    values = f'inputs["{name}"]' + ("" if encoder_of(stream.encode).learns else ".detach()")
    return f'ops.TokenFeatures({values}, inputs.get("{stream.name}_mask"))'


def _vocabulary(writer: _Writer, node: Node) -> str:
    stream = writer.stream(node.inputs[0])
    return f'inputs["{stream.name}_vocabulary"]' + ("" if encoder_of(stream.encode).learns else ".detach()")


def _mlm(writer: _Writer, node: Node) -> str:
    stream = writer.stream(node.inputs[0].inputs[0])
    return f'ops.mlm({writer.value(node.inputs[0])}, inputs["{stream.name}_targets"])'


def _normalize(writer: _Writer, node: Node) -> str:
    given = {name: value for name, value in node.attributes if (name, value) != ("epsilon", 0.0)}
    arguments = [writer.value(node.inputs[0]), *(f"{name}={value!r}" for name, value in given.items())]
    return f"ops.normalize({', '.join(arguments)})"


def _samples(writer: _Writer, node: Node) -> str:
    return f"ops.samples({', '.join(['inputs', *map(writer.value, node.inputs)])})"


def _unite(writer: _Writer, node: Node) -> str:
    x, y = node.inputs
    if isinstance(x.type, TargetType):
        return f"ops.unite_targets({writer.value(x)}, {writer.value(y)}, columns={x.type.columns.count('+') + 1})"
    return f"ops.unite({writer.value(x)}, {writer.value(y)})"


def _parameter(writer: _Writer, node: Node) -> str:
    return f'parameters["{node.string("name")}"]'


def _state(writer: _Writer, node: Node) -> str:
    return f'state["{node.string("name")}"]'


def _reference(writer: _Writer, node: Node) -> str:
    return f'state["{column_of(node).name}"]'


def _similarity(writer: _Writer, node: Node) -> str:
    arguments = node.attribute("arguments")
    assert isinstance(arguments, tuple)
    values = [writer.value(parent) for parent in node.inputs]
    values += [f"{name}={_literal(value)}" for name, value in (("by", node.string("by")), *arguments)]
    return f"ops.{node.operation}({', '.join(values)})"


def _contrast(writer: _Writer, node: Node) -> str:
    region = node.attribute("contrast")
    assert isinstance(region, Contrast)
    features = node.inputs[:2] if region.fused else node.inputs[:1]
    lines = ["ops.contrast(" if region.fused else "ops.contrast_of("]
    lines.append("    " + ", ".join(writer.value(parent) for parent in features) + ",")
    for name, direction in (("rows", region.rows), ("columns", region.columns)):
        if direction is not None:
            lines.append(f"    {name}=ops.Direction({', '.join(_direction(writer, node, direction))}),")
    return "\n".join([*lines, ")"])


def _direction(writer: _Writer, node: Node, direction: Direction) -> list[str]:
    arguments = [repr(direction.coefficient), _target(writer, node, direction.targets)]
    for name in ("scale", "bias", "weight", "over", "keep"):
        position = getattr(direction, name)
        if position is not None:
            arguments.append(f"{name}={writer.value(node.inputs[position])}")
    return arguments + (["without_positive=True"] if direction.without_positive else [])


def _target(writer: _Writer, node: Node, parts: tuple[TargetPart, ...]) -> str:
    written = [_target_part(writer, node, part) for part in parts]
    target = written[0]
    for part in written[1:]:
        target = f"ops.add_targets({target}, {part})"
    return target


def _target_part(writer: _Writer, node: Node, part: TargetPart) -> str:
    operand = "" if part.input is None else writer.value(node.inputs[part.input])
    made = {"same": f"ops.same({operand}, missing={part.missing})", "dense": operand}.get(part.kind, f"ops.{part.kind}()")
    return made if part.coefficient == 1.0 else f"ops.scale_target({made}, {part.coefficient!r})"


RULES: dict[str, Rule] = {
    "field": _named_input,
    "draw": _named_input,
    "pooled": _pooled,
    "tokens": _tokens,
    "vocabulary": _vocabulary,
    "mlm": _mlm,
    "parameter": _parameter,
    "samples": _samples,
    "unite": _unite,
    "state": _state,
    "memory": _state,
    "reference": _reference,
    "retrieve": _call("retrieve", "k"),
    "running_mean": _call("running_mean", "momentum"),
    "similarity": _similarity,
    "score": _similarity,
    "contrast": _contrast,
    "add": _infix("+", "add"),
    "subtract": _infix("-", "subtract"),
    "multiply": _infix("*", "multiply"),
    "divide": _infix("/", "divide"),
    "normalize": _normalize,
    "negate": _negate,
    "clamp": _call("clamp", "lower", "upper", "gradient"),
    "same": _call("same", "missing"),
    "flipped": _call("flipped", "block"),
    "mix": _call("mix", "block"),
    "smooth": _call("smooth", "epsilon", "over"),
    "distribution": _call("distribution", "temperature"),
    "transport": _call("transport", "epsilon", "iterations"),
    "target_entropy": _call("target_entropy", "along"),
    "reuse": _call("reuse", "matrix"),
    "not": _call("logical_not"),
    "cross_entropy": _call("cross_entropy", "along", "denominator"),
    "hinge": _call("hinge", "along", "margin", "negatives"),
    **{
        name: _call(name)
        for name in (
            "enqueue", "nearest", "take", "attend", "log_sum_exp", "softplus",
            "stop", "exp", "log", "minimum", "maximum", "less", "less_equal", "greater",
            "greater_equal", "equal", "not_equal", "where", "transpose", "paired", "exclude", "exclude_pairs",
            "gate", "sigmoid_loss", "softmax", "mean", "entropy", "entropy_of_mean",
        )
    },
}  # fmt: skip
"""How each operation is written: a row is all that a new one needs here."""
