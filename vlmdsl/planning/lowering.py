"""The choice of a lowering for each operation on similarity matrices, with its reason and the rejected ones.

`dense` makes the matrix of similarities. `chunked` makes a block of rows at a time, and makes it again in the backward pass.
The choice follows from sizes, device and budget, unless a `LoweringRequest` makes it; `Schedule.lowerings` holds it, and
emitted code calls what it says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.lowering import NoSuchLowering, UnknownLowering
from vlmdsl.ir import Node, Program, block_of, walk
from vlmdsl.ir.operations.contrast import CONTRAST
from vlmdsl.ir.operations.encoding import MIX
from vlmdsl.ir.operations.matrices import EXCLUDE, SIMILARITY, TRANSPOSE, UNITE
from vlmdsl.ir.operations.mining import FETCH, HARDEST, MINE
from vlmdsl.ir.operations.reductions import SIGMOID_LOSS
from vlmdsl.ir.operations.scalars import ADD, MULTIPLY, NEGATE, SUBTRACT
from vlmdsl.ir.operations.state import ENQUEUE, MEMORY, NEAREST
from vlmdsl.ir.schedule import Lowering
from vlmdsl.passes.fuse import contrast_of
from vlmdsl.passes.gathering import gathered_by
from vlmdsl.planning.chunked import chunked_cost
from vlmdsl.planning.cost import ITS_GRADIENT, SECOND_STREAM, Cost, cost_of
from vlmdsl.planning.linear import losses_of_logits
from vlmdsl.planning.workload import SMALLEST, Workload, seen_by
from vlmdsl.source import Span
from vlmdsl.types import ScalarType, TokensType, VecType

__all__ = ["DENSE_BUDGET", "LOWERINGS", "Lowered", "LoweringRequest", "lowered", "lowerings_of"]

DENSE_BUDGET = 2**30
"""Budget in bytes for the matrices of one operation; above it the form that does not materialise them is preferred."""
TOKEN_BUDGET = 2**26
"""Budget for the similarities of all pairs of tokens; above it the chunked form is also faster."""
LOWERINGS = ("auto", "dense", "chunked")
"""The lowerings that a user may request."""

_NOWHERE = Span("<command line>", 0, 0)
_NOT_BUILT = "not implemented in this version"
_SHIFTS_AND_SCALES = frozenset({ADD, SUBTRACT, MULTIPLY, NEGATE, EXCLUDE})


@dataclass(frozen=True, slots=True)
class LoweringRequest:
    """The requested lowering for all terms (`auto`: by sizes) and for some of them by name; `budget` in bytes.

    >>> LoweringRequest.of({"contrast": "chunked"}).of_terms(("contrast",))
    'chunked'
    """

    default: str = "auto"
    terms: tuple[tuple[str, str], ...] = ()
    budget: int = DENSE_BUDGET

    @classmethod
    def of(cls, value: str | Mapping[str, str] | LoweringRequest) -> LoweringRequest:
        """From one lowering for all terms, or from lowerings by term with `*` for the others.

        Raises DiagnosticError (V0604) for a lowering that does not exist.
        """
        if isinstance(value, LoweringRequest):
            return value
        terms = {"*": value} if isinstance(value, str) else dict(value)
        default = terms.pop("*", "auto")
        for name in (default, *terms.values()):
            if name not in LOWERINGS:
                help = (f"possible: {', '.join(LOWERINGS)}",)
                raise DiagnosticError((UnknownLowering.at(_NOWHERE, name=name, help=help),))
        return cls(default, tuple(sorted(terms.items())))

    def of_terms(self, terms: tuple[str, ...]) -> str:
        """The requested lowering of an operation that serves these terms; `chunked` takes precedence over `dense`."""
        names = {name for term, name in self.terms if term in terms}
        return min(names, key=("chunked", "dense", "auto").index, default=self.default)

    @property
    def fixed(self) -> bool:
        """Whether the choice does not depend on sizes."""
        return "auto" not in (self.default, *(name for _, name in self.terms))


class Lowered(NamedTuple):
    """An operation on similarity matrices with its lowering and cost."""

    node: Node
    lowering: Lowering
    cost: Cost


def lowerings_of(
    program: Program, workload: Workload = SMALLEST, request: LoweringRequest | None = None
) -> dict[Node, Lowering]:
    """The lowering of every operation on similarity matrices, in order.

    Raises DiagnosticError (V0605) if a term does not have the requested lowering.
    """
    request = request or LoweringRequest()
    groups = _groups(program)
    _check(program, groups, request)
    chosen = {node: choice for leader in groups for node, choice in _choice(program, leader, groups, workload, request)}
    costly = [node for node in program.nodes() if cost_of(node, workload) is not None]
    return {node: chosen.get(node) or _only(node) for node in costly}


def lowered(program: Program, workload: Workload, lowerings: Mapping[Node, Lowering]) -> tuple[Lowered, ...]:
    """Every operation on similarity matrices with its lowering and cost, in order."""
    gathered: set[Node] = set()
    operations = []
    for node in program.nodes():
        seen, features = seen_by(node, workload), gathered_by(node)
        cost = cost_of(node, seen)
        if cost is not None:
            cost = _without_gathering(cost) if features in gathered else cost
            lowering = lowerings[node]
            operations.append(
                Lowered(node, lowering, chunked_cost(node, cost, seen) if lowering.name == "chunked" else cost)
            )
        gathered |= set() if features is None else {features}
    return tuple(operations)


def _without_gathering(cost: Cost) -> Cost:
    """The cost of an operation whose features an earlier one has already gathered."""
    return replace(cost, collectives=tuple(one for one in cost.collectives if one.what not in (SECOND_STREAM, ITS_GRADIENT)))


def _groups(program: Program) -> dict[Node, tuple[Node, ...]]:
    """The operations that have a chunked form, by the operation that computes the matrix, with all that depend on whether it
    is materialised."""
    readers: dict[Node, list[Node]] = defaultdict(list)
    for node in program.nodes():
        for parent in dict.fromkeys(node.inputs):
            readers[parent].append(node)
    groups: dict[Node, tuple[Node, ...]] = {}
    for node in program.nodes():
        if node.operation is CONTRAST and contrast_of(node).fused:
            groups[node] = (node,)
        elif node.operation is SIMILARITY and node.string("by") == "tokenmax":
            if all(isinstance(parent.type, TokensType) for parent in node.inputs):
                groups[node] = (node,)
        elif node.operation is SIMILARITY and node.string("by") == "dot":
            losses = _sigmoid_losses(node, readers)
            if losses:
                groups[node] = (node, *losses)
    return groups


def _sigmoid_losses(similarity: Node, readers: Mapping[Node, list[Node]]) -> tuple[Node, ...]:
    """The sigmoid losses that read a product of pooled features, scaled and shifted; none if another operation reads it."""
    x, y = similarity.inputs
    if not isinstance(x.type, VecType) or not isinstance(y.type, VecType) or y.operation is MEMORY:
        return ()
    losses, stack = dict[Node, None](), [similarity]
    while stack:
        matrix = stack.pop()
        for reader in readers[matrix]:
            if reader.operation is SIGMOID_LOSS:
                losses[reader] = None
            elif reader.operation in _SHIFTS_AND_SCALES and reader.inputs[0] is matrix and _keeps_products(reader):
                stack.append(reader)
            else:
                return ()
    return tuple(losses)


def _keeps_products(node: Node) -> bool:
    """Whether the result is again a shifted or scaled matrix of products: by a number, or with samples excluded."""
    return node.operation in (NEGATE, EXCLUDE) or isinstance(node.inputs[1].type, ScalarType)


def _check(program: Program, groups: Mapping[Node, tuple[Node, ...]], request: LoweringRequest) -> None:
    both = groups.keys() | {*losses_of_logits(program).values()}
    possible = {term.name for term in program.terms if any(node in both for node in walk([term.node]))}
    for name, choice in request.terms:
        if choice == "chunked" and name not in possible:
            there = any(term.name == name for term in program.terms)
            reason = "it has one form only" if there else "the recipe has no such term"
            help = (f"possible: {', '.join(sorted(possible))}",) if possible else ()
            raise DiagnosticError((NoSuchLowering.at(_NOWHERE, term=name, lowering=choice, reason=reason, help=help),))


def _choice(
    program: Program, leader: Node, groups: Mapping[Node, tuple[Node, ...]], workload: Workload, request: LoweringRequest
) -> Iterator[tuple[Node, Lowering]]:
    """The lowering of a group, for each of its operations."""
    group = groups[leader]
    costs = [cost for node in group if (cost := cost_of(node, seen_by(node, workload))) is not None]
    size = sum(cost.stored for cost in costs) + max(cost.transient for cost in costs)
    budget = TOKEN_BUDGET if isinstance(leader.inputs[0].type, TokensType) else request.budget
    terms = tuple(term.name for term in program.terms if any(node is leader for node in walk([term.node])))
    named = request.of_terms(terms)
    name = named if named != "auto" else ("dense" if size <= budget else "chunked")
    why = (
        "asked for"
        if named != "auto"
        else f"{_mib(size)} of matrices {'fit' if name == 'dense' else 'exceed'} {_mib(budget)}"
    )
    other = "dense" if name == "chunked" else "chunked"
    for node in group:
        yield node, Lowering(name, f"{_how(node, name)}; {why}", ((other, why), ("kernel", _NOT_BUILT)))


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _only(node: Node) -> Lowering:
    """How an operation with a single form runs."""
    name = "search" if node.operation is NEAREST else "dense"
    return Lowering(name, _how(node, name))


def _how(node: Node, lowering: str) -> str:
    operation = node.operation
    if operation is NEAREST:
        return "only the largest product of a row is needed"
    if lowering == "chunked":
        return _CHUNKED["tokens" if isinstance(node.inputs[0].type, TokensType) else "features"]
    if operation is CONTRAST:
        return (
            "one product, both directions' log-sum-exp from it"
            if contrast_of(node).fused
            else "reads the matrix computed above"
        )
    if operation is MIX:
        return (
            "processes exchange the samples of blocks that two of them share"
            if block_of(node)
            else "each process exchanges its samples with one other"
        )
    if operation.materialised:
        return "a target: computed once per direction, without gradient"
    return _DENSE.get(operation, "not a contrastive region: differentiated as written")


_DENSE = {
    SIMILARITY: "the matrix is computed once for all its readers",
    UNITE: "a copy, computed once for all its readers",
    TRANSPOSE: "a copy, computed once for all its readers",
    MINE: "negatives are picked from a copy of the matrix, without gradient",
    HARDEST: "negatives are picked from a copy of the matrix, without gradient",
    ENQUEUE: "every process keeps what enters on any",
    FETCH: "the picked samples are exchanged, not the batch",
}
_CHUNKED = {
    "tokens": "blocks of samples, of which the best tokens are kept",
    "features": "blocks of rows, computed again in the backward pass",
}
