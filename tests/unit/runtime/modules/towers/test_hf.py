"""The adapter to transformers, on small random models in a temporary folder: nothing is downloaded."""

import json
import sys

import pytest
import torch

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.modules.towers import build_encoder

transformers = pytest.importorskip("transformers", reason="the extra `hf` is not installed")

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = {**SMALL, "image_size": 32, "patch_size": 8}
TEXT = {**SMALL, "vocab_size": 100, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2}
LEVIT = transformers.LevitConfig(
    image_size=64, hidden_sizes=[16, 24, 32], num_attention_heads=[1, 1, 1], depths=[1, 1, 1], key_dim=[8, 8, 8]
)
CONFIGS = {
    "vit": ("Image", lambda: transformers.ViTConfig(**VISION)),
    "clip vision": ("Image", lambda: transformers.CLIPVisionConfig(**VISION)),
    "dinov2": ("Image", lambda: transformers.Dinov2Config(**VISION)),
    "siglip vision": ("Image", lambda: transformers.SiglipVisionConfig(**VISION)),
    "bert": ("Text", lambda: transformers.BertConfig(**{**TEXT, "pad_token_id": 0})),
    "distilbert": (
        "Text",
        lambda: transformers.DistilBertConfig(
            vocab_size=100, dim=32, n_layers=1, n_heads=2, hidden_dim=64, max_position_embeddings=16
        ),
    ),
    "clip text": ("Text", lambda: transformers.CLIPTextConfig(**TEXT)),
    "clip, its images": ("Image", lambda: clip_config()),
    "clip, its texts": ("Text", lambda: clip_config()),
}


def clip_config():
    return transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=24)


def saved(config, folder):
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    return f"hf:{folder}"


def example(encoder):
    if encoder.kind == "Image":
        return torch.rand(3, 3, 32, 32), None
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [False] * 5])
    return torch.randint(3, 100, (3, 5)), mask


@pytest.mark.parametrize("yields", [("pooled",), ("tokens",), ("pooled", "tokens")])
@pytest.mark.parametrize("model", CONFIGS)
def test_a_model_gives_what_it_declares_and_every_trained_parameter_gets_a_gradient(model, yields, tmp_path):
    kind, config = CONFIGS[model]
    encoder = build_encoder(saved(config(), tmp_path), kind, dimension=16, yields=yields)
    encoder.train()
    features = encoder(*example(encoder))
    parts = {"pooled": features.pooled, "tokens": features.tokens}
    assert {name for name, part in parts.items() if part is not None} == set(yields) == encoder.yields
    if "pooled" in yields:
        assert features.pooled.shape == (3, 16)
    if "tokens" in yields:
        assert features.tokens.shape == (3, 16 if kind == "Image" else 5, 16)
    sum(part.square().sum() for part in parts.values() if part is not None).backward()
    trained = {name: parameter for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert trained
    assert [name for name, parameter in trained.items() if parameter.grad is None] == []
    assert all(torch.isfinite(parameter.grad).all() for parameter in trained.values())


@pytest.mark.parametrize("model", CONFIGS)
def test_a_tower_of_which_only_states_are_read_says_how_wide_they_are(model, tmp_path):
    kind, config = CONFIGS[model]
    encoder = build_encoder(saved(config(), tmp_path), kind, dimension=16, yields=("states",))
    features = encoder(*example(encoder))
    assert (features.pooled, features.tokens) == (None, None)
    assert features.states.shape == (3, 16 if kind == "Image" else 5, encoder.states_width)
    features.states.square().sum().backward()
    assert [name for name, one in encoder.named_parameters() if one.requires_grad and one.grad is None] == []


def test_the_weights_of_a_tower_and_its_projection_are_the_saved_ones(tmp_path):
    name = saved(clip_config(), tmp_path)
    encoder = build_encoder(name, "Image", dimension=24)
    whole = transformers.AutoModel.from_pretrained(tmp_path).eval()
    images = torch.rand(2, 3, 32, 32)
    expected = whole.visual_projection(whole.vision_model(pixel_values=images).pooler_output)
    torch.testing.assert_close(encoder.eval()(images).pooled, expected)


def test_images_are_standardised_as_the_model_was_trained(tmp_path):
    name = saved(transformers.ViTConfig(**VISION), tmp_path)
    assert build_encoder(name, "Image", dimension=8).image_format.mean == (0.5, 0.5, 0.5)
    settings = {"image_processor_type": "ViTImageProcessor", "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    format = build_encoder(name, "Image", dimension=8).image_format
    assert (format.size, format.mean, format.deviation) == (32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.mark.parametrize(
    ("kind", "options", "problem"),
    [
        ("Text", {}, "it is not an encoder of texts"),
        ("Image", {"image_size": 48}, "cannot be used for images of 48 pixels"),
    ],
)
def test_a_model_that_does_not_fit_is_a_diagnostic(kind, options, problem, tmp_path):
    """LeViT has a bias for each pair of places, and interpolates none."""
    name = saved(LEVIT, tmp_path)
    with pytest.raises(DiagnosticError, match=f"V0831.*{problem}"):
        build_encoder(name, kind, dimension=8, **options)


INTERPOLATING = ["vit", "clip vision", "dinov2", "siglip vision", "clip, its images"]


@pytest.mark.parametrize("model", INTERPOLATING)
def test_images_of_other_sizes_have_interpolated_positions(model, tmp_path):
    """At the side of the model nothing is interpolated; at another one features are the library's with interpolation."""
    name = saved(CONFIGS[model][1](), tmp_path)
    whole = transformers.AutoModel.from_pretrained(tmp_path).eval()
    library = whole.get_image_features if hasattr(whole, "get_image_features") else whole
    options = {} if model == "dinov2" else {"interpolate_pos_encoding": True}
    for side in (32, 48):
        encoder = build_encoder(name, "Image", dimension=24, yields=("pooled", "tokens"), image_size=side).eval()
        assert (encoder.image_format.size, encoder.image_format.patch, encoder.image_format.resizable) == (side, 8, True)
        for own in (32, 24):
            pixels = torch.randn(2, 3, own, own)
            ours = encoder(pixels)
            states = library(pixel_values=pixels, **(options if own != 32 else {})).last_hidden_state
            assert ours.tokens.shape[1] == (own // 8) ** 2
            patches = states[:, -ours.tokens.shape[1] :]
            torch.testing.assert_close(ours.tokens, encoder.token_projection(patches))
    keep = torch.tensor([[3, 0], [1, 2]])
    assert encoder(torch.randn(2, 3, 16, 16), keep=keep).tokens.shape == (2, 2, 24)


@pytest.mark.parametrize("options", [{"text_length": 17}, {"vocabulary_size": 101}])
def test_a_text_model_with_too_little_room_is_a_diagnostic(options, tmp_path):
    name = saved(transformers.BertConfig(**{**TEXT, "pad_token_id": 0}), tmp_path)
    with pytest.raises(DiagnosticError, match="V0831"):
        build_encoder(name, "Text", dimension=8, **options)


def test_pickled_weights_are_refused(tmp_path):
    model = transformers.ViTModel(transformers.ViTConfig(**VISION))
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(DiagnosticError, match="V0902"):
        build_encoder(f"hf:{tmp_path}", "Image", dimension=8)


def test_a_folder_that_is_not_there_is_a_diagnostic(tmp_path):
    with pytest.raises(DiagnosticError, match="V0902"):
        build_encoder(f"hf:{tmp_path}/nowhere", "Text", dimension=8)


def test_a_missing_package_is_a_diagnostic(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(DiagnosticError, match="V0901"):
        build_encoder("hf:any", "Text", dimension=8)


@pytest.mark.parametrize("model", INTERPOLATING)
def test_dropped_patches_of_a_vision_transformer_change_nothing_but_their_absence(model, tmp_path):
    encoder = build_encoder(saved(CONFIGS[model][1](), tmp_path), "Image", 16, ("pooled", "tokens")).eval()
    assert (encoder.image_format.patch, encoder.image_format.resizable, encoder.overlapping_patches) == (8, True, False)
    pixels, keep = torch.randn(2, 3, 32, 32), torch.tensor([[3, 0, 9], [1, 2, 15]])
    kept = encoder(pixels, keep=keep)
    assert kept.tokens.shape == (2, 3, 16)
    changed = pixels.clone()
    changed[0, :, 8:16, :8] = 5.0  # patch 4, which is dropped
    assert torch.equal(encoder(changed, keep=keep).pooled[0], kept.pooled[0])
    assert not torch.allclose(kept.pooled, encoder(pixels).pooled)


@pytest.mark.parametrize("model", INTERPOLATING)
def test_images_of_another_size_are_read_as_views_of_it_are(model, tmp_path):
    encoder = build_encoder(saved(CONFIGS[model][1](), tmp_path), "Image", 16).eval()
    pixels = [torch.randn(2, 3, side, side) for side in (32, 64)]
    before = [encoder(images).pooled for images in pixels]
    encoder.take_images("hf:own", 64, "stages.second.model.image_size")
    assert encoder.image_format.size == 64
    assert all(torch.equal(encoder(images).pooled, own) for images, own in zip(pixels, before, strict=True))


def test_a_model_that_merges_its_patches_takes_no_dropped_ones(tmp_path):
    config = transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[1, 2], window_size=4
    )
    assert build_encoder(saved(config, tmp_path), "Image", 16).image_format.patch is None


@pytest.mark.parametrize(("model", "causal"), [("clip text", True), ("bert", False)])
def test_a_text_tower_says_whether_it_is_causal(model, causal, tmp_path):
    assert build_encoder(saved(CONFIGS[model][1](), tmp_path), "Text", 16).causal is causal


def test_a_configuration_alone_gives_new_weights(tmp_path):
    name = saved(CONFIGS["vit"][1](), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.manual_seed(1)
    first, second = (build_encoder(name, "Image", 16, pretrained=False) for _ in range(2))
    assert not torch.equal(*(next(iter(one.model.parameters())) for one in (first, second)))
    with pytest.raises(DiagnosticError, match="V0902"):
        build_encoder(name, "Image", 16)
