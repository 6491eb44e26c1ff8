"""The shared tower: one trunk for images, texts and pairs of both."""

import pytest
import torch

from vlmdsl.runtime.modules.towers import SharedConfig, SharedTransformer, VisionConfig, build_encoder
from vlmdsl.runtime.modules.towers.shared import _overlaid

BOTH = ("pooled", "tokens")


def tower(pool="class", **options):
    image = VisionConfig(image_size=8, patch_size=4, width=16, depth=2, heads=2, pool=pool)
    return SharedTransformer(SharedConfig(image, vocabulary_size=30, text_length=9), 6, BOTH, **options).double()


def images(count=3):
    return torch.randn(count, 3, 8, 8, dtype=torch.float64)


def texts(count=3, length=5):
    lengths = torch.arange(count) % length + 1
    return torch.randint(1, 30, (count, length)), torch.arange(length) < lengths[:, None]


def test_each_kind_of_stream_yields_one_feature_per_token():
    encoder, (ids, mask) = tower(), texts()
    image, text, pair = encoder(images()), encoder(ids, mask), encoder(images(), mask, ids)
    assert [features.pooled.shape for features in (image, text, pair)] == [(3, 6)] * 3
    assert [features.tokens.shape for features in (image, text, pair)] == [(3, 4, 6), (3, 5, 6), (3, 9, 6)]
    assert image.mask is None
    assert torch.equal(text.mask, mask)
    assert torch.equal(pair.mask, torch.cat([torch.ones(3, 4, dtype=torch.bool), mask], dim=1))


def test_padding_changes_no_feature_of_a_text_nor_of_a_pair():
    encoder, shown, (ids, mask) = tower(), images(), texts()
    other = torch.where(mask, ids, 29)
    for arguments, changed in (((ids, mask), (other, mask)), ((shown, mask, ids), (shown, mask, other))):
        one, two = encoder(*arguments), encoder(*changed)
        assert torch.equal(one.pooled, two.pooled)
        real = torch.ones_like(one.tokens[..., 0], dtype=torch.bool) if one.mask is None else one.mask
        assert torch.equal(one.tokens[real], two.tokens[real])


def test_the_words_of_a_pair_are_read_in_the_light_of_its_image():
    encoder, (ids, mask) = tower(), texts()
    one, two = encoder(images(), mask, ids), encoder(images(), mask, ids)
    words = one.tokens[:, 4:][mask], two.tokens[:, 4:][mask]
    assert (words[0] - words[1]).abs().max() > 1e-3
    assert (one.pooled - two.pooled).abs().max() > 1e-3


@pytest.mark.parametrize("length", [3, 7])  # fewer words than the four patches, and more
def test_a_blended_pair_is_the_image_alone_at_one_end_and_the_text_at_the_other(length):
    encoder, shown, (ids, mask) = tower(), images(), texts(length=length)
    for share, alone in ((1.0, encoder(shown)), (0.0, encoder(ids, mask))):
        features = encoder(shown, mask, ids, torch.full((3,), share, dtype=torch.float64))
        torch.testing.assert_close(features.pooled, alone.pooled, rtol=1e-12, atol=1e-12)
        real = torch.ones_like(alone.tokens[..., 0], dtype=torch.bool) if alone.mask is None else alone.mask
        together = features.tokens[:, : real.shape[1]], features.mask[:, : real.shape[1]]
        assert torch.equal(together[1], real)
        assert features.mask.sum() == real.sum()
        torch.testing.assert_close(together[0][real], alone.tokens[real], rtol=1e-12, atol=1e-12)


def test_positions_of_both_are_mixed_and_those_of_one_count_as_much_as_its_share():
    patches, words = torch.randn(1, 4, 2), torch.randn(1, 3, 2)
    mixed, weight = _overlaid(patches, words, torch.tensor([[True, True, False]]), torch.tensor([0.25]))
    torch.testing.assert_close(mixed[:, :2], 0.25 * patches[:, :2] + 0.75 * words[:, :2])
    torch.testing.assert_close(mixed[:, 2:], patches[:, 2:])
    torch.testing.assert_close(weight, torch.tensor([[1.0, 1.0, 0.25, 0.25]]))
    longer, counts = _overlaid(patches[:, :1], words, torch.ones(1, 3, dtype=torch.bool), torch.tensor([0.25]))
    torch.testing.assert_close(longer[:, 1:], words[:, 1:])
    torch.testing.assert_close(counts, torch.tensor([[1.0, 0.75, 0.75]]))


def test_padding_changes_no_feature_of_a_blended_pair():
    encoder, shown, (ids, mask) = tower(), images(), texts(length=7)
    one, two = (encoder(shown, mask, words, torch.full((3,), 0.3, dtype=torch.float64)) for words in (ids, ids * mask))
    assert torch.equal(one.pooled, two.pooled)
    assert torch.equal(one.tokens[one.mask], two.tokens[one.mask])


def test_a_blend_moves_from_the_text_to_the_image_without_a_step():
    encoder, shown, (ids, mask) = tower(), images(), texts()
    near, end = (encoder(shown, mask, ids, torch.full((3,), share, dtype=torch.float64)).pooled for share in (1e-7, 0.0))
    torch.testing.assert_close(near, end, rtol=1e-4, atol=1e-4)


def all_modes(encoder, shown, **ports):
    """The features of images alone, before texts, and laid over texts."""
    torch.manual_seed(5)
    ids, mask = texts()
    half = torch.full((len(shown),), 0.5, dtype=torch.float64)
    return [encoder(shown, **ports), encoder(shown, mask, ids, **ports), encoder(shown, mask, ids, half, **ports)]


def with_another_first_patch(shown):
    other = shown.clone()
    other[:, :, :4, :4] += 1
    return other


def test_replaced_and_dropped_patches_are_unseen_in_every_mode():
    encoder, shown = tower(replaced_patches=True), images()
    replace = torch.tensor([[True, False, False, False]] * 3)
    keep = torch.tensor([[1, 2, 3]] * 3)
    other = with_another_first_patch(shown)
    for ports in ({"replace": replace}, {"keep": keep}, {"keep": keep, "replace": replace}):
        for one, two in zip(all_modes(encoder, shown, **ports), all_modes(encoder, other, **ports), strict=True):
            assert torch.equal(one.pooled, two.pooled)
        for hidden, whole in zip(all_modes(encoder, shown, **ports), all_modes(encoder, shown), strict=True):
            assert not torch.equal(hidden.pooled, whole.pooled)
    for one, two in zip(all_modes(encoder, shown), all_modes(encoder, other), strict=True):
        assert not torch.equal(one.pooled, two.pooled)


def test_an_image_of_which_nothing_is_dropped_or_replaced_is_the_whole_one():
    encoder, shown = tower(replaced_patches=True), images()
    ports = {"keep": torch.arange(4).expand(3, 4), "replace": torch.zeros(3, 4, dtype=torch.bool)}
    for one, two in zip(all_modes(encoder, shown, **ports), all_modes(encoder, shown), strict=True):
        torch.testing.assert_close(one.tokens, two.tokens, rtol=1e-12, atol=1e-12)


def test_what_is_left_of_an_image_comes_before_its_words():
    encoder, (ids, mask) = tower(), texts()
    pair = encoder(images(), mask, ids, keep=torch.tensor([[3, 0]] * 3))
    assert pair.tokens.shape == (3, 7, 6)
    assert torch.equal(pair.mask, torch.cat([torch.ones(3, 2, dtype=torch.bool), mask], dim=1))


def test_a_preset_whose_patches_overlap_has_others_where_patches_are_predicted():
    plain, apart = (
        build_encoder("shared:tiny", "Image|Text", 12, image_size=16, separate_patches=apart) for apart in (False, True)
    )
    assert (plain.overlapping_patches, apart.overlapping_patches) == (True, False)
    assert "linear map" in apart.notes[0]


def test_an_empty_text_has_features():
    ids = torch.ones(2, 3, dtype=torch.int64)
    features = tower()(ids, torch.zeros(2, 3, dtype=torch.bool))
    assert features.pooled.isfinite().all()


def test_images_and_texts_train_every_weight_and_meet_in_the_same_trunk():
    encoder, (ids, mask) = tower(), texts()
    embedders = ("stem.", "embedding.", "word_positions")
    for arguments in ((images(),), (ids, mask)):
        encoder.zero_grad()
        features = encoder(*arguments)
        (features.pooled.sum() + features.tokens.sum()).backward()
        assert all(
            weight.grad is not None and bool(weight.grad.any())
            for name, weight in encoder.named_parameters()
            if not name.startswith(embedders) and "key_value.bias" not in name
        )
    encoder(*(images(), mask, ids)).pooled.sum().backward()
    assert all(weight.grad is not None for weight in encoder.parameters())


def test_presets_are_built_in_the_wanted_sizes():
    encoder = build_encoder("shared:tiny", "Image|Text", 12, image_size=16, vocabulary_size=40, text_length=6)
    assert encoder.image_format.size == 16
    assert (encoder.vocabulary_size, encoder.text_length, encoder.kind) == (40, 6, "Image|Text")
    with pytest.raises(ValueError, match="at most 6"):
        encoder(torch.ones(1, 7, dtype=torch.int64))
    with pytest.raises(ValueError, match="16, 16"):
        encoder(torch.zeros(1, 3, 8, 8))
