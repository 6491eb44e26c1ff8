"""A model with a decoder: its loss is that of the parts called by hand, and towers that do not fit are refused."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch._dynamo.utils import counters

import vlmdsl
from vlmdsl.backends.torch import ops
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules.towers import VisionConfig, VisionTransformer, build_encoder
from vlmdsl.runtime.values import Batch, ImageBatch, ImageFormat, KeptPatches

RECIPE = """recipe mae(image: Image)
let hidden = random(50%)
let decoded = decode(drop(image, hidden), depth=1, width=8, heads=2)
minimize reconstruct(decoded, pixels(image, normalised="patch"), at=hidden)"""
DISTILLED = """recipe distilled(image: Image)
encoder teacher = ema(vision, momentum=0.75)
let hidden = random(50%)
let decoded = decode(drop(image, hidden), depth=1, width=8, heads=2, output="states")
let soft = linear(teacher(image), size=5)
minimize distill(linear(decoded, size=5), soft, at=hidden, temperature=0.5, teacher_temperature=0.25)"""
SHARED = """recipe two(image: Image)
encoder other = separate(vision, name="other")
let hidden = random(50%)
let one = decode(drop(image, hidden), depth=1, width=8, heads=2)
let two = decode(other(drop(image, hidden)), depth=1, width=8, heads=2)
minimize reconstruct(one, pixels(image), at=hidden) + reconstruct(two, pixels(image), at=hidden)"""


def tower(width: int = 8) -> VisionTransformer:
    return VisionTransformer(VisionConfig(image_size=8, patch_size=4, width=width, depth=1, heads=2), 4, ("states",))


def test_the_loss_is_that_of_the_parts() -> None:
    torch.manual_seed(0)
    model = VisionLanguageModel({"vision": tower()}, vlmdsl.compile(RECIPE, compiled=False))
    pixels, keep = torch.rand(3, 3, 8, 8), torch.tensor([[3, 0], [1, 2], [2, 3]])
    values = {"image_drop": ImageBatch(pixels), "image_drop.keep": KeptPatches(keep)}
    loss = model(Batch(values, torch.arange(3), list("012"))).loss
    states = model.encoders["vision"](pixels, keep=keep).states
    decoded = model.decoders.parts["decoder"](states, keep)
    dropped = torch.tensor([[False, True, True, False], [True, False, False, True], [True, True, False, False]])
    target = ops.pixels(pixels, 4, normalised="patch")
    torch.testing.assert_close(loss, ((decoded - target) ** 2).mean(dim=2)[dropped].mean())


def distilled() -> tuple[VisionLanguageModel, Batch, torch.Tensor]:
    """A model that predicts soft codes of dropped patches, a batch, and which of its patches are dropped."""
    torch.manual_seed(0)
    model = VisionLanguageModel({"vision": tower(16)}, vlmdsl.compile(DISTILLED, compiled=False))
    pixels, keep = torch.rand(3, 3, 8, 8), torch.tensor([[3, 0], [1, 2], [2, 3]])
    values = {"image": ImageBatch(pixels), "image_drop": ImageBatch(pixels), "image_drop.keep": KeptPatches(keep)}
    dropped = torch.tensor([[False, True, True, False], [True, False, False, True], [True, True, False, False]])
    return model, Batch(values, torch.arange(3), list("012")), dropped


def test_decoded_states_are_compared_with_what_the_teacher_has_of_the_whole_image() -> None:
    model, batch, dropped = distilled()
    linear = model.linear_heads.parts["vision_linear"]
    with torch.no_grad():
        linear.weight.normal_()  # the teacher's map is where this one was
    loss = model.eval()(batch).loss
    loss.backward()
    pixels, keep = batch.values["image"][0], batch.values["image_drop.keep"][0]
    decoded = model.decoders.parts["decoder"](model.encoders["vision"](pixels, keep=keep).states, keep)
    assert decoded.shape == (3, 4, 16)
    teacher, own = model.teachers.copies["vision"], model.teachers.linear_heads["vision_linear"]
    soft = own(teacher(pixels).states[:, -4:]).detach() / 0.25
    expected = -(soft.softmax(dim=2) * (linear(decoded) / 0.5).log_softmax(dim=2)).sum(dim=2)[dropped].mean()
    torch.testing.assert_close(loss, expected)
    gradient = linear.weight.grad.clone()
    linear.weight.grad = None
    expected.backward()
    torch.testing.assert_close(gradient, linear.weight.grad)
    assert all(parameter.grad is None for parameter in model.teachers.parameters())


def test_the_linear_map_of_a_teacher_follows() -> None:
    model, _, _ = distilled()
    own, followed = model.teachers.linear_heads["vision_linear"].weight, model.linear_heads.parts["vision_linear"].weight
    assert torch.equal(own, followed)
    with torch.no_grad():
        followed.mul_(2.0)
    model.parts.follow("before")
    torch.testing.assert_close(own, 0.625 * followed)
    model.parts.begin_again()
    assert torch.equal(own, followed)


def test_towers_of_other_widths_do_not_share_a_decoder() -> None:
    objective = vlmdsl.compile(SHARED, compiled=False)
    VisionLanguageModel({"vision": tower(), "other": tower()}, objective)
    with pytest.raises(DiagnosticError) as caught:
        VisionLanguageModel({"vision": tower(), "other": tower(16)}, objective)
    assert "shares the decoder `decoder` with one of other sizes" in str(caught.value)


def test_a_tower_without_patches_is_refused() -> None:
    vision = tower()
    vision.image_format = None
    with pytest.raises(DiagnosticError) as caught:
        VisionLanguageModel({"vision": vision}, vlmdsl.compile(RECIPE, compiled=False))
    assert caught.value.diagnostics[0].code == "V0832"


def test_a_tanh_is_for_towers_whose_pixels_it_can_give() -> None:
    objective = vlmdsl.compile(
        RECIPE.replace("heads=2)", 'heads=2, output="tanh")').replace("patch", "none"), compiled=False
    )
    vision = tower()
    model = VisionLanguageModel({"vision": vision}, objective)
    pixels = model.decoders.parts["decoder"](100 * torch.randn(2, 3, 8), torch.tensor([[0, 1], [2, 3]]))
    assert pixels.abs().max() <= 1
    vision.image_format = ImageFormat(8, mean=(0.48, 0.46, 0.41), deviation=(0.27, 0.26, 0.28), patch=4)
    with pytest.raises(DiagnosticError, match=r"outside \[-1, 1\]"):
        VisionLanguageModel({"vision": vision}, objective)


def test_a_tower_into_whose_patches_dropped_ones_leak_is_refused() -> None:
    config = VisionConfig(image_size=8, patch_size=4, width=8, depth=1, heads=2, stem="convolution")
    leaking = VisionTransformer(config, 4, ("states", "pooled"))
    with pytest.raises(DiagnosticError) as caught:
        VisionLanguageModel({"vision": leaking}, vlmdsl.compile(RECIPE, compiled=False))
    assert caught.value.diagnostics[0].code == "V0834"
    VisionLanguageModel({"vision": leaking}, vlmdsl.compile("nt_xent(drop(image, share=50%), image)", compiled=False))


def test_towers_of_runs_embed_patches_one_by_one_where_dropped_ones_are_predicted() -> None:
    """What a kept patch is embedded as does not depend on the pixels of another."""
    for separate in (True, False):
        vision = build_encoder("vit:tiny", "Image", 8, ("states",), separate_patches=separate)
        assert isinstance(vision, VisionTransformer)
        images = torch.rand(2, 3, 32, 32)
        changed = images.clone()
        changed[:, :, :8, :8] = 0.0
        one, other = (vision.stem(of).flatten(2)[:, :, 1:] for of in (images, changed))
        assert torch.equal(one, other) == separate
        assert bool(vision.notes) == separate


def test_batches_of_any_size_have_three_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images have no mask, and what only the decoder reads is not an input of the compiled function."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    counters.clear()
    compiled, eager = vlmdsl.compile(RECIPE), vlmdsl.compile(RECIPE, compiled=False)
    for samples in (5, 1, 3, 7):
        features = {
            "modules": {"decoder": lambda states: states @ torch.ones(2, 48)},
            "image_drop_states": torch.rand(samples, 4, 2),
            "image_drop_pixels": torch.rand(samples, 3, 8, 8),
            "image_drop_dropped": torch.rand(samples, 4) > 0.5,
        }
        torch.testing.assert_close(compiled(**features).loss, eager(**features).loss)
    assert counters["stats"]["unique_graphs"] <= 3
