"""Towers of which only parts are trained: frozen blocks, rates by depth, low-rank adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import vlmdsl
from vlmdsl.api.export import export
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.modules.towers import Encoder, build_encoder
from vlmdsl.runtime.training.adaptation import adapt, depths, merged
from vlmdsl.runtime.training.optimizer import build_optimizer
from vlmdsl.schema import LoraConfig, ModelConfig, OptimizerConfig

RUN: dict[str, Any] = {"data": ["shapes:samples=32"], "val": ["shapes:samples=16"], "steps": 2}
SETTINGS = {"train.batch": 8, "train.compile": False, "evaluation.limit": 16, "evaluation.neighbours": 0}


def tower(name: str = "vit:tiny", kind: str = "Image") -> Encoder:
    torch.manual_seed(0)
    return build_encoder(name, kind, 16, ("pooled", "tokens"))


def learned(encoder: Encoder) -> set[str]:
    return {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}


def test_the_first_blocks_and_what_is_before_them_are_frozen() -> None:
    encoder = tower()
    adapt({"vision": encoder}, ModelConfig(freeze={"vision": 1}))
    assert not any(name.startswith(("stem", "class_token", "transformer.blocks.0")) for name in learned(encoder))
    assert {"transformer.blocks.1.attention.query.weight", "transformer.norm.weight"} <= learned(encoder)
    assert {"pooled_projection.weight", "token_projection.weight"} <= learned(encoder)
    assert "keeps" in encoder.notes[-1]


def test_patterns_freeze_parameters_by_name() -> None:
    encoder = tower("transformer:tiny", "Text")
    adapt({"language": encoder}, ModelConfig(freeze={"language": ("embedding*", "*attention*")}))
    frozen = {name for name, _ in encoder.named_parameters()} - learned(encoder)
    assert {"embedding.weight", "transformer.blocks.0.attention.query.bias"} <= frozen
    assert not any("feed_forward.hidden" in name or name == "positions" for name in frozen)


@pytest.mark.parametrize(
    ("freeze", "reason"), [(2, ""), (3, "has 2 blocks"), (("stm*",), "no parameter called `stm"), ("*", "as a whole")]
)
def test_what_cannot_be_frozen_is_refused(freeze: Any, reason: str) -> None:
    config = ModelConfig.model_validate({"freeze": {"vision": freeze}}, strict=True)
    if not reason:
        adapt({"vision": tower()}, config)
        return
    with pytest.raises(DiagnosticError, match=reason):
        adapt({"vision": tower()}, config)


def test_rates_fall_from_the_last_block_to_the_first_and_by_tower() -> None:
    model: Any = torch.nn.Module()
    model.encoders = torch.nn.ModuleDict({"vision": tower(), "language": tower("transformer:tiny", "Text")})
    config = OptimizerConfig(learning_rate=1.0, layer_decay=0.5, tower_rates={"language": 0.1})
    rates = {name: group["lr"] for group in build_optimizer(model, config).param_groups for name in group["param_names"]}
    blocks = [rates[f"encoders.vision.transformer.blocks.{number}.attention.query.weight"] for number in (0, 1)]
    assert [rates["encoders.vision.class_token"], *blocks] == [0.125, 0.25, 0.5]
    assert rates["encoders.vision.pooled_projection.weight"] == rates["encoders.vision.transformer.norm.bias"] == 1.0
    assert rates["encoders.language.embedding.weight"] == pytest.approx(0.0125)


def test_depths_count_blocks() -> None:
    deep, deepest = depths(tower())
    assert (deep["class_token"], deep["transformer.blocks.1.attention.query.weight"], deepest) == (0, 2, 3)


def of_transformers(folder: Path) -> str:
    transformers = pytest.importorskip("transformers", reason="the extra `hf` is not installed")
    half = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision, texts = {**half, "image_size": 32, "patch_size": 8}, {**half, "vocab_size": 50, "max_position_embeddings": 8}
    transformers.CLIPModel(transformers.CLIPConfig(text_config=texts, vision_config=vision)).save_pretrained(folder)
    return f"hf:{folder}"


def test_a_half_of_a_pretrained_model_is_frozen_by_blocks(tmp_path: Path) -> None:
    encoder = tower(of_transformers(tmp_path))
    adapt({"vision": encoder}, ModelConfig(freeze={"vision": 1}))
    remaining = {name.removeprefix("model.") for name in learned(encoder)}
    assert not any("embedding" in name or "layers.0." in name for name in remaining)
    assert any("layers.1." in name for name in remaining)
    assert {"visual_projection.weight", "vision_model.post_layernorm.weight"} <= remaining


def test_towers_of_settings_are_towers_of_the_recipe(tmp_path: Path) -> None:
    for name in ("model.freeze.visn", "model.lora.visn.rank"):
        with pytest.raises(DiagnosticError, match="V0832"):
            vlmdsl.train("clip", **RUN, settings={**SETTINGS, name: 1}, out=tmp_path / name)


class TestAdapters:
    @pytest.fixture(autouse=True)
    def peft(self) -> None:
        pytest.importorskip("peft", reason="the extra `lora` is not installed")

    @pytest.mark.parametrize(("name", "kind"), [("vit:tiny", "Image"), ("transformer:tiny", "Text")])
    def test_they_change_nothing_at_first_and_alone_are_trained(self, name: str, kind: str) -> None:
        plain, adapted = tower(name, kind).eval(), tower(name, kind).eval()
        adapt({"tower": adapted}, ModelConfig(lora={"tower": LoraConfig(rank=2, targets=("*query", "*hidden"))}))
        inputs = torch.randn(2, 3, 32, 32) if kind == "Image" else torch.randint(3, 99, (2, 7))
        assert torch.equal(plain(inputs).pooled, adapted(inputs).pooled)
        assert {name.split(".")[0] for name in learned(adapted)} == {"transformer", "pooled_projection", "token_projection"}
        assert all("lora_" in name for name in learned(adapted) if name.startswith("transformer"))
        assert sum("lora_A" in name for name in learned(adapted)) == 4
        with torch.no_grad():
            for weight in adapted.parameters():
                weight.add_(0.1 * torch.randn(weight.shape) if weight.requires_grad else 0)
        before = adapted(inputs).pooled
        merged(adapted)
        assert torch.allclose(adapted(inputs).pooled, before, atol=1e-5)
        assert plain.state_dict().keys() == adapted.state_dict().keys()

    def test_a_pretrained_model_is_adapted(self, tmp_path: Path) -> None:
        name = of_transformers(tmp_path)
        plain, adapted = (tower(name).eval() for _ in range(2))
        adapt({"vision": adapted}, ModelConfig(lora={"vision": LoraConfig(rank=2, targets=("*q_proj", "*v_proj"))}))
        assert sum("lora_A" in name for name in learned(adapted)) == 4
        assert all("lora_" in name for name in learned(adapted) if name.startswith("model."))
        pixels = torch.randn(2, 3, 32, 32)
        adapted.load_state_dict(
            {name: weight for name, weight in plain.state_dict().items() if "projection" in name}, strict=False
        )
        assert torch.allclose(plain(pixels).pooled, adapted(pixels).pooled, atol=1e-6)

    def test_a_run_begins_with_another_trains_them_and_is_exported_without(self, tmp_path: Path) -> None:
        patches = {**SETTINGS, "model.image_encoder": "vit:tiny_patch4"}
        first = vlmdsl.train("clip", **RUN, settings=patches, out=tmp_path / "first").folder
        settings = {**patches, "model.init": str(first), "model.lora.vision.rank": 2, "optimizer.learning_rate": 0.05}
        run = vlmdsl.train("clip", **RUN, settings=settings, out=tmp_path / "run").folder
        before, after = vlmdsl.load(first), vlmdsl.load(run)
        name = "vision.transformer.blocks.0.attention.query"
        base = after.model.encoders.get_parameter(f"{name}.base_layer.weight")
        assert torch.equal(base, before.model.encoders.get_parameter(f"{name}.weight"))
        pixels = torch.rand(2, 3, 32, 32)
        export(run, tmp_path / "out", format="open_clip")
        from safetensors.torch import load_file

        exported = load_file(tmp_path / "out" / "open_clip_model.safetensors")[
            "visual.transformer.resblocks.0.attn.in_proj_weight"
        ]
        assert not torch.equal(exported[:64], base)
        features = after.encode_image(pixels)
        merged(after.model.encoders)
        assert torch.allclose(after.encode_image(pixels), features, atol=1e-5)
        assert torch.equal(after.model.encoders.get_parameter(f"{name}.weight"), exported[:64])
