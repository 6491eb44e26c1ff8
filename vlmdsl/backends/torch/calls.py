"""How calls of operations are written, given their inputs: by name, unless the operation has a row in `RULES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from vlmdsl.ir import (
    CODES,
    Contrast,
    Direction,
    ModuleOutput,
    Node,
    Program,
    Stream,
    TargetPart,
    column_of,
    module_outputs,
    streams,
)
from vlmdsl.ir.operations.contrast import CONTRAST
from vlmdsl.ir.operations.encoding import NORMALIZE, PATCH_CODES, POOLED, TOKENS, VOCABULARY
from vlmdsl.ir.operations.grounding import WORD_MAP
from vlmdsl.ir.operations.grouping import ASSIGNMENT, PATCH_SEGMENTS
from vlmdsl.ir.operations.matrices import SCORE, SIMILARITY, UNITE
from vlmdsl.ir.operations.modules import APPLY, DROPPED, EMBEDDED, OWN, PIXELS, REPLACED, STATES
from vlmdsl.ir.operations.per_sample import INDEX
from vlmdsl.ir.operations.prediction import TOKEN_IDS, TOKEN_LOSS, predicted_by
from vlmdsl.ir.operations.reductions import SAMPLES
from vlmdsl.ir.operations.reference import REFERENCE
from vlmdsl.ir.operations.rules import of_samples
from vlmdsl.ir.operations.scalars import ADD, AND, DIVIDE, DRAW, MULTIPLY, NEGATE, NOT, OR, PARAMETER, RAMP, SCALAR, SUBTRACT
from vlmdsl.ir.operations.state import MEMORY, STATE
from vlmdsl.ir.operations.targets import SAME
from vlmdsl.ir.operations.views import FIELD
from vlmdsl.ir.schedule import Lowering
from vlmdsl.passes.gathering import gathered_by
from vlmdsl.types import AlignmentType, LossType, ScalarType, ScoreType, TargetType, TokensType, VecType

__all__ = ["RULES", "Values", "call_of", "literal"]


_TENSORS = ScalarType | ScoreType | AlignmentType | LossType
"""Types whose values are one tensor, so that Python's operators compute with them."""
_MODULES = {"dense": "ops", "chunked": "ops.tiled", "search": "ops"}
"""Where the function of an operation is, by the name of its lowering."""


class Values:
    """The references to the values of one program that are already computed, and their streams."""

    def __init__(self, program: Program, lowerings: Mapping[Node, Lowering]) -> None:
        self._lowerings = lowerings
        self._written: dict[int, str] = {}
        self._gathered: dict[int, str] = {}
        self._outputs: dict[int, Stream | ModuleOutput] = {stream.encode.index: stream for stream in streams(program)}
        self._outputs |= {output.node.index: output for output in module_outputs(program)}

    def refer(self, node: Node, written: str) -> None:
        """Refer to a node as `written` from now on."""
        self._written[node.index] = written

    def of(self, node: Node) -> str:
        return self._written[node.index]

    def gather(self, node: Node, written: str) -> None:
        """Refer to the gathered features of a node as `written`."""
        self._gathered[node.index] = written

    def compared(self, node: Node) -> list[str]:
        """The inputs of a comparison; gathered features are passed by name if they exist."""
        written = [self.of(parent) for parent in node.inputs]
        features = gathered_by(node)
        if features is not None:
            written[1] = self._gathered.get(features.index, written[1])
        return written

    def ops(self, node: Node) -> str:
        """The module of the function that a node calls, by its lowering."""
        lowering = self._lowerings.get(node)
        return "ops" if lowering is None else _MODULES[lowering.name]

    def output(self, encode: Node) -> Stream | ModuleOutput:
        """The output of an `encode` or `apply` node, with its input names."""
        return self._outputs[encode.index]


Rule: TypeAlias = Callable[[Values, Node], str]


def _call(function: str) -> Rule:
    """`ops.FUNCTION(inputs, attribute=...)`; missing attributes have their defaults."""

    def rule(values: Values, node: Node) -> str:
        arguments = [values.of(parent) for parent in of_samples(node).inputs]
        present = dict(node.attributes)
        arguments += [f"{name}={literal(present[name])}" for name in node.operation.attributes if name in present]
        return f"{values.ops(node)}.{function}({', '.join([*arguments, *_samples_chosen(values, node)])})"

    return rule


def _samples_chosen(values: Values, node: Node) -> list[str]:
    """Which samples a mean is over, and how much each of them counts, as arguments; none where all count alike."""
    _, where, weight = of_samples(node)
    named = {"where": where, "sample_weight": weight}
    return [f"{name}={values.of(parent)}" for name, parent in named.items() if parent is not None]


def _infix(symbol: str) -> Rule:
    """`x SYMBOL y` on numbers and scores, a call on what is more than one tensor."""

    def rule(values: Values, node: Node) -> str:
        if isinstance(node.type, VecType):
            return _call(f"{node.operation}_features")(values, node)
        if not all(isinstance(parent.type, _TENSORS) for parent in node.inputs):
            return _call(node.operation)(values, node)
        return f" {symbol} ".join(values.of(parent) for parent in node.inputs)

    return rule


def literal(value: object) -> str:
    """A number, string or tuple as a Python literal in ASCII, which is safe for any string."""
    escaped = ascii(value)
    inside = escaped[1:-1]
    return f'"{inside}"' if isinstance(value, str) and inside == value and '"' not in value else escaped


def _item(mapping: str, name: str) -> str:
    return f"{mapping}[{literal(name)}]"


def _negate(values: Values, node: Node) -> str:
    written = values.of(node.inputs[0])
    return f"-{written}" if isinstance(node.type, _TENSORS) else f"ops.negate({written})"


def _named_input(values: Values, node: Node) -> str:
    return _item("inputs", node.string("name"))


def _pooled(values: Values, node: Node) -> str:
    return _features(values, node.inputs[0], "pooled")


def _tokens(values: Values, node: Node) -> str:
    features, mask = _features(values, node.inputs[0], node.operation), values.output(node.inputs[0]).input("mask")
    return f"ops.tokens({features}, inputs.get({literal(mask)}))"


def _vocabulary(values: Values, node: Node) -> str:
    return _features(values, node.inputs[0], "vocabulary")


def _applied(values: Values, node: Node) -> str:
    """What a head or a decoder gives; of fusion the operations that read its outputs say which."""
    if not isinstance(node.type, TokensType):
        return _features(values, node, "pooled")
    features, mask = _features(values, node, "tokens"), values.output(node).input("mask")
    return f"ops.tokens({features}, inputs.get({literal(mask)}))"


def _pixels(values: Values, node: Node) -> str:
    """The pixels are an input; their patches are as long as those that they are compared with."""
    encode, compared = node.inputs
    image, side = _item("inputs", values.output(encode).input("pixels")), f"ops.patch_side({values.of(compared)})"
    return f"ops.pixels({image}, {side}, normalised={literal(node.string('normalised'))})"


def _named_after(values: Values, node: Node) -> str:
    """What the tower was given, or gave without gradient: the input that is named like the operation."""
    return _item("inputs", values.output(node.inputs[0]).input(node.operation))


def _word_map(values: Values, node: Node) -> str:
    encode, boxes = node.inputs
    names = (values.output(encode).input(part) for part in ("words", "mask"))
    words, mask = (literal(name) for name in names)
    return f"ops.word_map(inputs[{words}], inputs.get({mask}), {values.of(boxes)})"


def _features(values: Values, encode: Node, output: str) -> str:
    """One output of an encoder or a module, as an input."""
    owner = values.output(encode)
    return _item("inputs", owner.input(output)) + ("" if owner.learns else ".detach()")


def _token_ids(values: Values, node: Node) -> str:
    return _item("inputs", values.output(node.inputs[0]).input(CODES[node.string("which")]))


def _normalize(values: Values, node: Node) -> str:
    options = {name: value for name, value in node.attributes if (name, value) != ("epsilon", 0.0)}
    arguments = [values.of(node.inputs[0]), *(f"{name}={value!r}" for name, value in options.items())]
    return f"ops.normalize({', '.join(arguments)})"


def _samples(values: Values, node: Node) -> str:
    return f"ops.samples({', '.join(['inputs', *map(values.of, node.inputs)])})"


def _same(values: Values, node: Node) -> str:
    label, *earlier = (values.of(parent) for parent in node.inputs)
    missing = int(node.number("missing"))
    return f"ops.same({', '.join([label, f'missing={missing}', *(f'earlier={labels}' for labels in earlier)])})"


def _unite(values: Values, node: Node) -> str:
    x, y = node.inputs
    if isinstance(x.type, TargetType):
        return f"ops.unite_targets({values.of(x)}, {values.of(y)})"
    return f"ops.unite({values.of(x)}, {values.of(y)})"


def _parameter(values: Values, node: Node) -> str:
    return _item("parameters", node.string("name"))


def _state(values: Values, node: Node) -> str:
    return _item("state", node.string("name"))


def _reference(values: Values, node: Node) -> str:
    return _item("state", column_of(node).name)


def _similarity(values: Values, node: Node) -> str:
    arguments = node.attribute("arguments")
    assert isinstance(arguments, tuple)
    written = values.compared(node)
    written += [f"{name}={literal(value)}" for name, value in (("by", node.string("by")), *arguments)]
    return f"{values.ops(node)}.{node.operation}({', '.join(written)})"


def _contrast(values: Values, node: Node) -> str:
    region = node.attribute("contrast")
    assert isinstance(region, Contrast)
    features = values.compared(node)[: 2 if region.fused else 1]
    lines = [f"{values.ops(node)}.contrast(" if region.fused else "ops.contrast_of("]
    lines.append("    " + ", ".join(features) + ",")
    for name, direction in (("rows", region.rows), ("columns", region.columns)):
        if direction is not None:
            lines.append(f"    {name}=ops.Direction({', '.join(_direction(values, node, direction))}),")
    return "\n".join([*lines, ")"])


def _direction(values: Values, node: Node, direction: Direction) -> list[str]:
    arguments = [repr(direction.coefficient), _target(values, node, direction.targets)]
    for name in ("scale", "bias", "weight", "over", "keep"):
        position = getattr(direction, name)
        if position is not None:
            arguments.append(f"{name}={values.of(node.inputs[position])}")
    return arguments + (["without_positive=True"] if direction.without_positive else [])


def _target(values: Values, node: Node, parts: tuple[TargetPart, ...]) -> str:
    written = [_target_part(values, node, part) for part in parts]
    target = written[0]
    for part in written[1:]:
        target = f"ops.add_targets({target}, {part})"
    return target


def _target_part(values: Values, node: Node, part: TargetPart) -> str:
    operand = "" if part.input is None else values.of(node.inputs[part.input])
    built = {"same": f"ops.same({operand}, missing={part.missing})", "dense": operand}.get(part.kind, f"ops.{part.kind}()")
    return built if part.coefficient == 1.0 else f"ops.scale_target({built}, {part.coefficient!r})"


def _plugin(values: Values, node: Node) -> str:
    """Functions of plug-ins are called through `ops`: emitted source calls nothing else."""
    kinds = ((TargetType, "plugin_target"), (LossType, "plugin_token_criterion"))
    function = next((name for kind, name in kinds if isinstance(node.type, kind)), "plugin_criterion")
    arguments = [literal(str(node.operation)), *(values.of(parent) for parent in of_samples(node).inputs)]
    arguments += [f"{name}={literal(value)}" for name, value in node.attributes]
    arguments += _samples_chosen(values, node)
    return f"ops.{function}({', '.join(arguments)})"


def _token_loss(values: Values, node: Node) -> str:
    """Of logits; in chunks of tokens of what they are a product of, which are inputs."""
    logits, ids = of_samples(node).inputs
    if values.ops(node) == "ops":
        return _call("token_loss")(values, node)
    owner = values.output(predicted_by(logits))
    states, weight = (_item("inputs", name) for name in (owner.input("predicted"), f"{owner.linear}_weight"))
    bias = f"inputs.get({literal(f'{owner.linear}_bias')})"
    arguments = [states, weight, values.of(ids), bias, *(f"{name}={literal(value)}" for name, value in node.attributes)]
    arguments += _samples_chosen(values, node)
    written = f"ops.linear_cross_entropy({', '.join(arguments)})"
    return written if owner.learns else f"ops.stop({written})"


RULES: dict[str, Rule] = {
    FIELD: _named_input,
    SCALAR: _named_input,
    DRAW: _named_input,
    RAMP: _named_input,
    INDEX: _named_input,
    POOLED: _pooled,
    TOKENS: _tokens,
    STATES: _tokens,
    EMBEDDED: _tokens,
    APPLY: _applied,
    PIXELS: _pixels,
    DROPPED: _named_after,
    REPLACED: _named_after,
    OWN: _named_input,
    PATCH_CODES: _named_after,
    WORD_MAP: _word_map,
    ASSIGNMENT: lambda values, node: _features(values, node.inputs[0], "assignment"),
    PATCH_SEGMENTS: lambda values, node: _item("inputs", values.output(node.inputs[0]).input("segments")),
    VOCABULARY: _vocabulary,
    TOKEN_IDS: _token_ids,
    TOKEN_LOSS: _token_loss,
    PARAMETER: _parameter,
    SAMPLES: _samples,
    UNITE: _unite,
    STATE: _state,
    MEMORY: _state,
    REFERENCE: _reference,
    SIMILARITY: _similarity,
    SCORE: _similarity,
    CONTRAST: _contrast,
    ADD: _infix("+"),
    SUBTRACT: _infix("-"),
    MULTIPLY: _infix("*"),
    DIVIDE: _infix("/"),
    NORMALIZE: _normalize,
    NEGATE: _negate,
    SAME: _same,
    NOT: _call("logical_not"),
    AND: _call("logical_and"),
    OR: _call("logical_or"),
}
"""Calls that are more than `ops.OPERATION(inputs, attribute=...)`, which is how every other operation is written."""


def call_of(values: Values, node: Node) -> str:
    """How the call of a node's operation is written."""
    if node.operation.module:
        return _plugin(values, node)
    return RULES.get(node.operation, _call(node.operation))(values, node)
