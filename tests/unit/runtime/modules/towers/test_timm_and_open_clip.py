"""The adapters to timm and open_clip, on modules of their interface; `test_libraries_themselves.py` has the libraries."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import vlmdsl
from unit.runtime.modules.towers import stand_ins
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.modules.towers import Encoder, build_encoder, open_clip_model
from vlmdsl.runtime.modules.towers.tokenizers import load_tokenizer
from vlmdsl.runtime.tokenizer import train_tokenizer
from vlmdsl.runtime.values import TextFormat


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("timm", "open_clip"):
        monkeypatch.setitem(sys.modules, name, getattr(stand_ins, name)())


def images(encoder: Encoder, count: int = 2, side: int | None = None) -> torch.Tensor:
    assert encoder.image_format is not None
    side = side or encoder.image_format.size
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


CASES = {"timm": "timm:transformer", "timm convolutions": "timm:convolutions", "open_clip": "open_clip:small"}


@pytest.mark.parametrize("yields", [("pooled",), ("tokens",), ("pooled", "tokens", "states")])
@pytest.mark.parametrize("name", CASES.values(), ids=CASES.keys())
def test_images_have_the_features_that_are_declared(name: str, yields: tuple[str, ...]) -> None:
    encoder = build_encoder(name, "Image", 20, yields, pretrained=False)
    features = encoder(images(encoder))
    parts = {part: getattr(features, part) for part in ("pooled", "tokens", "states") if getattr(features, part) is not None}
    assert set(parts) == set(yields)
    assert all(part.shape[-1] == 20 for what, part in parts.items() if what != "states")
    sum(part.square().sum() for part in parts.values()).backward()
    assert [name for name, one in encoder.named_parameters() if one.requires_grad and one.grad is None] == []


def test_a_text_of_open_clip_is_causal_and_of_one_length() -> None:
    encoder = build_encoder("open_clip:small", "Text", 16, ("pooled", "vocabulary"), pretrained=False).eval()
    assert (encoder.causal, encoder.reads_padding, encoder.text_length, encoder.vocabulary_size) == (True, True, 12, 300)
    ids = torch.randint(0, 200, (2, 12), generator=torch.Generator().manual_seed(0))
    changed = ids.clone()
    changed[:, 7] = 299
    before, after = encoder(ids), encoder(changed)
    assert torch.allclose(before.states[:, :7], after.states[:, :7])
    assert not torch.allclose(before.states[:, 7:], after.states[:, 7:])
    form = TextFormat(train_tokenizer(["a dog"], 300), 8)
    with pytest.raises(DiagnosticError, match="needs texts of 12 tokens"):
        encoder.take_texts("open_clip:small", form)


@pytest.mark.parametrize("name", ["timm:transformer", "open_clip:small"])
def test_dropped_patches_are_left_out_and_nothing_else_changes(name: str) -> None:
    encoder = build_encoder(name, "Image", 16, ("pooled", "tokens"), pretrained=False).eval()
    assert encoder.image_format is not None
    assert encoder.image_format.patch == 8
    assert not encoder.overlapping_patches
    pixels, keep = images(encoder), torch.tensor([[3, 0, 9], [1, 2, 15]])
    features: Any = encoder
    kept = features(pixels, keep=keep)
    assert kept.tokens.shape == (2, 3, 16)
    changed = pixels.clone()
    changed[0, :, 8:16, :8] = 5.0  # patch 4, which is dropped
    assert torch.equal(features(changed, keep=keep).pooled[0], kept.pooled[0])
    everything = torch.arange(16).expand(2, -1)
    assert torch.allclose(features(pixels, keep=everything).pooled, encoder(pixels).pooled, atol=1e-6)


def test_other_sizes_are_declared_where_positions_are_interpolated() -> None:
    flexible = build_encoder("timm:transformer", "Image", 16, ("tokens",), pretrained=False)
    assert flexible.image_format is not None
    assert flexible.image_format.resizable
    assert flexible(images(flexible, side=40)).tokens.shape == (2, 25, 16)
    table = build_encoder("open_clip:small", "Image", 16, ("tokens",), pretrained=False)
    assert table.image_format is not None
    assert table.image_format.resizable
    smaller = table(images(table, side=16)).tokens
    assert smaller.shape == (2, 4, 16)
    smaller.sum().backward()
    positions: Any = table.model
    assert bool(positions.positional_embedding.grad[1:].abs().sum() > 0)
    larger = build_encoder("open_clip:small", "Image", 16, ("tokens",), image_size=64, pretrained=False)
    assert larger.image_format is not None
    assert larger.image_format.size == 64


@pytest.mark.parametrize("name", ["timm:transformer", "open_clip:small"])
def test_images_of_another_size_are_read_as_views_of_it_are(name: str) -> None:
    encoder = build_encoder(name, "Image", 16, pretrained=False).eval()
    own, larger = images(encoder), images(encoder, side=64)
    before = encoder(own).pooled, encoder(larger).pooled
    encoder.take_images(name, 64, "stages.second.model.image_size")
    assert encoder.image_format is not None
    assert encoder.image_format.size == 64
    torch.testing.assert_close((encoder(own).pooled, encoder(larger).pooled), before, rtol=0, atol=0)


def test_positions_of_other_sizes_are_resized_as_the_library_does_it() -> None:
    """A constant table stays constant, a ramp a ramp, and the class token keeps its own."""
    ramp = torch.arange(4.0).repeat_interleave(4)
    table = torch.stack([torch.full((17,), 3.0), torch.cat([torch.tensor([9.0]), ramp])], dim=1)
    resized = open_clip_model._interpolated(table, 4, 2)
    assert resized.shape == (5, 2)
    torch.testing.assert_close(resized[:, 0], torch.full((5,), 3.0))
    assert resized[0, 1] == 9.0
    grid = resized[1:, 1].view(2, 2)
    torch.testing.assert_close(grid[:, 0], grid[:, 1])
    torch.testing.assert_close(grid.mean(), torch.tensor(1.5))
    with pytest.raises(ValueError, match="class token"):
        open_clip_model._interpolated(table, 3, 2)


def test_images_are_standardised_as_the_library_says() -> None:
    form = build_encoder("timm:transformer", "Image", 16, pretrained=False).image_format
    assert form is not None
    assert (form.mean, form.deviation, form.shorter) == ((0.4, 0.5, 0.6), (0.2, 0.2, 0.3), 40)


def test_the_tokenizer_of_open_clip_is_clips() -> None:
    tokenizer = load_tokenizer("open_clip:small")
    ids, mask = tokenizer.encode(["A  DOG"], 8)
    names = {number: token for token, number in tokenizer.vocabulary.items()}
    assert [names[number] for number in ids[0][mask[0]].tolist()] == ["<start_of_text>", "a</w>", "dog</w>", "<end_of_text>"]
    assert ids[0, -1] == 0


REFUSED = {
    "no such model": ("timm:nothing", True, "V0902"),
    "no such model of open_clip": ("open_clip:nothing", False, "V0902"),
    "no weights are named": ("open_clip:small", True, "V0902"),
    "texts": ("timm:transformer", True, "V0830"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_a_diagnostic(case: str) -> None:
    name, pretrained, code = REFUSED[case]
    with pytest.raises(DiagnosticError) as error:
        build_encoder(name, "Text" if case == "texts" else "Image", 16, pretrained=pretrained)
    assert error.value.diagnostics[0].code == code


@pytest.mark.parametrize("name", ["timm", "open_clip"])
def test_without_the_library_the_extra_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DiagnosticError, match="V0901") as error:
        build_encoder(f"{name}:anything", "Image", 16)
    assert f"vlmdsl[{name}]" in str(error.value.diagnostics[0].help)


def test_a_recipe_trains_with_towers_of_both(tmp_path: Path) -> None:
    settings: dict[str, object] = {
        "train.batch": 8, "train.compile": False, "evaluation.limit": 16, "evaluation.neighbours": 0,
        "model.image_encoder": "timm:transformer", "model.text_encoder": "open_clip:small", "model.pretrained": False,
    }  # fmt: skip
    data = ["shapes:samples=32"]
    run = vlmdsl.train("flip", data=data, val=data, steps=2, settings=settings, out=tmp_path / "run")
    assert vlmdsl.load(run.folder).encode_text(["a dog"]).shape == (1, 64)


@pytest.mark.parametrize(
    "name", ["timm:transformer", f"timm:{stand_ins.HUB}", "open_clip:small", f"open_clip:{stand_ins.HUB}"]
)
def test_a_tower_is_built_again_from_its_settings_alone(name: str, tmp_path: Path) -> None:
    hub = stand_ins.HUB in name
    first = build_encoder(name, "Image", 16, ("pooled",), image_size=64, pretrained=hub).eval()
    for file, content in first.settings_files().items():
        (tmp_path / file).write_bytes(content)
    family, modules = name.partition(":")[0], sys.modules
    modules[family].of_hub = None  # type: ignore[attr-defined]
    again = build_encoder(f"{family}:{tmp_path}", "Image", 16, ("pooled",), image_size=64, pretrained=False).eval()
    assert again.image_format == first.image_format
    assert first.image_format is not None
    assert (first.image_format.mean == (0.1, 0.2, 0.3)) == hub
    again.load_state_dict(first.state_dict())
    assert torch.equal(again(images(first)).pooled, first(images(first)).pooled)


def test_a_run_with_towers_of_a_hub_is_used_and_resumed_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, object] = {
        "train.batch": 8, "train.compile": False, "evaluation.limit": 8, "evaluation.neighbours": 0,
        "model.image_encoder": f"timm:{stand_ins.HUB}", "model.text_encoder": f"open_clip:{stand_ins.HUB}",
        "schedule.final": 1.0, "tracking.report": False,
    }  # fmt: skip
    data, out = ["shapes:samples=24"], tmp_path / "run"
    vlmdsl.train("flip", data=data, val=data, steps=2, settings=settings, out=out)
    features = vlmdsl.load(out).encode_text(["a dog"])
    for name in ("timm", "open_clip"):
        monkeypatch.setattr(sys.modules[name], "of_hub", None)
    assert torch.equal(vlmdsl.load(out).encode_text(["a dog"]), features)
    before = json.loads((out / "evaluation.json").read_text())["retrieval"]
    own = vlmdsl.evaluate(out).evaluation["retrieval"]
    assert own == before
    assert own["image_to_text"]["untrained"]
    other = vlmdsl.evaluate(out, data=["shapes:samples=24,seed=5"])
    assert not other.evaluation["retrieval"]["image_to_text"].get("untrained")
    assert "nothing is asked of a hub" in other.table
    vlmdsl.train(resume=out, steps=4)
    assert json.loads((out / "evaluation.json").read_text())["retrieval"]["image_to_text"]["untrained"]


STAGED = """
vlo 1

recipe later_text(image: Image, text: Text)

stage images {
  minimize contrast(augment(image), augment(image))
}

stage both from images {
  minimize contrast(image, text)
}
"""


def test_the_towers_of_a_later_stage_are_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, object] = {
        "train.batch": 8, "train.compile": False, "evaluation.limit": 8, "evaluation.neighbours": 0,
        "model.image_encoder": f"timm:{stand_ins.HUB}", "model.text_encoder": f"open_clip:{stand_ins.HUB}",
        "stages.images.train.steps": 1, "stages.both.train.steps": 1, "tracking.report": False,
    }  # fmt: skip
    recipe, data = tmp_path / "later_text.vlo", ["shapes:samples=24"]
    recipe.write_text(STAGED)
    run = vlmdsl.train(recipe, data=data, val=data, settings=settings, out=tmp_path / "run")
    monkeypatch.setattr(sys.modules["open_clip"], "of_hub", None)
    assert vlmdsl.load(run.folder).encode_text(["a dog"]).shape == (1, 64)
