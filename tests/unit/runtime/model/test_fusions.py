"""The fusion modules of a model: what does not fit together is refused by name; teachers of one, and heads on one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import vlmdsl
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules.towers import TextConfig, TextTransformer, VisionConfig, VisionTransformer

RECIPE = """recipe matching(image: Image, text: Text)
encoder fusion = fuse(depth=1, heads={heads}, width={width})
minimize mlm(mask(text, random(30%)) | image)
"""
SHARED = """recipe shared(image: Image, text: Text)
encoder other = separate(vision, name="other")
encoder fusion = fuse(depth=1)
let masked = mask(text, random(30%))
minimize mlm(masked | image) + mlm(masked | other(image))
"""
TAUGHT = """recipe taught(image: Image, text: Text)
encoder fusion = fuse(depth=1)
encoder elder = ema(fusion, momentum=0.75)
encoder headed = project(predict(fusion, hidden=6), layers=1, out=5)
let m = random(30%)
let masked = mask(text, m)
minimize {
  soft: distill(linear(masked | image), linear(elder(masked, image)), at=m)
  heads: mean(1 - score(headed(text, image), headed(masked, image)))
}
"""


def image_tower(width: int = 8) -> VisionTransformer:
    return VisionTransformer(VisionConfig(image_size=8, patch_size=4, width=width, depth=1, heads=2), 4, ("states",))


def text_tower(width: int = 12) -> TextTransformer:
    shape = TextConfig(width=width, depth=1, heads=2, vocabulary_size=20, text_length=6)
    return TextTransformer(shape, 4, ("states",))


@pytest.mark.parametrize(("heads", "width"), [(5, 0), (3, 16)])
def test_heads_that_do_not_divide_the_width_are_refused(heads: int, width: int) -> None:
    objective = vlmdsl.compile(RECIPE.format(heads=heads, width=width), compiled=False)
    with pytest.raises(DiagnosticError, match="V0832") as caught:
        VisionLanguageModel({"vision": image_tower(), "language": text_tower()}, objective)
    assert f"{width or 12} numbers, which {heads} heads of `fusion` do not divide" in caught.value.diagnostics[0].message


def test_images_of_other_widths_do_not_share_a_module() -> None:
    objective = vlmdsl.compile(SHARED, compiled=False)
    VisionLanguageModel({"vision": image_tower(), "other": image_tower(), "language": text_tower()}, objective)
    with pytest.raises(DiagnosticError, match="V0832") as caught:
        VisionLanguageModel({"vision": image_tower(), "other": image_tower(16), "language": text_tower()}, objective)
    assert "shares the module `fusion` with a use of other sizes" in caught.value.diagnostics[0].message


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_a_teacher_of_a_fusion_module_follows_it_and_its_vocabulary() -> None:
    objective = vlmdsl.compile(TAUGHT, compiled=False)
    model = VisionLanguageModel({"vision": image_tower(), "language": text_tower()}, objective)
    assert model.teachers is not None
    (copied,), (vocabulary,) = model.teachers.copies.values(), model.teachers.vocabularies.values()
    followed = {copied: model.parts.families["fusion"].parts["fusion"], vocabulary: model.vocabularies.parts["fusion"]}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0 if parameter.requires_grad else 1.0)
    starts = {own: weights(own) for own in followed}
    model.parts.follow("before")
    for own, goal in followed.items():
        torch.testing.assert_close(weights(own), 0.75 * starts[own] + 0.25 * weights(goal))
        assert not any(parameter.requires_grad for parameter in own.parameters())
    model.parts.begin_again()
    assert all(torch.equal(weights(own), weights(goal)) for own, goal in followed.items())


def test_heads_stand_on_a_fusion_module_and_on_each_other() -> None:
    objective = vlmdsl.compile(TAUGHT, compiled=False)
    model = VisionLanguageModel({"vision": image_tower(), "language": text_tower()}, objective)
    assert {name: head.layers[-1].out_features for name, head in model.heads.parts.items()} == {
        "fusion_predict": 12,
        "fusion_project": 5,
    }


@pytest.mark.parametrize(
    ("compared", "help"),
    [
        ("(text | image).pooled, image", "`project(fusion, out=4)`"),
        ("(text | image).tokens, image, sim=tokenmax", "`token_head(tokens, out=4"),
        ("(text | image).pooled + image.pooled, text", "`project(fusion, out=4)`"),
        ("nearest(image, queue((text | image).pooled, size=8)), text", "`project(fusion, out=4)`"),
    ],
)
def test_features_of_another_length_get_a_head_that_fits(compared: str, help: str) -> None:
    recipe = "recipe r(image: Image, text: Text)\nencoder fusion = fuse(depth=1)\n"
    yields = ("states", "pooled", "tokens")
    towers = {"vision": image_tower(), "language": text_tower()}
    for tower in towers.values():
        tower.yields |= set(yields)
    objective = vlmdsl.compile(f"{recipe}minimize contrast({compared})", compiled=False)
    with pytest.raises(DiagnosticError, match="different feature dimensions") as caught:
        VisionLanguageModel(towers, objective)
    assert help in caught.value.diagnostics[0].help[0]
    headed = f"{recipe}encoder joint = project(fusion, layers=1, out=4)\nminimize contrast(joint(text, image), image)"
    VisionLanguageModel(towers, vlmdsl.compile(headed, compiled=False))
