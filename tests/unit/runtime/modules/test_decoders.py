"""Decoders: patches come back to their places, and texts are read from left to right, half of the way without the image."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from vlmdsl.ir.modules import PixelDecoderSettings, TextDecoderSettings
from vlmdsl.runtime.modules import PixelDecoder, SequenceFeatures, TextDecoder
from vlmdsl.runtime.modules.towers import KeyValueCache
from vlmdsl.runtime.values import KeptPatches

PATCHES, KEPT, STATES, WORDS, LENGTH, CONTEXT = 9, 4, 6, 20, 6, 10


def spread(module: nn.Module) -> nn.Module:
    """Weights larger than at the start, which would hide what is wrong."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    return module.double()


def pixel_decoder(**changes: int) -> PixelDecoder:
    torch.manual_seed(0)
    settings = {"patch": 2, "depth": 2, "width": 8, "heads": 2, **changes}
    return PixelDecoder(PixelDecoderSettings(**settings), STATES, PATCHES)


def kept_patches() -> tuple[Tensor, Tensor]:
    """States of the kept patches, and which these are."""
    random = torch.Generator().manual_seed(1)
    noise = torch.rand(2, PATCHES, generator=random)
    return torch.randn(2, KEPT, STATES, generator=random, dtype=torch.float64), noise.argsort(dim=1)[:, :KEPT]


def test_every_patch_is_decoded() -> None:
    tokens, keep = kept_patches()
    assert spread(pixel_decoder())(tokens, keep).shape == (2, PATCHES, 12)


def test_the_order_in_which_patches_were_kept_means_nothing() -> None:
    decoder, (tokens, keep) = spread(pixel_decoder()), kept_patches()
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(decoder(tokens[:, order], keep[:, order]), decoder(tokens, keep))


def test_a_patch_is_decoded_at_its_own_place() -> None:
    """With one block, nothing of its attention and all states alike, only its position tells a dropped patch apart."""
    decoder, (tokens, keep) = spread(pixel_decoder(depth=1)), kept_patches()
    nn.init.zeros_(decoder.transformer.blocks[0].attention.output.weight)
    pixels, dropped = decoder(tokens, keep), KeptPatches(keep).dropped(PATCHES)
    elsewhere = decoder(tokens + 1, keep)
    torch.testing.assert_close(pixels[dropped], elsewhere[dropped])
    assert not torch.isclose(pixels[~dropped], elsewhere[~dropped]).all(dim=-1).any()
    whole = decoder(tokens[:1, :0], keep[:1, :0])[0]  # all are dropped
    torch.testing.assert_close(pixels[0][dropped[0]], whole[dropped[0]])
    assert len(whole.round(decimals=6).unique(dim=0)) == PATCHES


def test_a_class_token_is_read_and_has_no_patch() -> None:
    decoder, (tokens, keep) = spread(pixel_decoder()), kept_patches()
    pixels = decoder(torch.cat([tokens[:, :1] + 1, tokens], dim=1), keep)
    assert pixels.shape == (2, PATCHES, 12)
    assert not torch.isclose(pixels, decoder(tokens, keep)).all(dim=-1).any()
    nn.init.zeros_(decoder.transformer.blocks[0].attention.output.weight)
    nn.init.zeros_(decoder.transformer.blocks[1].attention.output.weight)
    pixels = decoder(torch.cat([tokens[:, :1] + 1, tokens], dim=1), keep)
    torch.testing.assert_close(pixels, decoder(tokens, keep))  # what is not attended to has no other way


def test_gradients_of_the_pixel_decoder() -> None:
    decoder, (tokens, keep) = spread(pixel_decoder()), kept_patches()
    assert torch.autograd.gradcheck(lambda states: decoder(states, keep), tokens.requires_grad_(), fast_mode=True)
    decoder(tokens, keep).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in decoder.parameters())


def test_first_weights_of_the_pixel_decoder_are_maes() -> None:
    """Uniform by fan-in and fan-out, where query, key and value are one map of 3 W features."""
    decoder = PixelDecoder(PixelDecoderSettings(patch=4, depth=1, width=64, heads=2), 32, PATCHES)
    attention = decoder.transformer.blocks[0].attention
    for weight, fans in [
        (decoder.adapter.weight, 32 + 64),
        (attention.query.weight, 4 * 64),
        (attention.key_value.weight, 4 * 64),
        (attention.output.weight, 2 * 64),
        (decoder.output.weight, 64 + 48),
    ]:
        bound = math.sqrt(6 / fans)
        assert 0.95 * bound < weight.abs().max().item() <= bound
    assert 0.7 * 0.02 < decoder.mask_token.std().item() < 1.3 * 0.02
    assert not any(parameter.any() for name, parameter in decoder.named_parameters() if name.endswith("bias"))


def test_patches_that_are_not_a_square_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="8 patches are not a square grid"):
        PixelDecoder(PixelDecoderSettings(patch=2), STATES, 8)


def text_decoder(cross_from: float = 0.5, class_token: bool = True, **changes: int) -> TextDecoder:
    torch.manual_seed(0)
    settings = TextDecoderSettings(
        **{"depth": 2, "width": 8, "heads": 2, "cross_from": cross_from, "class_token": class_token, **changes}
    )
    return TextDecoder(settings, WORDS, LENGTH + 2, CONTEXT)


def texts() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1)
    return {
        "values": torch.randint(WORDS, (3, LENGTH), generator=random),
        "mask": torch.arange(LENGTH) < torch.tensor([LENGTH, 3, 1])[:, None],
        "context": torch.randn(3, 4, CONTEXT, generator=random, dtype=torch.float64),
        "context_mask": torch.arange(4) < torch.tensor([2, 4, 3])[:, None],
    }


def real_parts(features: SequenceFeatures) -> list[Tensor]:
    parts = [features.tokens if features.mask is None else features.tokens[features.mask]]
    return parts if features.pooled is None else [*parts, features.pooled]


def assert_close(tensors: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(tensors, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


every_decoder = pytest.mark.parametrize(
    ("cross_from", "class_token"), [(0.0, False), (0.5, False), (0.5, True), (1.0, True)]
)


@every_decoder
def test_a_token_is_blind_to_what_follows(cross_from: float, class_token: bool) -> None:
    decoder, arguments = spread(text_decoder(cross_from, class_token)), texts() | {"mask": None}
    changed = arguments["values"].clone()
    changed[:, 3] = (changed[:, 3] + 1) % WORDS

    def unchanged(**options: object) -> list[bool]:
        one, other = decoder(**arguments, **options), decoder(**arguments | {"values": changed}, **options)
        assert class_token == (one.pooled is not None)
        if class_token:
            assert not torch.isclose(one.pooled, other.pooled).all(dim=-1).any()
        return torch.isclose(one.tokens, other.tokens).all(dim=-1).all(dim=0).tolist()

    assert unchanged() == [True] * 3 + [False] * 3
    assert unchanged(prefix=torch.tensor([2, 0, 3])) == [True] * 3 + [False] * 3
    assert unchanged(prefix=torch.tensor([5, 4, 6])) == [False] * LENGTH
    assert unchanged(causal=False) == [False] * LENGTH


@every_decoder
@pytest.mark.parametrize("prefix", [None, [2, 3, 1]])
def test_padding_means_nothing(cross_from: float, class_token: bool, prefix: list[int] | None) -> None:
    decoder, arguments = spread(text_decoder(cross_from, class_token)), texts()
    options = {"prefix": None if prefix is None else torch.tensor(prefix)}
    expected = decoder(**arguments, **options)
    nan = torch.full((3, 2, CONTEXT), torch.nan, dtype=torch.float64)
    longer = {
        "values": torch.cat([arguments["values"].masked_fill(~arguments["mask"], 7), torch.full((3, 2), 9)], dim=1),
        "mask": torch.cat([arguments["mask"], torch.zeros(3, 2, dtype=torch.bool)], dim=1),
        "context": torch.cat(
            [arguments["context"].masked_fill(~arguments["context_mask"][:, :, None], torch.nan), nan], dim=1
        ),
        "context_mask": torch.cat([arguments["context_mask"], torch.zeros(3, 2, dtype=torch.bool)], dim=1),
    }
    features = decoder(**longer, **options)
    assert_close(real_parts(features), real_parts(expected))
    sum(part.square().sum() for part in real_parts(features)).backward()
    learning = [parameter for parameter in decoder.parameters() if parameter.grad is not None]
    assert len(learning) == len(list(decoder.parameters()))
    assert all(parameter.grad.isfinite().all() for parameter in learning)


def test_the_pooled_text_is_half_way_and_sees_no_image() -> None:
    decoder, arguments = spread(text_decoder()), texts()
    whole = decoder(**arguments)
    lower = decoder(arguments["values"], arguments["mask"], blocks=(0.0, 0.5))
    assert torch.equal(lower.pooled, whole.pooled)
    upper = decoder(lower.tokens, arguments["mask"], arguments["context"], arguments["context_mask"], blocks=(0.5, 1.0))
    assert upper.pooled is None
    assert_close([upper.tokens[arguments["mask"]]], [whole.tokens[arguments["mask"]]])
    other = decoder(**arguments | {"context": arguments["context"] * 2})
    assert torch.equal(other.pooled, whole.pooled)
    assert not torch.isclose(other.tokens, whole.tokens).all(dim=-1).any()


@every_decoder
@pytest.mark.parametrize("prefix", [None, [2, 3, 1]])
def test_a_cache_continues_texts_where_each_ends(cross_from: float, class_token: bool, prefix: list[int] | None) -> None:
    """First tokens of several lengths, then tokens two at a time, with padding between them; two texts of each context."""
    decoder, arguments = spread(text_decoder(cross_from, class_token)).eval(), texts()
    context = {name: arguments[name] for name in ("context", "context_mask")}
    values = torch.randint(WORDS, (6, LENGTH), generator=torch.Generator().manual_seed(2))
    starts, ends = torch.tensor([3, 2, 4, 3, 1, 2]), torch.tensor([5, 6, 6, 4, 5, 4])
    options = {} if prefix is None else {"prefix": torch.tensor(prefix).repeat_interleave(2).minimum(starts)}
    order, cache, states = torch.arange(LENGTH), KeyValueCache(10), []
    with torch.no_grad():
        twice = {name: part.repeat_interleave(2, dim=0) for name, part in context.items()}
        whole = decoder(values, order < ends[:, None], **twice, **options).tokens
        for first, last in ((0 * starts, starts), (starts, (starts + 2).minimum(ends)), ((starts + 2).minimum(ends), ends)):
            places = first[:, None] + torch.arange(int((last - first).max()))
            mask = places < last[:, None]
            read = decoder(values.gather(1, places.clamp(max=LENGTH - 1)), mask, **context, **options, cache=cache)
            assert read.pooled is None
            states.append((places, mask, read.tokens))
    for places, mask, tokens in states:
        rows = torch.arange(6)[:, None].expand_as(places)
        assert_close([tokens[mask]], [whole[rows[mask], places[mask]]])


def test_a_cache_is_reordered_with_the_texts() -> None:
    decoder, ids = spread(text_decoder(0.0, class_token=False)), torch.tensor([[1, 2], [3, 4], [5, 6]])
    context, origins, further = texts()["context"][:1], torch.tensor([2, 2, 0]), torch.tensor([[7], [8], [9]])
    cache = KeyValueCache(3)
    with torch.no_grad():
        decoder(ids, context=context, cache=cache)
        cache.reorder(origins)
        after = decoder(further, context=context, cache=cache).tokens
        whole = decoder(torch.cat([ids[origins], further], dim=1), context=context.expand(3, -1, -1)).tokens
    assert_close([after[:, 0]], [whole[:, 2]])


def test_a_cache_computes_keys_and_values_of_a_context_once() -> None:
    decoder, cache, context = text_decoder(0.0, class_token=False), KeyValueCache(LENGTH), texts()["context"].float()
    calls: list[int] = []
    for block in decoder.transformer.blocks:
        block.cross_attention.key_value.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        for token in texts()["values"].split(1, dim=1):
            decoder(token, context=context, cache=cache)
    assert len(calls) == len(decoder.transformer.blocks)


def test_what_a_cache_is_not_for() -> None:
    decoder, ids = text_decoder(0.0, class_token=False), texts()["values"]
    for options in ({"causal": False}, {"blocks": (0.0, 0.5)}, {"parallel": torch.ones(3, dtype=torch.bool)}):
        with pytest.raises(ValueError, match="causal decoder"):
            decoder(ids, cache=KeyValueCache(9), **options)
    with pytest.raises(ValueError, match="a cache for 5 tokens is to take 6"):
        decoder(ids, cache=KeyValueCache(5))
    cache = KeyValueCache(20)
    decoder(ids, cache=cache)
    with pytest.raises(ValueError, match="at most 8"):
        decoder(ids, cache=cache)


def test_without_an_image_it_is_a_language_model() -> None:
    decoder, arguments = spread(text_decoder(0.0, class_token=False)), texts()
    alone = decoder(arguments["values"], arguments["mask"]).tokens
    for block in decoder.transformer.blocks:
        nn.init.zeros_(block.cross_attention.output.weight)
        nn.init.zeros_(block.cross_attention.output.bias)
    assert_close([decoder(**arguments).tokens[arguments["mask"]]], [alone[arguments["mask"]]])


def test_a_prefix_of_the_whole_text_is_attention_in_both_directions() -> None:
    """What a sample of CapPa that is predicted in parallel needs, beside one that is not."""
    decoder, arguments = spread(text_decoder(0.0, class_token=False)), texts()
    mixed = decoder(**arguments, prefix=torch.tensor([LENGTH, 0, 0])).tokens
    torch.testing.assert_close(mixed[:1], decoder(**arguments, causal=False).tokens[:1])
    assert_close([mixed[1:][arguments["mask"][1:]]], [decoder(**arguments).tokens[1:][arguments["mask"][1:]]])


def test_gradients_of_the_text_decoder() -> None:
    decoder, arguments = spread(text_decoder()), texts()
    mask = arguments["mask"]

    def function(context: Tensor, embedding: Tensor) -> tuple[Tensor, ...]:
        weights = {"embedding.weight": embedding}
        features = torch.func.functional_call(
            decoder, weights, (arguments["values"], mask, context, arguments["context_mask"])
        )
        return tuple(real_parts(features))

    leaves = arguments["context"].requires_grad_(), decoder.embedding.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)


def test_first_weights_of_the_text_decoder_are_berts() -> None:
    torch.manual_seed(0)
    for name, parameter in text_decoder(width=64).named_parameters():
        if "norm" in name:
            assert torch.equal(parameter, torch.full_like(parameter, float(name.endswith("weight")))), name
        elif name.endswith("bias"):
            assert not parameter.any(), name
        else:
            assert 0.7 * 0.02 < parameter.std().item() < 1.3 * 0.02, name


def test_what_a_text_decoder_refuses() -> None:
    with pytest.raises(ValueError, match="every block sees it"):
        text_decoder(cross_from=0.0)
    with pytest.raises(ValueError, match="at most 8"):
        text_decoder()(torch.zeros(1, 9, dtype=torch.int64))
    with pytest.raises(ValueError, match="run them at once"):
        text_decoder(depth=4)(texts()["values"], blocks=(0.0, 0.25))


def test_on_the_meta_device_there_are_shapes() -> None:
    with torch.device("meta"):
        text, image = text_decoder(), pixel_decoder()
    arguments = {name: value.to("meta") for name, value in texts().items()}
    assert text(**arguments | {"context": arguments["context"].float()}).tokens.shape == (3, LENGTH, 8)
    keep = torch.zeros(2, KEPT, dtype=torch.int64, device="meta")
    assert image(torch.zeros(2, KEPT, STATES, device="meta"), keep).shape == (2, PATCHES, 12)
