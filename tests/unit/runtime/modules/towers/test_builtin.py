"""The built-in towers: what they declare, what masks and order mean, and who gets a gradient."""

import pytest
import torch

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.modules.towers import (
    TextConfig,
    TextTransformer,
    VisionConfig,
    VisionTransformer,
    build_encoder,
    encoder_names,
)
from vlmdsl.runtime.modules.towers.vit import sine_positions

YIELDS = [("pooled",), ("tokens",), ("pooled", "tokens")]
BUILT_IN = [(name, kind) for kind in ("Image", "Text") for name in encoder_names(kind)]


def tiny_text(causal=True, yields=("pooled", "tokens")):
    torch.manual_seed(0)
    config = TextConfig(width=16, depth=2, heads=2, vocabulary_size=50, text_length=12, causal=causal)
    return TextTransformer(config, 8, yields).double()


def tiny_vision(yields=("pooled", "tokens"), **changes):
    torch.manual_seed(0)
    config = {"image_size": 16, "patch_size": 4, "width": 16, "depth": 2, "heads": 2, **changes}
    return VisionTransformer(VisionConfig(**config), 8, yields)


@pytest.mark.parametrize("yields", YIELDS)
@pytest.mark.parametrize(("name", "kind"), BUILT_IN)
def test_an_encoder_gives_what_it_declares(name, kind, yields):
    with torch.device("meta"):
        encoder = build_encoder(name, kind, dimension=24, yields=yields)
        if kind == "Image":
            size = encoder.image_format.size
            features = encoder(torch.empty(3, 3, size, size))
            lengths = {"groupvit": lambda shape: shape.groups[-1], "segclip": lambda shape: shape.centres}
            length = lengths.get(name.partition(":")[0], lambda shape: shape.grid**2)(encoder.config)
        else:
            length = encoder.text_length
            mask = torch.ones(3, length, dtype=torch.bool)
            features = encoder(torch.zeros(3, length, dtype=torch.int64), mask)
    assert encoder.kind == kind
    assert encoder.dimension == 24
    assert encoder.yields == set(yields)
    assert {name for name in ("pooled", "tokens") if getattr(features, name) is not None} == set(yields)
    if "pooled" in yields:
        assert features.pooled.shape == (3, 24)
    if "tokens" in yields:
        assert features.tokens.shape == (3, length, 24)


@pytest.mark.parametrize("yields", YIELDS)
@pytest.mark.parametrize("make", [tiny_text, tiny_vision])
def test_every_parameter_gets_a_gradient(make, yields):
    encoder = make(yields=yields)
    values = torch.randint(50, (4, 12)) if encoder.kind == "Text" else torch.randn(4, 3, 16, 16)
    features = encoder(values)
    sum(part.square().sum() for part in (features.pooled, features.tokens) if part is not None).backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("causal", [True, False])
def test_padding_changes_nothing(causal):
    encoder = tiny_text(causal)
    values = torch.randint(1, 50, (3, 5))
    lengths = torch.tensor([5, 3, 1])
    mask = torch.arange(5) < lengths[:, None]
    short = encoder(values, mask)
    padding = torch.randint(1, 50, (3, 4))
    long = encoder(torch.cat([values, padding], 1), torch.cat([mask, torch.zeros(3, 4, dtype=torch.bool)], 1))
    alone = encoder(values[1:2, :3])
    torch.testing.assert_close(long.pooled, short.pooled)
    torch.testing.assert_close(long.tokens[:, :5][mask], short.tokens[mask])
    torch.testing.assert_close(short.pooled[1:2], alone.pooled)
    torch.testing.assert_close(short.tokens[1:2, :3], alone.tokens)


@pytest.mark.parametrize("causal", [True, False])
def test_only_a_causal_token_is_blind_to_what_follows(causal):
    encoder = tiny_text(causal)
    values = torch.randint(1, 50, (1, 6))
    changed = values.clone()
    changed[0, -1] = (values[0, -1] + 1) % 50
    same = torch.isclose(encoder(values).tokens, encoder(changed).tokens).all(dim=-1)[0]
    assert same.tolist() == [causal] * 5 + [False]


@pytest.mark.parametrize("causal", [True, False])
def test_a_text_without_a_token_has_finite_features_and_gradients(causal):
    encoder = tiny_text(causal)
    features = encoder(torch.zeros(2, 4, dtype=torch.int64), torch.tensor([[False] * 4, [True] * 4]))
    (features.pooled.sum() + features.tokens.sum()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in encoder.parameters())


@pytest.mark.parametrize("changes", [{}, {"pool": "mean"}, {"stem": "convolution"}])
def test_keeping_all_patches_is_keeping_none_back_and_order_does_not_matter(changes):
    encoder = tiny_vision(**changes).double()
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    whole = encoder(images)
    order = torch.stack([torch.randperm(16), torch.randperm(16)])
    kept = encoder(images, keep=order)
    torch.testing.assert_close(kept.pooled, whole.pooled)
    torch.testing.assert_close(kept.tokens, torch.stack([tokens[i] for tokens, i in zip(whole.tokens, order, strict=True)]))


def test_dropped_patches_are_not_seen():
    encoder = tiny_vision()
    images = torch.randn(1, 3, 16, 16)
    changed = images.clone()
    changed[:, :, 12:, 12:] += 1  # the last patch
    first = torch.arange(15)[None]
    torch.testing.assert_close(encoder(images, keep=first), encoder(changed, keep=first))
    assert not torch.allclose(encoder(images).pooled, encoder(changed).pooled)


def test_images_of_another_side_have_their_patches_spread_over_the_same_range():
    encoder = tiny_vision().double()  # 16 pixels, patches of 4
    assert encoder(torch.randn(2, 3, 8, 8, dtype=torch.float64)).tokens.shape[1] == 4
    assert encoder(torch.randn(2, 3, 24, 24, dtype=torch.float64)).tokens.shape[1] == 36
    assert sine_positions(4, 16, 4).equal(sine_positions(4, 16))
    # The places 0.5 and 2.5 on a grid of 0 to 3; every second place of a grid twice as fine, which has its own at quarters.
    angles = torch.tensor([0.5, 2.5])
    torch.testing.assert_close(sine_positions(2, 16, 4)[:, 0], angles.sin().repeat_interleave(2))
    torch.testing.assert_close(sine_positions(2, 16, 4)[:, 8], angles.sin().repeat(2))
    torch.testing.assert_close(sine_positions(8, 16, 4)[0, 0], torch.tensor(-0.25).sin())
    with pytest.raises(ValueError, match="multiple of 4"):
        encoder(torch.randn(2, 3, 10, 10, dtype=torch.float64))


def test_an_image_encoder_sees_where_a_patch_is():
    positions = sine_positions(5, 16)
    distances = torch.cdist(positions, positions) + torch.eye(25) * 99
    assert distances.min() > 0.1


@pytest.mark.parametrize("stem", ["patch", "convolution"])
def test_a_fresh_image_encoder_sees_the_image_as_well_as_the_place(stem):
    encoder = tiny_vision(stem=stem, image_size=32, patch_size=8, width=64)
    patches = encoder.stem(torch.randn(16, 3, 32, 32))
    assert 0.4 < (patches.std() / encoder.positions.std()).item() < 2.5


def test_normed_embeddings_tell_words_apart_whatever_is_around_them():
    def likeness(name: str) -> tuple[float, float]:
        """The mean cosine of the states of one word in two texts, and of two words at the same place."""
        torch.manual_seed(0)
        encoder = build_encoder(name, "Text", 64, yields=["states"])
        texts = torch.randint(300, (2, 64, 24))
        one, other = (encoder(each).states[:, 12] for each in texts)
        texts[1, :, 12] = texts[0, :, 12]
        same = encoder(texts[1]).states[:, 12]
        return tuple(torch.cosine_similarity(one, each, dim=1).mean().item() for each in (same, other))

    same, other = likeness("transformer:tiny_bidirectional")
    assert same > other + 0.4
    same, other = likeness("transformer:tiny")
    assert same < other + 0.2


@pytest.mark.parametrize(
    ("name", "kind", "sizes", "code", "words"),
    [
        ("vit:tinny", "Image", {}, "V0830", "did you mean `vit:tiny`?"),
        ("vit", "Image", {}, "V0830", "vit:tiny"),
        ("vit:tiny", "Text", {}, "V0830", "transformer:tiny"),
        ("vit:tiny", "Image", {"image_size": 30}, "V0831", "model.image_size=32"),
        ("groupvit:tiny", "Image", {"yields": ("states",)}, "V0831", "vit:tiny"),
    ],
)
def test_a_wrong_name_or_size_is_a_diagnostic(name, kind, sizes, code, words):
    with pytest.raises(DiagnosticError) as caught:
        build_encoder(name, kind, dimension=8, **sizes)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == code
    assert words in " ".join(diagnostic.help)
