"""Cost of modules that are applied to features, and of heads on them: parameters, products, saved activations.

States and contexts are assumed to be as wide as features, unless a module has another width. A test compares these numbers
with the blocks of the runtime (`modules/towers/blocks.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

from vlmdsl.ir import Head, ModuleOutput, Node, Program, Stream, Teacher, module_outputs, streams
from vlmdsl.ir.modules import (
    FusionSettings,
    LinearSettings,
    PixelDecoderSettings,
    PluginFusionSettings,
    PoolerSettings,
    TextDecoderSettings,
    TokenHeadSettings,
    block_range,
)
from vlmdsl.ir.operations.encoding import context_of
from vlmdsl.ir.operations.modules import APPLY, RECONSTRUCT, pooler_of, use_of
from vlmdsl.ir.uses import Module
from vlmdsl.planning.memory import is_normalised
from vlmdsl.planning.part_cost import PartCost, numbers_of
from vlmdsl.planning.workload import ITEM_BYTES, Workload

__all__ = [
    "ModuleSize", "decoder_size", "fusion_size", "module_costs", "pooler_size", "text_decoder_size", "token_head_size",
]  # fmt: skip

_FLOAT = ITEM_BYTES["float32"]
_SELF, _CROSS, _FEED = 6, 4, 10
"""Numbers per token and feature that a block saves. Self-attention: input, norm, query, key, value and result;
cross-attention: the same without key and value, which belong to the context; feed-forward: input, norm, and twice four times
as many, before and after the GELU."""


@dataclass(frozen=True, slots=True)
class ModuleSize:
    """Number of weights of a module; per sample the FLOP of its forward products and the numbers that it saves."""

    parameters: int
    forward: int
    kept: int


def module_costs(program: Program, workload: Workload) -> Iterator[PartCost]:
    """One cost per module that is applied to features, and per teacher of one, over all its calls; one per reconstruction.

    If towers run in micro-batches, the saved activations are those of one chunk.
    """
    calls: dict[tuple[Module, Teacher | None], list[ModuleOutput]] = {}
    for output in module_outputs(program):
        use = use_of(output.node)
        calls.setdefault((use.module, use.follows), []).append(output)
    for (module, teacher), outputs in calls.items():
        if isinstance(module.settings, LinearSettings):
            continue  # with the logits over vocabularies, in `part_cost`
        head = module.settings if isinstance(module.settings, Head) else None
        cost = _head(module, head, outputs, workload) if head else _stack(module, outputs, workload)
        yield replace(cost, name=f"{cost.name} (teacher)") if teacher else cost
    yield from _text_decoders(program, workload)
    for node in program.nodes():
        if node.operation is RECONSTRUCT:
            yield _reconstruction(node, workload)


def _text_decoders(program: Program, workload: Workload) -> Iterator[PartCost]:
    """One cost per text decoder, over all its calls, without its logits."""
    decoded: dict[str, list[Stream]] = {}
    for stream in streams(program):
        if stream.encoder.decoder is not None:
            decoded.setdefault(stream.encoder.tower, []).append(stream)
    samples = workload.batch // workload.world
    chunk = min(samples, workload.micro or samples)
    for tower, own in decoded.items():
        settings = own[0].encoder.decoder
        assert settings is not None
        sizes = [text_decoder_size(settings, stream, workload) for stream in own]
        learning = [size for size, stream in zip(sizes, own, strict=True) if stream.learns]
        parameters = max(size.parameters for size in sizes)
        yield PartCost(
            tower,
            f"text decoder of {settings.depth or workload.text_blocks} blocks of {settings.width or workload.dim}",
            parameters,
            _FLOAT * parameters,
            samples * sum(size.forward for size in sizes),
            samples * sum(2 * size.forward for size in learning),
            chunk * sum(size.kept for size in learning) * _FLOAT,
        )


def text_decoder_size(settings: TextDecoderSettings, stream: Stream, workload: Workload) -> ModuleSize:
    """A call of a text decoder: its blocks, those before the image and those that attend to it, words and positions. One
    that shares weights has those of self-attention for itself."""
    width, context = settings.width or workload.dim, context_of(stream.encode)
    prompted = stream.encode.string("prefix") == "prompt"
    longest = workload.text_tokens * (1 + prompted)
    length = longest - (set(stream.outputs) == {"vocabulary"})
    depth = settings.depth or workload.text_blocks
    alone = round(settings.cross_from * depth) if context is not None else depth
    first = _transformer(alone, alone, width, length + settings.class_token)
    rest = depth - alone
    attended = (0, workload.dim) if context is None else (_attended(context, workload), workload.dim)
    second = _transformer(rest, rest, width, length, attended) if rest else ModuleSize(0, 0, 0)
    norms = 2 * width if rest else 0  # both stacks count the one at the end
    pooled = stream.pooled * width * workload.dim + 3 * width * settings.class_token
    own = first.parameters + second.parameters - norms + (workload.vocabulary + longest) * width
    if settings.shares:
        own = depth * (4 * width * (width + 1) + 2 * width)  # with the norm before it
    return ModuleSize(
        own + pooled,
        first.forward + second.forward,
        first.kept + second.kept,
    )


def _attended(tokens: Node, workload: Workload) -> int:
    """The number of tokens that something attends to: states, or the queries of a pooler."""
    below = pooler_of(tokens.inputs[0])
    return below.settings.queries if below and isinstance(below.settings, PoolerSettings) else workload.tokens(tokens)


def _stack(module: Module, outputs: list[ModuleOutput], workload: Workload) -> PartCost:
    """A module that is a stack of blocks."""
    samples, sizes = workload.batch // workload.world, [_size(output, workload) for output in outputs]
    chunk = min(samples, workload.micro or samples)
    learning = [size for size, output in zip(sizes, outputs, strict=True) if output.learns]
    parameters = sizes[0].parameters
    return PartCost(
        module.name,
        _RULES[type(module.settings)].words(module.settings, workload),
        parameters,
        _FLOAT * parameters,
        samples * sum(size.forward for size in sizes),
        samples * sum(2 * size.forward for size in learning),
        chunk * sum(size.kept for size in learning) * _FLOAT,
    )


def fusion_size(settings: FusionSettings, workload: Workload, blocks: tuple[float, float] = (0.0, 1.0)) -> ModuleSize:
    """A call of a fusion module on a text and its image, or on a text alone, through some of its blocks."""
    text, image, entering = workload.text_tokens, workload.image_tokens, workload.dim
    width, learned = settings.width or entering, settings.pooled == "learned"
    depth = settings.depth or workload.text_blocks
    run = len(block_range(depth, blocks))
    if settings.attention != "merged":
        context = (image, entering) if settings.attention == "cross" else None
        stack = _transformer(depth, run, width, text + learned, context, gated=settings.gated)
        adapted, adapters = (text, 1) if width != entering else (0, 0)
        kept = (image + adapted if context else adapted) * entering
    else:
        stack = _transformer(depth, run, width, text + image + learned)
        adapted, adapters, kept = text + image, 2, text * entering
    if settings.shares:  # cross-attention is its own, and the first token
        alone = _transformer(depth, run, width, text).parameters
        stack = replace(stack, parameters=stack.parameters - alone + width)
    return ModuleSize(
        stack.parameters + adapters * (entering + 1) * width + learned * width,
        stack.forward + 2 * adapted * entering * width,
        stack.kept + kept,
    )


def decoder_size(settings: PixelDecoderSettings, visible: int, workload: Workload) -> ModuleSize:
    """A call of a decoder, from the `visible` patches of an image to the pixels, or states, of all patches."""
    patches, width = workload.image_tokens, settings.width
    numbers = workload.dim if settings.output == "states" else workload.patch_numbers
    stack = _transformer(settings.depth, settings.depth, width, patches)
    return ModuleSize(
        stack.parameters + (workload.dim + 1) * width + width + (width + 1) * numbers,
        stack.forward + 2 * visible * workload.dim * width + 2 * patches * width * numbers,
        stack.kept + patches * width,
    )


def token_head_size(settings: TokenHeadSettings, tokens: int, workload: Workload) -> ModuleSize:
    """A call of a head on so many tokens per sample. A GELU, and a map but for the first, save what enters them."""
    widths = (workload.dim, *[settings.hidden or workload.dim] * (settings.layers - 1), settings.out or workload.dim)
    maps = list(pairwise(widths))
    weights = sum(inputs * outputs for inputs, outputs in maps)
    biases = sum(widths[1:]) - (0 if settings.bias else widths[-1])
    saved = 2 * sum(widths[1:-1])
    return ModuleSize(weights + biases, 2 * tokens * weights, tokens * saved)


def pooler_size(settings: PoolerSettings, attended: int, pooled: bool, workload: Workload) -> ModuleSize:
    """A call of a pooler on so many states; with `pooled` features a map of one of its outputs."""
    queries, entering, width = settings.queries, workload.dim, settings.width or workload.dim
    maps = 2 * width * (width + 1) + 2 * width * (entering + 1)
    forward = 4 * queries * width**2 + 4 * attended * entering * width + 4 * queries * attended * width
    return ModuleSize(
        queries * width + maps + 4 * width + 2 * entering + pooled * width * workload.dim,
        forward + 2 * pooled * width * workload.dim,
        ((_CROSS + pooled) * queries + 2 * attended) * width + attended * entering,
    )


def _pooler_size(settings: PoolerSettings, output: ModuleOutput, workload: Workload) -> ModuleSize:
    return pooler_size(settings, _attended(output.node.inputs[0], workload), output.pooled, workload)


class _Rule(NamedTuple):
    """The costs of modules with settings of one class: what a module is, in words, and the size of one call of it."""

    words: Callable[[Any, Workload], str]
    size: Callable[[Any, ModuleOutput, Workload], ModuleSize]


def _size(output: ModuleOutput, workload: Workload) -> ModuleSize:
    """One call of a module."""
    settings = use_of(output.node).module.settings
    return _RULES[type(settings)].size(settings, output, workload)


def _blocks(settings: FusionSettings | PixelDecoderSettings, workload: Workload) -> str:
    return f"{settings.depth} blocks of {settings.width or workload.dim}"


def _fusion_words(settings: FusionSettings, workload: Workload) -> str:
    words = {"cross": "cross-attention, ", "merged": "one sequence, ", "none": "of texts, "}
    if settings.shares:
        return f"`{settings.shares}` with cross-attention, counted as {workload.text_blocks} blocks of {workload.dim}"
    return f"{words[settings.attention]}{_blocks(settings, workload)}"


_RULES: Mapping[type, _Rule] = {
    FusionSettings: _Rule(
        _fusion_words, lambda settings, output, workload: fusion_size(settings, workload, use_of(output.node).blocks)
    ),
    PluginFusionSettings: _Rule(
        lambda settings, _: f"{settings.by}, of a plug-in, whose costs are not known", lambda *_: ModuleSize(0, 0, 0)
    ),
    PixelDecoderSettings: _Rule(
        lambda settings, workload: f"decoder of {_blocks(settings, workload)}",
        lambda settings, output, workload: decoder_size(settings, workload.tokens(output.node.inputs[0]), workload),
    ),
    TokenHeadSettings: _Rule(
        lambda settings, workload: f"of each token, {settings.layers} linear to {settings.out or workload.dim}",
        lambda settings, output, workload: token_head_size(settings, workload.tokens(output.node.inputs[0]), workload),
    ),
    PoolerSettings: _Rule(lambda settings, _: f"pooler of {settings.queries} queries", _pooler_size),
}
"""Per class of settings: the costs of a module."""


def _transformer(
    depth: int, run: int, width: int, length: int, context: tuple[int, int] | None = None, *, gated: bool = False
) -> ModuleSize:
    """A stack of blocks of which `run` run, on `length` tokens; `context`: the tokens and features that they attend to."""
    attention = 4 * width * (width + 1) + 2 * width
    feed = 8 * width**2 + 5 * width + 2 * width
    parameters, forward, kept = (
        attention + feed,
        24 * length * width**2 + 4 * length**2 * width,
        (_SELF + _FEED) * length * width,
    )
    if context is not None:
        size, entering = context
        parameters += 2 * width * (width + 1) + 2 * width * (entering + 1) + 2 * width + gated
        forward += 4 * length * width**2 + 4 * size * entering * width + 4 * length * size * width
        kept += (_CROSS * length + 2 * size + gated * length) * width
    return ModuleSize(depth * parameters + 2 * width, run * forward, run * kept + length * width)


def _width(features: Node, workload: Workload) -> int:
    """The width of the output of a module on features, or of a node that reads it."""
    node = features if features.operation is APPLY else features.inputs[0]
    settings = use_of(node).module.settings if node.operation is APPLY else None
    if isinstance(settings, Head):
        return settings.widths(_width(node.inputs[0], workload))[-1]
    return settings.width or workload.dim if isinstance(settings, FusionSettings) else workload.dim


def _head(module: Module, head: Head, outputs: list[ModuleOutput], workload: Workload) -> PartCost:
    """A head on a fusion module."""
    widths = head.widths(_width(outputs[0].node.inputs[0], workload))
    parameters, statistics = numbers_of(head, widths)
    rows = workload.batch // workload.world
    forward = rows * sum(2 * inputs * results for inputs, results in pairwise(widths))
    learning = sum(output.learns for output in outputs)
    what = f"{module.name} {'-'.join(map(str, widths))}"
    size = _FLOAT * (parameters + statistics)
    return PartCost(module.base.name, what, parameters, size, len(outputs) * forward, 2 * learning * forward)


def _reconstruction(node: Node, workload: Workload) -> PartCost:
    """The differences of all pixels, squared and summed; the gradient overwrites them."""
    patches, numbers = workload.image_tokens, workload.patch_numbers
    count = workload.batch // workload.world * patches * numbers
    side = math.isqrt(numbers // 3)
    passes = 3 + (4 if is_normalised(node) else 0)
    return PartCost(
        "reconstruct", f"{patches:,} patches of {side} x {side} pixels", 0, 0, passes * count, 2 * count, count * _FLOAT
    )
