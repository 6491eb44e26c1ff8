"""What a plan says of modules on features is what the modules of the runtime have, compute and keep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import vlmdsl
from vlmdsl.api.driver import build
from vlmdsl.ir import streams
from vlmdsl.ir.modules import FusionSettings, LinearSettings, PixelDecoderSettings, PoolerSettings, TokenHeadSettings
from vlmdsl.planning.module_cost import (
    ModuleSize,
    decoder_size,
    fusion_size,
    pooler_size,
    text_decoder_size,
    token_head_size,
)
from vlmdsl.planning.workload import Workload
from vlmdsl.runtime.model.poolers import Pooler
from vlmdsl.runtime.modules import LinearHead, PixelDecoder, TextDecoder, TokenHead, fusion

BATCH, TEXT, PATCHES, WIDTH = 4, 10, 16, 64
SIZES = Workload(BATCH, 1, WIDTH, "float32", PATCHES, TEXT, image_size=32, vocabulary=20)

MATCHING = """
let m = mask(text, random(15%))
let wrong = mine(similarity(image, text), along="rows")
minimize {
  itm: matched(text | image, take(text, wrong) | image)
  mlm: mlm(m | image)
}
"""
MAE = "let hidden = random(75%)\nminimize reconstruct(decode(drop(image, hidden)), pixels(image{}), at=hidden)"


def bytes_saved(call: Callable[[], object], inputs: Sequence[Tensor]) -> int:
    """Bytes of the storages that autograd saves in a call, `inputs` and parameters left out."""
    left_out, saved = {value.untyped_storage().data_ptr() for value in inputs}, dict[int, Tensor]()

    def pack(value: Tensor) -> Tensor:
        saved[value.untyped_storage().data_ptr()] = value
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        result = call()
    assert result is not None
    return sum(value.untyped_storage().nbytes() for where, value in saved.items() if where not in left_out)


def check(module: torch.nn.Module, inputs: tuple[Tensor, ...], size: ModuleSize) -> None:
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # which is products that are counted
        module(*inputs)
    assert size.parameters == sum(parameter.numel() for parameter in module.parameters())
    assert BATCH * size.forward == counter.get_total_flops()
    saved = bytes_saved(lambda: module(*inputs), [*module.parameters(), *inputs])
    assert 4 * BATCH * size.kept == pytest.approx(saved, rel=0.05)


@pytest.mark.parametrize(
    "settings",
    [
        FusionSettings("cross", 3),
        FusionSettings("cross", 3, gated=True),
        FusionSettings("cross", 2, width=32, heads=4, pooled="learned"),
        FusionSettings("merged", 2, heads=4, pooled="learned"),
        FusionSettings("none", 3),
        FusionSettings("none", 2, width=32, heads=4),
    ],
)
def test_fusion(settings: FusionSettings) -> None:
    states, context = (torch.randn(BATCH, length, WIDTH, requires_grad=True) for length in (TEXT, PATCHES))
    mask = torch.arange(TEXT) < torch.tensor([TEXT, 7, 5, 3])[:, None]
    alone = settings.attention == "none"
    inputs = (states, mask) if alone else (states, mask, context)
    check(fusion(settings, WIDTH, None if alone else WIDTH), inputs, fusion_size(settings, SIZES))


def test_a_part_of_the_blocks_is_a_part_of_the_work_and_all_of_the_weights() -> None:
    settings = FusionSettings("cross", 4)
    whole, half = fusion_size(settings, SIZES), fusion_size(settings, SIZES, (0.5, 1.0))
    assert half.parameters == whole.parameters
    assert half.forward == whole.forward // 2


def test_token_head() -> None:
    settings = TokenHeadSettings(layers=3, hidden=24, out=5, bias=False)
    tokens = torch.randn(BATCH, 7, WIDTH, requires_grad=True)
    check(TokenHead(settings, WIDTH), (tokens,), token_head_size(settings, 7, SIZES))


@pytest.mark.parametrize("output", ["linear", "states"])
def test_decoder(output: Literal["linear", "states"]) -> None:
    settings = PixelDecoderSettings(8, 2, 32, 4, output)
    states, keep = torch.randn(BATCH, 4, WIDTH, requires_grad=True), torch.arange(4).expand(BATCH, 4)
    check(PixelDecoder(settings, WIDTH, PATCHES), (states, keep), decoder_size(settings, 4, SIZES))


@pytest.mark.parametrize("settings", [PoolerSettings(6), PoolerSettings(1, width=32, heads=4)])
@pytest.mark.parametrize("pooled", [False, True])
def test_pooler(settings: PoolerSettings, pooled: bool) -> None:
    states = torch.randn(BATCH, PATCHES, WIDTH, requires_grad=True)
    pooler = Pooler(settings, WIDTH, WIDTH if pooled else None)
    check(pooler, (states,), pooler_size(settings, PATCHES, pooled, SIZES))


@pytest.mark.parametrize(
    ("decoder", "call"),
    [
        ("depth=2", "text, image"),
        ("depth=2, width=32, heads=4", "text, pool(image, queries=5)"),
        ('depth=4, cross_from=50%, class_token="appended"', "text, image"),
        ("depth=2", "text"),
        ("depth=1", "text, image, prefix=prompt"),
    ],
    ids=["image", "pooled image", "class token", "text alone", "prompt"],
)
def test_text_decoder(decoder: str, call: str) -> None:
    """Parameters and products of a call without the logits, on the tokens that its loss reads."""
    recipe = f"recipe r(image: Image, text: Text, prompt: Text)\nencoder writer = text_decoder({decoder})\n"
    recipe += f"minimize next_token(linear(writer({call})), text)"
    (stream,) = [each for each in streams(build(recipe).planned) if each.encoder.decoder is not None]
    settings, size = stream.encoder.decoder, text_decoder_size(stream.encoder.decoder, stream, SIZES)
    queries = 5 if "pool" in call else PATCHES
    context = torch.randn(BATCH, queries, WIDTH) if "image" in call else None
    length = TEXT * (1 + ("prompt" in call))
    network = TextDecoder(replace(settings, width=settings.width or WIDTH), 20, length, WIDTH if "image" in call else None)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network(torch.zeros(BATCH, length - 1, dtype=torch.long), None, context)
    assert BATCH * size.forward == counter.get_total_flops()
    assert size.parameters == sum(parameter.numel() for parameter in network.parameters())


def test_fusion_with_its_heads_in_a_plan() -> None:
    """Three texts in blocks of 512; two pairs are matched, and 6 tokens of each masked text are predicted."""
    plan = vlmdsl.plan(MATCHING, batch=1024, vocabulary=1000)
    call = next(call for call in plan.calls if call.family == "fusion")
    assert (call.samples, call.tokens) == (3 * 1024, 32)
    vocabulary, stack, head = plan.parts
    one = fusion_size(FusionSettings("cross", 6), Workload(1024, 1, 512, "float32", 49, 32))
    forward = 3 * 1024 * one.forward
    assert (stack.parameters, stack.forward, stack.backward) == (one.parameters, forward, 2 * forward)
    assert stack.kept == 3 * 1024 * one.kept * 4
    network = LinearHead(LinearSettings(transform=True), 512, 1000)
    assert vocabulary.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert (head.parameters, head.forward) == (2 * 513, 2 * 1024 * 2 * 512 * 2)


def test_a_transform_of_a_tower_in_a_plan() -> None:
    plan = vlmdsl.plan(
        'let m = random(15%)\nminimize token_loss(linear(mask(text, m), transform="gelu"), text, at=m)', vocabulary=1000
    )
    (head,) = plan.parts
    network = LinearHead(LinearSettings(transform=True), 512, 1000)
    assert head.parameters == sum(parameter.numel() for parameter in network.parameters())


def test_micro_batches_keep_one_chunk_of_a_module_and_the_outputs_of_all_samples() -> None:
    """Of an image and a text whose tokens are read, 2 b (P + L) W numbers, and as many of the picked and fused features."""
    whole, micro = (vlmdsl.plan(MATCHING, batch=1024, micro=size) for size in (None, 64))
    assert micro.parts[1].kept * 16 == whole.parts[1].kept
    assert (whole.leaves, micro.peak) == (0, whole.peak)
    pooled, towers, masked, predicted = 2, 49 + 32, 32, 32
    fused = 2
    assert micro.leaves == 2 * 1024 * (pooled + towers + masked + predicted + fused) * 512 * 4
    assert "in micro-batches of 64" in micro.to_text()
    assert "micro" not in whole.to_text()


def test_pictures_that_are_reconstructed_have_memory_and_work() -> None:
    """Gradients of 49 patches of 32 x 32 pixels; normalised targets are a second copy in the forward pass."""
    patches = 64 * 224 * 224 * 3 * 4
    plain, normalised = (vlmdsl.plan(MAE.format(how), batch=64) for how in ("", ', normalised="patch"'))
    assert plain.gradients == normalised.gradients == plain.peak == patches
    assert normalised.peak == 2 * patches
    decoder, reconstruction = plain.parts
    one = decoder_size(PixelDecoderSettings(), 12, Workload(64, 1, 512, "float32", 49, 32))
    assert (plain.calls[1].tokens, decoder.parameters, decoder.forward) == (49, one.parameters, 64 * one.forward)
    assert reconstruction.kept == patches
    assert vlmdsl.plan(MAE.format(""), batch=64, image_size=112).peak == patches // 4
    assert vlmdsl.plan(MAE.format(""), batch=64, micro=8).leaves == 2 * 64 * (12 * 512 * 4 + 224 * 224 * 3 * 4)


def test_readers_are_modules_by_name() -> None:
    readers = next(row.readers for row in vlmdsl.plan(MATCHING).shared if row.value == "image, encoded")
    assert readers == ("fusion", "itm: dot of image and text")
    merged = vlmdsl.plan('encoder fusion = fuse(attention="merged")' + MATCHING)
    assert [call.tokens for call in merged.calls if call.family == "fusion"] == [49 + 32]
