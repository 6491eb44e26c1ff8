"""Name resolution: unknown names, also in uncalled `def`s, and unused definitions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from vlmdsl.diagnostics import Diagnostic, Edit, Fix, closest
from vlmdsl.diagnostics.catalog.names import Recursion, ReservedInput, UnknownName, UnusedDefinition
from vlmdsl.diagnostics.catalog.types import UnknownType
from vlmdsl.diagnostics.catalog.values import DurationWhereNumber
from vlmdsl.frontend.foreign import NAMES
from vlmdsl.frontend.scope import FileScope
from vlmdsl.primitives import broken_plugins, registered
from vlmdsl.primitives.default_encoders import DEFAULT_ENCODERS, FUSION
from vlmdsl.syntax import DURATIONS, NO_DURATIONS, children
from vlmdsl.syntax.tree import (
    Argument,
    Binary,
    Call,
    Def,
    EncoderDeclaration,
    Expression,
    Given,
    Index,
    Let,
    LetIn,
    Member,
    Minimize,
    Module,
    Name,
    Number,
    Parameter,
    Recipe,
    Tuple,
    Unary,
    Use,
)
from vlmdsl.types import FIELD_KINDS

__all__ = ["chain_text", "check_names", "free_names", "is_field_type"]

_LONGEST_CHAIN = 12
_MOST_SUGGESTIONS = 40

BARE_FIELDS = ("image", "text")
"""The fields of a program without a signature."""

RESERVED_INPUT = "self"
"""Reserved: inputs of the objective are keyword arguments, and this one is the objective itself."""

_SCHEDULES, _TIMES = ("ramp", "cosine_ramp"), ("over", "after")
"""The functions, and their arguments, that take durations."""

_VALUE_TYPES = frozenset({
    "Encoded", "Vec", "Tokens", "Distribution", "Sim", "Score", "Condition", "Target", "Scalar", "Loss", "Similarity",
    "View", "Encoder", "String", "Tuple", "Function",
})  # fmt: skip
"""Types of parameters of a `def` besides fields."""


def free_names(expression: Expression, bound: frozenset[str] = frozenset()) -> Iterator[Name]:
    """The free names of an expression."""
    match expression:
        case Name(name=name):
            if name not in bound:
                yield expression
        case Member(subject=subject):
            yield from free_names(subject, bound)
        case Index(subject=left, index=right) | Given(subject=left, context=right) | Binary(left=left, right=right):
            yield from free_names(left, bound)
            yield from free_names(right, bound)
        case Call(callee=callee, arguments=arguments):
            yield from free_names(callee, bound)
            for argument in arguments:
                yield from free_names(argument.value, bound)
        case Unary(operand=operand):
            yield from free_names(operand, bound)
        case Tuple(items=items):
            for item in items:
                yield from free_names(item, bound)
        case LetIn(name=name, value=value, body=body):
            yield from free_names(value, bound)
            yield from free_names(body, bound | {name.name})
        case _:
            return


def check_names(module: Module, scope: FileScope) -> list[Diagnostic]:
    """Unknown names, recursion among `def`s, unknown types of parameters, and what is never used."""
    used: set[str] = set()
    strange: list[tuple[Name, frozenset[str]]] = []
    defined = _known_names(module, scope)
    for owner, expression, bound in _expressions(module):
        for name in free_names(expression, bound):
            if owner != name.name or name.name in scope.encoders:
                used.add(name.name)
            if name.name not in defined:
                strange.append((name, bound))
    diagnostics = _unknown_names(module, scope, strange) if strange else []
    diagnostics.extend(_recursions(module))
    diagnostics.extend(_unknown_types(module))
    diagnostics.extend(_reserved_fields(module))
    diagnostics.extend(_durations(module))
    diagnostics.extend(_unused(module, used | _implicit(scope)))
    return diagnostics


def _implicit(scope: FileScope) -> set[str]:
    """Encoders that replace a default one are used wherever a field is encoded, or a text given an image."""
    return {name for name in scope.encoders if name in DEFAULT_ENCODERS or name == FUSION}


def _known_names(module: Module, scope: FileScope) -> set[str]:
    library = set(scope.library.definitions) if scope.library else set()
    defined = set(scope.lets) | set(scope.definitions) | set(scope.encoders) | set(scope.recipes) | library
    defined |= set(registered()) | set(DEFAULT_ENCODERS) | {"all"}
    header = next((item for item in module.items if isinstance(item, Recipe)), None)
    defined |= {parameter.name.name for parameter in header.parameters} if header else set(BARE_FIELDS)
    # A failed `use` is reported at its place; its name is not a second error.
    return defined | {item.name.name for item in module.items if isinstance(item, Use)}


def _expressions(module: Module) -> Iterator[tuple[str, Expression, frozenset[str]]]:
    """(the name it defines, expression, names bound in it) for every expression of a file."""
    for item in module.items:
        match item:
            case Recipe(parameters=parameters):
                yield from _defaults("", parameters)
            case Def(name=name, parameters=parameters, body=body):
                yield from _defaults(name.name, parameters)
                yield name.name, body, frozenset(parameter.name.name for parameter in parameters)
            case Let(name=name, value=value) | EncoderDeclaration(name=name, value=value):
                yield name.name, value, frozenset()
            case Minimize(terms=terms):
                for term in terms:
                    yield "", term.value, frozenset()
            case _:
                pass


def _defaults(owner: str, parameters: tuple[Parameter, ...]) -> Iterator[tuple[str, Expression, frozenset[str]]]:
    earlier: set[str] = set()
    for parameter in parameters:
        if parameter.default is not None:
            yield owner, parameter.default, frozenset(earlier)
        earlier.add(parameter.name.name)


def _unknown_names(module: Module, scope: FileScope, strange: list[tuple[Name, frozenset[str]]]) -> list[Diagnostic]:
    """The names that are still unknown after loading plug-ins, which is done only for names that nothing else explains."""
    broken = broken_plugins()
    defined = _known_names(module, scope)
    candidates = sorted(defined)
    unknown = [(name, bound) for name, bound in strange if name.name not in defined]
    # Searching for a suggestion takes time, and a very long name is not a typo of another one.
    diagnostics = [_unknown(name, [*sorted(bound), *candidates]) for name, bound in unknown[:_MOST_SUGGESTIONS]]
    diagnostics += [UnknownName.at(name.span, name=name.name) for name, _ in unknown[_MOST_SUGGESTIONS:]]
    if diagnostics:
        notes = [
            f"the plug-in {plugin.name} of {plugin.distribution} could not be loaded: {plugin.reason}" for plugin in broken
        ]
        diagnostics = [replace(diagnostic, notes=tuple(notes)) for diagnostic in diagnostics]
    return diagnostics


def _unknown(name: Name, candidates: Sequence[str]) -> Diagnostic:
    elsewhere = NAMES.get(name.name.lower())
    near = closest(name.name, candidates) if elsewhere is None else None
    if near is None:
        help = (f"did you mean {elsewhere}?",) if elsewhere else ()
        return UnknownName.at(name.span, help=help, name=name.name)
    fix = Fix(f"replace by `{near}`", (Edit(name.span, near),), safe=False)
    return UnknownName.at(name.span, help=(f"did you mean `{near}`?",), fix=fix, name=name.name)


def _recursions(module: Module) -> Iterator[Diagnostic]:
    definitions = {item.name.name: item for item in module.items if isinstance(item, Def)}
    calls = {
        name: [
            used.name
            for _, expression, bound in _expressions(Module((definition,), (), module.span))
            for used in free_names(expression, bound)
            if used.name in definitions
        ]
        for name, definition in definitions.items()
    }
    for cycle in _cycles(calls):
        yield Recursion.at(definitions[cycle[0]].name.span, name=cycle[0], chain=chain_text([*cycle, cycle[0]]))


def _cycles(calls: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """Cycles of calls, with every function in at most one of them; linear in the number of calls."""
    finished: set[str] = set()
    for start in calls:
        path: dict[str, Iterator[str]] = {} if start in finished else {start: iter(calls[start])}
        while path:
            name = next(reversed(path))
            callee = next((callee for callee in path[name] if callee not in finished), None)
            if callee is None:
                finished.add(name)
                del path[name]
            elif callee in path:
                names = list(path)
                cycle = names[names.index(callee) :]
                yield cycle
                finished.update(cycle)
                for member in cycle:
                    del path[member]
            else:
                path[callee] = iter(calls[callee])


def chain_text(names: Sequence[str]) -> str:
    """`a -> b -> a`; a long chain is abbreviated."""
    shown = names if len(names) <= _LONGEST_CHAIN else [*names[: _LONGEST_CHAIN - 2], "...", names[-1]]
    return " -> ".join(shown)


def is_field_type(name: str, count: int | None) -> bool:
    """Whether a batch field may have this type; others are reported in name resolution."""
    return name in FIELD_KINDS and (count is None or FIELD_KINDS[name].several)


def _unknown_types(module: Module) -> Iterator[Diagnostic]:
    """Types of the signature must be those of batch fields; a `def` may name any type."""
    for item in module.items:
        if isinstance(item, Def | Recipe):
            values = frozenset() if isinstance(item, Recipe) else _VALUE_TYPES
            for parameter in item.parameters:
                named = parameter.type
                if named is not None and named.name not in values and named.name not in FIELD_KINDS:
                    broken_plugins()  # one of them may define this kind of field
                possible = frozenset(FIELD_KINDS) | values
                if named is not None and named.name not in possible:
                    near = closest(named.name, possible)
                    help = f"did you mean `{near}`?" if near else f"possible: {', '.join(sorted(possible))}"
                    yield UnknownType.at(named.span, help=(help,), name=named.name)
                elif named is not None and named.count is not None and not is_field_type(named.name, named.count):
                    help = f"a field of type `{named.name}` has one value per sample; declare several fields instead"
                    yield UnknownType.at(named.span, help=(help,), name=f"{named.name}[{named.count}]")


def _reserved_fields(module: Module) -> Iterator[Diagnostic]:
    for item in module.items:
        if isinstance(item, Recipe):
            for parameter in item.parameters:
                if parameter.default is None and parameter.name.name == RESERVED_INPUT:
                    yield ReservedInput.at(parameter.name.span, name=RESERVED_INPUT)


def _durations(module: Module) -> Iterator[Diagnostic]:
    """Numbers of steps or epochs where a plain number is expected: only schedules take durations."""
    waiting = [expression for _, expression, _ in _expressions(module)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Call) and isinstance(node.callee, Name) and node.callee.name in _SCHEDULES:
            waiting += [each.value for each in node.arguments if not _is_duration(each)]
            continue
        if isinstance(node, Number) and node.unit in DURATIONS:
            yield DurationWhereNumber.at(node.span, help=(NO_DURATIONS,), unit=node.unit)
        waiting.extend(children(node))


def _is_duration(argument: Argument) -> bool:
    """Whether an argument of a schedule is a duration or a start."""
    return argument.name is not None and argument.name.name in _TIMES and isinstance(argument.value, Number)


def _unused(module: Module, used: set[str]) -> Iterator[Diagnostic]:
    if not any(isinstance(item, Minimize) for item in module.items):
        return  # A library: what it defines is for others.
    for item in module.items:
        if isinstance(item, Let | Def | EncoderDeclaration | Use) and item.name.name not in used:
            if isinstance(item, Use) and item.name.name.startswith("std."):
                continue
            yield UnusedDefinition.at(item.name.span, name=item.name.name)
