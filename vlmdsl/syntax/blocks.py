"""Checks of `stage` and `flow` blocks beyond the grammar: allowed statements, names, shares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vlmdsl.diagnostics import Diagnostic, Label
from vlmdsl.diagnostics.catalog.syntax import (
    BlockOutOfPlace,
    DuplicateName,
    NothingInBlock,
    RepeatedStatement,
    ShareOutOfRange,
    SharesDoNotSum,
    TwoKindsOfObjective,
)
from vlmdsl.source import Span
from vlmdsl.syntax import tree

__all__ = ["check_blocks", "duplicates", "head_of"]

_WORDS: dict[type, str] = {
    tree.Edition: "vlo",
    tree.Recipe: "recipe",
    tree.Cite: "cite",
    tree.Status: "status",
    tree.Batch: "batch",
    tree.Use: "use",
    tree.Def: "def",
    tree.Stage: "stage",
    tree.Flow: "flow",
    tree.Minimize: "minimize",
}
_IN_FLOW = (tree.Let, tree.EncoderDeclaration, tree.Minimize)
_IN_STAGE = (*_IN_FLOW, tree.Flow)
_ROUNDING = 1e-9


def check_blocks(items: Sequence[tree.Item], owner: tree.Stage | tree.Flow | None = None) -> Iterator[Diagnostic]:
    """The diagnostics of the blocks among the statements of a file or of the block `owner`, and of nested blocks."""
    stages = [item for item in items if isinstance(item, tree.Stage)]
    flows = [item for item in items if isinstance(item, tree.Flow)]
    objectives = [item for item in items if isinstance(item, tree.Minimize)]
    if owner is not None:
        yield from _check_place(items, owner)
        yield from _check_single(objectives, owner)
        if not (flows or objectives):
            help = "add what is minimised: `minimize contrast(image, text)`"
            yield NothingInBlock.at(head_of(owner), help=(help,), what=_WORDS[type(owner)], name=owner.name.name)
    yield from duplicates("stage", [stage.name for stage in stages])
    yield from duplicates("flow", [flow.name for flow in flows])
    mixed = list(_check_mixture(stages, flows, objectives))
    yield from mixed or _check_shares(flows)
    for flow in flows:
        yield from duplicates("field", flow.fields or ())
    blocks: list[tree.Stage | tree.Flow] = [*stages, *flows]
    for block in blocks:
        yield from check_blocks(block.items, block)


def duplicates(what: str, names: Sequence[tree.Name]) -> Iterator[Diagnostic]:
    """V0120 for every name that already occurred."""
    seen: dict[str, tree.Name] = {}
    for name in names:
        first = seen.setdefault(name.name, name)
        if first is not name:
            yield DuplicateName.at(
                name.span, "again here", secondary=(Label(first.span, "first here"),), what=what, name=name.name
            )


def head_of(item: tree.Item, word: str = "") -> Span:
    """The first word of an item, and of a block its name too."""
    if isinstance(item, tree.Stage | tree.Flow):
        return Span(item.span.file, item.span.start, item.name.span.end)
    return Span(item.span.file, item.span.start, item.span.start + len(word or _WORDS[type(item)]))


def _check_place(items: Sequence[tree.Item], owner: tree.Stage | tree.Flow) -> Iterator[Diagnostic]:
    """V0136 for statements that a block may not contain."""
    block = _WORDS[type(owner)]
    for item in items:
        if isinstance(item, tree.Minimize) and item.bare:
            help = "write `minimize` before it, or name it with `let`"
            yield BlockOutOfPlace.at(item.span, help=(help,), what="an expression alone", block=block)
        elif not isinstance(item, _IN_STAGE if isinstance(owner, tree.Stage) else _IN_FLOW):
            nested = isinstance(item, tree.Flow | tree.Stage)
            help = "end the block before it with `}`" if nested else "move it before the first block of the file"
            yield BlockOutOfPlace.at(head_of(item), help=(help,), what=f"`{_WORDS[type(item)]}`", block=block)


def _check_single(objectives: Sequence[tree.Minimize], owner: tree.Stage | tree.Flow) -> Iterator[Diagnostic]:
    written = [item for item in objectives if not item.bare]
    for item in written[1:]:
        yield RepeatedStatement.at(
            head_of(item),
            "again here",
            secondary=(Label(head_of(written[0]), "first here"),),
            help=("several losses are terms of one block: `minimize { name: loss ... }`",),
            where=f"a {_WORDS[type(owner)]}",
            word="minimize",
        )


def _check_mixture(
    stages: Sequence[tree.Stage], flows: Sequence[tree.Flow], objectives: Sequence[tree.Minimize]
) -> Iterator[Diagnostic]:
    """V0138 for a file or stage that states its objective in two ways."""
    ways = [way for way in (stages, flows, objectives) if way]
    if len(ways) < 2:
        return
    odd, usual = ways[-1][0], ways[0][0]
    others = "stages" if stages else "flows"
    help = f"put it into one of the {others}" if odd in objectives else "put it into one of the stages"
    label = Label(head_of(usual), f"one of the {others}")
    yield TwoKindsOfObjective.at(head_of(odd), secondary=(label,), help=(help,), word=_WORDS[type(odd)], others=others)


def _check_shares(flows: Sequence[tree.Flow]) -> Iterator[Diagnostic]:
    """V0139 for numbers that are not shares, V0140 for shares that do not sum to 100 %."""
    stated = [flow.share for flow in flows if flow.share is not None]
    wrong = [share for share in stated if share.unit not in ("", "%") or not 0 < share.value <= 1]
    for share in wrong:
        yield ShareOutOfRange.at(share.span, help=("write a share of the steps, as in `share 15%`",))
    rest = [flow for flow in flows if flow.share is None]
    if wrong or not flows:
        return
    if len(rest) > 1:
        help = "give each flow but one its share: `flow NAME(fields) share 15% { ... }`"
        reason = f"{len(rest)} flows state no share, and only one can take the rest"
        yield SharesDoNotSum.at(head_of(rest[1]), help=(help,), reason=reason)
        return
    total = sum(share.value for share in stated)
    if total > 1 + _ROUNDING:
        yield SharesDoNotSum.at(stated[-1].span, help=("lower one of them",), reason=f"they sum to {100 * total:.6g} %")
    elif rest and total > 1 - _ROUNDING:
        help = "lower the share of another flow, or give this one a share"
        yield SharesDoNotSum.at(head_of(rest[0]), help=(help,), reason=f"nothing is left for `{rest[0].name.name}`")
    elif not rest and total < 1 - _ROUNDING:
        help = "raise one of them, or leave the share of one flow out: it takes the rest"
        reason = f"they sum to {100 * total:.6g} %, so that other steps have no flow"
        yield SharesDoNotSum.at(stated[-1].span, help=(help,), reason=reason)
