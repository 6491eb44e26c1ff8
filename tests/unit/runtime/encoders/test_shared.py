"""The shared tower: one trunk for images, texts and pairs of both."""

import pytest
import torch

from vlmdsl.runtime.encoders import SharedConfig, SharedTransformer, VisionConfig, build_encoder

BOTH = ("pooled", "tokens")


def tower(pool="class"):
    image = VisionConfig(image_size=8, patch_size=4, width=16, depth=2, heads=2, pool=pool)
    return SharedTransformer(SharedConfig(image, vocabulary_size=30, text_length=9), 6, BOTH).double()


def images(count=3):
    return torch.randn(count, 3, 8, 8, dtype=torch.float64)


def texts(count=3, length=5):
    lengths = torch.arange(count) % length + 1
    return torch.randint(1, 30, (count, length)), torch.arange(length) < lengths[:, None]


def test_each_kind_of_stream_yields_one_feature_a_token():
    encoder, (ids, mask) = tower(), texts()
    image, text, pair = encoder(images()), encoder(ids, mask), encoder(images(), mask, ids)
    assert [found.pooled.shape for found in (image, text, pair)] == [(3, 6)] * 3
    assert [found.tokens.shape for found in (image, text, pair)] == [(3, 4, 6), (3, 5, 6), (3, 9, 6)]
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


def test_an_empty_text_has_features():
    ids = torch.ones(2, 3, dtype=torch.int64)
    found = tower()(ids, torch.zeros(2, 3, dtype=torch.bool))
    assert found.pooled.isfinite().all()


def test_images_and_texts_train_every_weight_and_meet_in_the_same_trunk():
    encoder, (ids, mask) = tower(), texts()
    embedders = ("stem.", "embedding.", "word_positions")
    for arguments in ((images(),), (ids, mask)):
        encoder.zero_grad()
        found = encoder(*arguments)
        (found.pooled.sum() + found.tokens.sum()).backward()
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
