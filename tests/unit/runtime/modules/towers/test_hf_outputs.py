"""What an `hf:` tower gives is what transformers gives for the same input, for tiny random models of many families."""

import numpy as np
import pytest
import torch

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.modules.towers import build_encoder

transformers = pytest.importorskip("transformers", reason="the extra `hf` is not installed")

BOTH = ("pooled", "tokens")
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = {**SMALL, "image_size": 32, "patch_size": 8}
TEXT = {**SMALL, "vocab_size": 100, "max_position_embeddings": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 99}
STAGES = {"hidden_sizes": [8, 16, 16, 24], "depths": [1, 1, 1, 1]}
ENCODER_DECODER = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}


def both(family, **vision):
    return lambda: getattr(transformers, f"{family}Config")(text_config=TEXT, vision_config={**VISION, **vision})


def config(family, **settings):
    return lambda: getattr(transformers, f"{family}Config")(**settings)


def pooler(output):
    return output.pooler_output.flatten(1)


def first(output):
    return output.last_hidden_state[:, 0]


def mean(output):
    return output.last_hidden_state.mean(dim=1)


def patches(count):
    return lambda hidden: hidden[:, -count:]


def feature_map(hidden):
    return hidden.flatten(2).transpose(1, 2)


IMAGES = {
    # family: (configuration, pooled feature of the library's output, tokens of its last hidden state)
    "ViT": (config("ViT", **VISION), pooler, patches(16)),
    "Dinov2": (config("Dinov2", **VISION), pooler, patches(16)),
    "Dinov2WithRegisters": (config("Dinov2WithRegisters", **VISION, num_register_tokens=3), pooler, patches(16)),
    "DINOv3": (config("DINOv3ViT", **VISION, num_register_tokens=2), pooler, patches(16)),
    "Beit": (config("Beit", **VISION), pooler, patches(16)),
    "DeiT": (config("DeiT", **VISION), pooler, patches(16)),
    "ConvNext": (config("ConvNext", **STAGES, image_size=64), pooler, feature_map),
    "ResNet": (config("ResNet", **STAGES, embedding_size=8, layer_type="basic"), pooler, feature_map),
    "Swin": (
        config("Swin", image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4),
        pooler,
        lambda hidden: hidden,
    ),
    "EfficientNet": (
        config("EfficientNet", image_size=32, width_coefficient=0.1, depth_coefficient=0.1, hidden_dim=128),
        pooler,
        feature_map,
    ),
    "IJepa": (config("IJepa", **VISION), mean, lambda hidden: hidden),
    "Yolos": (
        config("Yolos", **{**VISION, "image_size": [32, 32]}, num_detection_tokens=5),
        pooler,
        lambda hidden: hidden[:, 1:17],
    ),
    "SiglipVision": (config("SiglipVision", **VISION), pooler, patches(16)),
    "CLIP": (both("CLIP"), pooler, patches(16)),
    "Siglip": (both("Siglip"), pooler, patches(16)),
    "Blip": (both("Blip"), pooler, patches(16)),
}
TEXTS = {
    "Bert": (config("Bert", **TEXT), pooler),
    "Roberta": (config("Roberta", **{**TEXT, "pad_token_id": 1}), pooler),
    "XLMRoberta": (config("XLMRoberta", **{**TEXT, "pad_token_id": 1}), pooler),
    "MPNet": (config("MPNet", **{**TEXT, "pad_token_id": 1}), pooler),
    "Albert": (config("Albert", **TEXT, embedding_size=16), pooler),
    "Electra": (config("Electra", **TEXT, embedding_size=16), first),
    "DebertaV2": (config("DebertaV2", **TEXT), first),
    "DistilBert": (
        config("DistilBert", vocab_size=100, dim=32, n_layers=1, n_heads=2, hidden_dim=64, max_position_embeddings=16),
        first,
    ),
    "ModernBert": (config("ModernBert", **TEXT, cls_token_id=1, sep_token_id=2), first),
    "GPT2": (config("GPT2", vocab_size=100, n_positions=16, n_embd=32, n_layer=1, n_head=2), "last"),
    "Qwen2": (config("Qwen2", **TEXT, num_key_value_heads=2), "last"),
    "Qwen3": (config("Qwen3", **TEXT, num_key_value_heads=2, head_dim=16), "last"),
    "Llama": (config("Llama", **TEXT, num_key_value_heads=2), "last"),
    "T5": (config("T5", vocab_size=100, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2), "mean"),
    "XLNet": (config("XLNet", vocab_size=100, d_model=32, n_layer=1, n_head=2, d_inner=32), "last"),
    "Bart": (
        config("Bart", vocab_size=100, d_model=32, max_position_embeddings=16, encoder_ffn_dim=64, **ENCODER_DECODER),
        first,
    ),
    "CLIP": (both("CLIP"), pooler),
    "Siglip": (both("Siglip"), pooler),
    "Blip": (both("Blip"), pooler),
}


def saved(config, folder, seed=0):
    """A model with random weights, none of them small, saved in the folder; in evaluation mode."""
    torch.manual_seed(seed)
    model = transformers.AutoModel.from_config(config)
    with torch.no_grad():
        for values in model.parameters():
            if values.ndim > 1 and values.numel():
                values.normal_(std=values[0].numel() ** -0.5)
        for name, values in model.named_buffers():
            if "running" in name:  # of batch norms
                values.uniform_(0.5, 1.5) if "var" in name else values.normal_(std=0.2)
    model.save_pretrained(folder)
    return model.eval()


def features_of(folder, kind, pooled, tokens, values, mask=None, **options):
    """Our pooled features and tokens of these inputs, of the widths of the library's: then none is projected."""
    encode = {
        width: build_encoder(f"hf:{folder}", kind, width, BOTH, **options).eval()(values, mask)
        for width in {pooled.shape[-1], tokens.shape[-1]}
    }
    return encode[pooled.shape[-1]].pooled, encode[tokens.shape[-1]].tokens


def equal(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert theirs.std() > 1e-3  # and not equal because all is zero


@pytest.mark.parametrize("family", IMAGES)
@torch.no_grad()
def test_the_features_of_images_are_the_librarys(family, tmp_path):
    make, pool, tokens_of = IMAGES[family]
    model = saved(make(), tmp_path)
    size = 64 if family in ("ConvNext", "ResNet") else 32
    images = torch.rand(3, 3, size, size)
    encode = getattr(model, "get_image_features", model) if hasattr(model, "get_text_features") else model
    output = encode(pixel_values=images)
    expected = pool(output), tokens_of(output.last_hidden_state)
    for ours, theirs in zip(features_of(tmp_path, "Image", *expected, images, image_size=size), expected, strict=True):
        equal(ours, theirs)


@pytest.mark.parametrize("family", TEXTS)
@torch.no_grad()
def test_the_features_of_texts_are_the_librarys_with_padding_at_the_end(family, tmp_path):
    make, pool = TEXTS[family]
    model = saved(make(), tmp_path)
    pad = getattr(model.config, "pad_token_id", None) or 0
    ids, mask = torch.full((3, 9), pad), torch.zeros(3, 9, dtype=torch.bool)
    for row, length in enumerate((9, 5, 3)):
        ids[row, :length], mask[row, :length] = torch.randint(4, 98, (length,)), True
        ids[row, 0], ids[row, length - 1] = 1 if pad != 1 else 2, 99
    encode = getattr(model, "get_text_features", model)
    if family in ("T5", "Bart"):
        encode = model.get_encoder()
    output = encode(input_ids=ids, **({} if family == "Siglip" else {"attention_mask": mask.long()}))
    hidden = output.last_hidden_state
    expected = {
        "last": lambda output: hidden[torch.arange(3), mask.sum(dim=1) - 1],
        "mean": lambda output: torch.stack([hidden[row, :length].mean(dim=0) for row, length in enumerate((9, 5, 3))]),
    }.get(pool, pool)
    pooled, tokens = features_of(tmp_path, "Text", expected(output), hidden, ids, mask)
    equal(pooled, expected(output))
    equal(tokens[mask], hidden[mask])


@torch.no_grad()
def test_siglip_2_takes_its_images_as_patches_and_its_texts_with_their_padding(tmp_path):
    config = transformers.Siglip2Config(text_config=TEXT, vision_config={**SMALL, "num_patches": 16, "patch_size": 8})
    model = saved(config, tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    processor = transformers.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
    encoder = build_encoder(f"hf:{tmp_path}", "Image", 32, BOTH).eval()
    output = model.get_image_features(**processor(list(images), return_tensors="pt"))
    features = encoder(encoder.image_format.tensor(images))
    equal(features.pooled, output.pooler_output)
    equal(features.tokens, output.last_hidden_state)
    ids, mask = torch.randint(4, 98, (2, 16)), torch.arange(16) < torch.tensor([[5], [9]])
    words = build_encoder(f"hf:{tmp_path}", "Text", 32).eval()
    equal(words(ids, mask).pooled, model.get_text_features(input_ids=ids).pooler_output)


@torch.no_grad()
def test_a_masked_autoencoder_hides_no_patch(tmp_path):
    decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    model = saved(transformers.ViTMAEConfig(**VISION, **decoder, decoder_intermediate_size=16), tmp_path)
    images = torch.rand(2, 3, 32, 32)
    model.config.mask_ratio = 0.0
    output = model(pixel_values=images, noise=torch.arange(16.0).expand(2, -1))
    encoder = build_encoder(f"hf:{tmp_path}", "Image", 32, BOTH)
    for features in (encoder.train()(images), encoder.eval()(images)):
        equal(features.pooled, output.last_hidden_state[:, 0])
        equal(features.tokens, output.last_hidden_state[:, 1:])


def test_a_model_that_draws_at_random_is_refused(tmp_path, monkeypatch):
    saved(transformers.ViTConfig(**VISION), tmp_path)
    embeddings = transformers.models.vit.modeling_vit.ViTEmbeddings
    plain = embeddings.forward
    monkeypatch.setattr(embeddings, "forward", lambda *values, **named: plain(*values, **named) * torch.rand(()))
    with pytest.raises(DiagnosticError, match="it is random"):
        build_encoder(f"hf:{tmp_path}", "Image", 32)


@torch.no_grad()
@pytest.mark.parametrize(("family", "kind"), [("ViT", "Image"), ("Bert", "Text")])
def test_a_pooler_that_is_not_among_the_saved_weights_is_left_out(family, kind, tmp_path):
    model = saved((IMAGES | TEXTS)[family][0](), tmp_path)
    model.pooler = None
    model.save_pretrained(tmp_path)
    encoder = build_encoder(f"hf:{tmp_path}", kind, 32).eval()
    values = torch.rand(2, 3, 32, 32) if kind == "Image" else torch.randint(3, 99, (2, 6))
    equal(encoder(values).pooled, model(values).last_hidden_state[:, 0])
    assert "pooler without saved weights" in " ".join(encoder.notes)


@torch.no_grad()
def test_the_encoder_of_a_translator_is_read_where_it_was_saved_alone(tmp_path):
    model = transformers.T5EncoderModel(TEXTS["T5"][0]()).eval()
    model.save_pretrained(tmp_path)
    ids = torch.randint(3, 99, (2, 6))
    equal(build_encoder(f"hf:{tmp_path}", "Text", 32).eval()(ids).pooled, model(ids).last_hidden_state.mean(dim=1))


def test_a_model_that_joins_its_inputs_is_refused(tmp_path):
    saved(transformers.PixtralVisionConfig(**VISION), tmp_path)
    with pytest.raises(DiagnosticError, match="1 outputs for 2 inputs"):
        build_encoder(f"hf:{tmp_path}", "Image", 32, image_size=32)


def test_a_model_that_lacks_other_weights_is_refused(tmp_path):
    model = saved(transformers.BertConfig(**TEXT), tmp_path)
    weights = {name: values for name, values in model.state_dict().items() if "attention.self.query" not in name}
    model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(DiagnosticError, match="V0902"):
        build_encoder(f"hf:{tmp_path}", "Text", 32)


def test_one_half_of_a_model_of_both_holds_no_weights_of_the_other(tmp_path):
    saved(both("CLIP")(), tmp_path)
    for kind, other in (("Image", "text_model"), ("Text", "vision_model")):
        encoder = build_encoder(f"hf:{tmp_path}", kind, 32)
        assert not [name for name, _ in encoder.named_parameters() if other in name]


@pytest.mark.parametrize("family", ["ResNet", "ConvNext", "EfficientNet", "Swin", "GPT2", "T5", "Roberta", "Siglip"])
def test_every_trained_parameter_of_other_families_gets_a_gradient(family, tmp_path):
    kind = "Image" if family in IMAGES and family != "Siglip" else "Text"
    saved((IMAGES if kind == "Image" else TEXTS)[family][0](), tmp_path)
    size = {"image_size": 64 if family in ("ConvNext", "ResNet") else 32} if kind == "Image" else {}
    for yields in (("pooled",), ("tokens",)):
        encoder = build_encoder(f"hf:{tmp_path}", kind, 16, yields, **size).train()
        side = size.get("image_size", 0)
        features = encoder(torch.rand(4, 3, side, side) if size else torch.randint(3, 99, (4, 7)))
        sum(part.square().sum() for part in (features.pooled, features.tokens) if part is not None).backward()
        trained = {name: values for name, values in encoder.named_parameters() if values.requires_grad}
        assert trained
        assert not [name for name, values in trained.items() if values.grad is None]


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (config("Wav2Vec2", **SMALL, conv_dim=[8], conv_kernel=[3], conv_stride=[2], num_feat_extract_layers=1), "Image"),
        (config("T5", vocab_size=100, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2), "Image"),
        (config("ViT", **{**VISION, "image_size": [32, 16]}), "Image"),
        (config("ViT", **VISION, num_channels=1), "Image"),
        (config("ViT", **VISION), "Text"),
    ],
)
def test_a_model_that_is_not_a_tower_of_that_kind_is_refused_with_a_reason(make, kind, tmp_path):
    saved(make(), tmp_path)
    with pytest.raises(DiagnosticError, match="V0831") as refusal:
        build_encoder(f"hf:{tmp_path}", kind, 32)
    assert str(tmp_path) in str(refusal.value)


def test_positions_that_start_behind_the_padding_index_leave_no_room_for_tokens(tmp_path):
    saved(TEXTS["Roberta"][0](), tmp_path)
    encoder = build_encoder(f"hf:{tmp_path}", "Text", 32)
    assert encoder.text_length == 14  # of 16 positions the first two are never used
    encoder(torch.randint(3, 99, (2, 14)))
