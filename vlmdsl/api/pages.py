"""The contents of explanation pages: arguments of primitives, needs of recipes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from textwrap import indent
from typing import Any

from vlmdsl.api.status import standing
from vlmdsl.diagnostics import DiagnosticError, closest, render_text
from vlmdsl.diagnostics.catalog.names import UnknownRecipe
from vlmdsl.frontend.coerce import words
from vlmdsl.ir import MIXED, ONE_SOURCE, Node, Program, Update, columns, head_words, inputs, parameters, root_field, streams
from vlmdsl.ir.operations.state import MEMORY
from vlmdsl.ir.ramps import Duration, Ramp
from vlmdsl.passes import optimise
from vlmdsl.primitives import Primitive
from vlmdsl.source import SourceMap, Span
from vlmdsl.types import FIELD_KINDS, PerSampleType

__all__ = [
    "Argument",
    "argument_table",
    "bounds",
    "parameter_facts",
    "primitive_arguments",
    "recipe_facts",
    "recipe_sections",
    "unknown_subject",
]


_BATCHES = {MIXED: "", ONE_SOURCE: "  all samples of a batch come from one source of the data"}


@dataclass(frozen=True)
class Argument:
    """One argument of a primitive, as its page shows it."""

    name: str
    takes: str
    default: str
    description: str

    def facts(self) -> Mapping[str, str]:
        return {"name": self.name, "takes": self.takes, "default": self.default, "description": self.description}


def primitive_arguments(primitive: Primitive) -> list[Argument]:
    """Subjects first, then parameters, from their declarations."""
    arguments = [
        Argument(subject.name, words(subject.accepts), "" if subject.default is None else "optional", subject.description)
        for subject in primitive.subjects
    ]
    properties: Mapping[str, Any] = primitive.parameters.model_json_schema(by_alias=True).get("properties", {})
    for name, schema in properties.items():
        default = _literal(schema["default"]) if "default" in schema else ""
        arguments.append(Argument(name, _takes(schema), default, schema.get("description", "")))
    return arguments


def _literal(default: object) -> str:
    """A default as a recipe would write it; a missing value means that the argument is optional."""
    if default is None:
        return "optional"
    return (
        f'"{default}"' if isinstance(default, str) else str(default).lower() if isinstance(default, bool) else f"{default}"
    )


def _takes(schema: Mapping[str, Any]) -> str:
    if "enum" in schema or "const" in schema:
        return " or ".join(f'"{word}"' for word in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return " or ".join(_takes(option) for option in schema["anyOf"] if option.get("type") != "null")
    kind = {"integer": "integer", "number": "number", "string": "string", "boolean": "true or false"}
    bounds = [
        f"{sign} {schema[key]:g}"
        for key, sign in (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))
        if key in schema
    ]
    return " ".join([kind.get(schema.get("type", ""), "value"), ", ".join(bounds)]).strip()


def argument_table(arguments: Iterable[Argument]) -> str:
    """One line per argument: name, type, default, purpose."""
    lines = []
    for argument in arguments:
        default = f" (default {argument.default})" if argument.default not in ("", "optional") else ""
        optional = " (optional)" if argument.default == "optional" else ""
        description = indent(argument.description, "      ")
        lines.append(f"  {argument.name}: {argument.takes}{default}{optional}\n{description}")
    return "\n".join(lines)


def recipe_facts(program: Program) -> dict[str, object]:
    """What a recipe is made of and what it needs, as plain data."""
    planned, stands = optimise(program), standing(program)
    return {
        "kind": "recipe",
        "name": program.name,
        "documentation": program.documentation,
        "citations": list(program.citations),
        "status": stands.text,
        "status_holds": stands.holds,
        "batch_policy": program.batch_policy,
        "terms": [term.name for term in program.terms],
        "fields": {name: str(type) for name, type in program.fields} | _rewrites(planned),
        "knobs": dict(program.knobs),
        "encoders": _encoders(planned),
        "reference": [{"tower": column.encoder.tower, "field": column.field} for column in columns(planned)],
        "inputs": [
            {"name": spec.name, "axes": list(spec.axes), "dtype": spec.dtype, "meaning": spec.meaning}
            for spec in inputs(planned)
        ],
        "learned": [parameter_facts(node) for node in parameters(planned)],
        "state": [_state_facts(update) for update in planned.updates],
    }


def _rewrites(program: Program) -> dict[str, str]:
    """The fields that views draw rewrites from."""
    read = [root_field(node).string("name") for node in program.nodes() if node.operation.reads_rewrites]
    return {f"{name}_rewrites": "Rewrites" for name in read}


def _encoders(program: Program) -> list[dict[str, object]]:
    return [
        {
            "stream": stream.name,
            "tower": stream.encoder.tower,
            "frozen": stream.encoder.frozen,
            "heads": [{**asdict(head), "made_of": head_words(head)} for head in stream.encoder.heads],
            "teacher": None if stream.encoder.teacher is None else asdict(stream.encoder.teacher),
            "yields": list(stream.outputs),
        }
        for stream in streams(program)
    ]


def parameter_facts(node: Node) -> dict[str, Any]:
    """The name, initial value and bounds of a learned parameter, as stored (a temperature as its log scale)."""
    return {key: node.attribute(key) for key in ("name", "initial", "lower", "upper")}


def _state_facts(update: Update) -> dict[str, object]:
    node = update.state
    if node.operation is MEMORY:
        return {"name": node.string("name"), "kind": f"queue of {node.attribute('size')}", "starts": node.string("start")}
    kind = update.node.operation.replace("_", " ")
    if isinstance(node.type, PerSampleType):
        kind = f"a number per sample of the data set, updated after every {update.when}"
    start = "with a sample's first number" if node.attribute("initial") is None else f"at {node.number('initial'):g}"
    return {"name": node.string("name"), "kind": kind, "starts": start}


def recipe_sections(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The facts of a recipe in words."""
    sections = [
        ("Evidence", "\n".join([*(f"cites {text}" for text in facts["citations"]), facts["status"]]).strip()),
        ("Terms", ", ".join(facts["terms"])),
        ("Fields", "\n".join(f"  {name}: {type}{_note(type)}" for name, type in facts["fields"].items())),
        ("Hyper-parameters", "\n".join(f"  {name} = {_plain(value)}" for name, value in facts["knobs"].items())),
        ("Encoders", "\n".join(_encoder_line(encoder) for encoder in facts["encoders"])),
        ("Reference set", "\n".join(f"  {column['tower']} of {column['field']}" for column in facts["reference"])),
        ("Heads", "\n".join(_head_lines(facts["encoders"]))),
        ("Learned parameters", "\n".join(_learned_line(learned) for learned in facts["learned"])),
        ("Batches", _BATCHES[facts["batch_policy"]]),
        ("State", "\n".join(_state_line(state) for state in facts["state"])),
        ("Inputs of the objective", "\n".join(_input_line(spec) for spec in facts["inputs"])),
    ]
    return [section for section in sections if section[1]]


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _encoder_line(encoder: Mapping[str, Any]) -> str:
    frozen = ", frozen" if encoder["frozen"] else ""
    if encoder["teacher"] is not None:
        teacher = encoder["teacher"]
        when = {"before": "before the forward pass", "after": "after the optimiser step"}[teacher["order"]]
        frozen = f", a teacher with {_momentum_words(teacher)}, updated {when}"
    heads = "".join(f", then {head['name']}" for head in encoder["heads"])
    return f"  {encoder['stream']}: {encoder['tower']}{heads}{frozen}, outputs {' and '.join(encoder['yields'])}"


def _momentum_words(teacher: Mapping[str, Any]) -> str:
    momentum = teacher["momentum"]
    if not isinstance(momentum, Mapping):
        return f"{teacher['schedule']} momentum {momentum:g}"
    parts = {name: Duration(**momentum[name]) for name in ("over", "after")}
    return f"momentum {Ramp(**{**momentum, **parts})}"


def _head_lines(encoders: Iterable[Mapping[str, Any]]) -> list[str]:
    """Each distinct head once."""
    return list(dict.fromkeys(f"  {head['name']}: {head['made_of']}" for encoder in encoders for head in encoder["heads"]))


def _learned_line(learned: Mapping[str, Any]) -> str:
    return f"  {learned['name']}: initially {learned['initial']:.4g}{bounds(learned)}"


def bounds(learned: Mapping[str, Any]) -> str:
    """How a learned parameter is clamped after each step, in words; empty if it has no bounds."""
    lower, upper = learned["lower"], learned["upper"]
    if lower is None and upper is None:
        return ""
    if upper is None:
        limits = f"at least {lower:.4g}"
    elif lower is None:
        limits = f"at most {upper:.4g}"
    else:
        limits = f"[{lower:.4g}, {upper:.4g}]"
    return f", clamped to {limits} after each step"


def _state_line(state: Mapping[str, Any]) -> str:
    return f"  {state['name']}: {state['kind']}, starts {state['starts']}"


def _input_line(spec: Mapping[str, Any]) -> str:
    return f"  {spec['name']} [{', '.join(spec['axes'])}] {spec['dtype']}: {spec['meaning']}"


def unknown_subject(word: str, names: Iterable[str]) -> DiagnosticError:
    """V0202 for a word that is neither a recipe nor a primitive nor a code."""
    near = closest(word, names)
    help = (
        f"did you mean `{near}`?"
        if near
        else "give a recipe, a primitive (tokenmax), a diagnostic code (V0304) or `settings`"
    )
    diagnostic = UnknownRecipe.at(Span("<command line>", 0, 0), help=(help,), name=word)
    return DiagnosticError((diagnostic,), render_text([diagnostic], SourceMap()))


def _note(type: str) -> str:
    """A note in parentheses on a field that is not a single column."""
    if type == "Rewrites":
        return " (rewrites of the text: a column of lists, or several columns)"
    return f" ({FIELD_KINDS[type].note})" if type in FIELD_KINDS and FIELD_KINDS[type].note else ""
