"""The accuracy of predicted codes on replaced patches of the foreground, beside answers that need no learning."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import vlmdsl
from vlmdsl.ir.modules import CodebookSettings
from vlmdsl.runtime.evaluation import Measures, code_accuracy, code_prediction_of
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules import LinearHead
from vlmdsl.runtime.modules.towers import CodebookTower, VisionConfig, VisionTransformer
from vlmdsl.runtime.values import Batch, ImageBatch, KeptPatches, ReplacedPatches

RECIPE = """recipe masked(image: Image)
encoder tokenizer = codebook(size=3)
let hidden = random(50%)
minimize token_loss(linear(mask(image, hidden), size=3), codes(image, by=tokenizer), at=hidden)"""
DISTILLED = """recipe distilled(image: Image)
encoder teacher = ema(vision)
let hidden = random(30%)
let decoded = decode(drop(image, hidden), depth=1, width=8, heads=2, output="states")
minimize distill(linear(decoded, size=3), linear(teacher(image), size=3), at=hidden)"""
CODES = torch.tensor([[0, 0, 0, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 2, 0, 0, 0, 0]])
"""Two images of 3 x 3 patches: the second row, and the middle, are what is drawn on a ground."""
REPLACED = torch.tensor([[0, 1, 0, 0, 1, 1, 0, 0, 0], [1, 0, 0, 0, 1, 0, 0, 0, 0]], dtype=torch.bool)


class Answer(LinearHead):
    """A linear map that predicts the same code for every patch."""

    def forward(self, states: Tensor, product: bool = True) -> Tensor:
        return nn.functional.one_hot(torch.ones(states.shape[:2], dtype=torch.int64), 3).float()


class Truth(LinearHead):
    """A linear map that gives the codes of both images."""

    def forward(self, states: Tensor, product: bool = True) -> Tensor:
        return nn.functional.one_hot(CODES, 3).float()


def test_accuracy_is_that_of_the_foreground() -> None:
    shape = VisionConfig(image_size=6, patch_size=2, width=8, depth=1, heads=2)
    vision = VisionTransformer(shape, 4, ("states",), replaced_patches=True)
    tokenizer = CodebookTower(CodebookSettings(3, patch=2), 6)
    tokenizer.codebook.centres.copy_(torch.arange(3.0)[:, None].expand(3, 12))
    tokenizer.codebook.ready.fill_(True)
    objective = vlmdsl.compile(RECIPE, compiled=False)
    model = VisionLanguageModel({"vision": vision, "codebook": tokenizer}, objective)
    prediction = code_prediction_of(objective.program)
    assert prediction is not None
    head = model.linear_heads.part(prediction.linear.module)
    model.linear_heads.parts["vision_linear"] = Answer(prediction.linear.module.settings, 8, 3)
    assert isinstance(head, LinearHead)
    pixels = CODES.view(2, 1, 3, 3).repeat_interleave(2, 2).repeat_interleave(2, 3).expand(-1, 3, -1, -1).float()
    values = {"image": ImageBatch(pixels), "image.replace": ReplacedPatches(REPLACED), "codebook": ImageBatch(pixels)}
    measures = code_accuracy(model, [Batch(values, torch.arange(2), ["a", "b"])], "image", prediction)
    check(measures)


def test_the_codes_of_a_teacher_are_the_most_likely_ones() -> None:
    shape = VisionConfig(image_size=6, patch_size=2, width=8, depth=1, heads=2)
    objective = vlmdsl.compile(DISTILLED, compiled=False)
    model = VisionLanguageModel({"vision": VisionTransformer(shape, 4, ("states",))}, objective)
    prediction = code_prediction_of(objective.program)
    assert prediction is not None
    model.linear_heads.parts["vision_linear"] = Answer(prediction.linear.module.settings, 8, 3)
    assert model.teachers is not None
    model.teachers.linear_heads["vision_linear"] = Truth(prediction.linear.module.settings, 8, 3)
    dropped = REPLACED.clone()
    dropped[1, 8] = True  # as many of each image
    places = torch.stack([(~own).nonzero().squeeze(1) for own in dropped])
    images = ImageBatch(torch.rand(2, 3, 6, 6))
    values = {"image": images, "image.keep": KeptPatches(places), "vision": images}
    check(code_accuracy(model, [Batch(values, torch.arange(2), ["a", "b"])], "image", prediction))


def check(measures: Measures | None) -> None:
    """The measures where code 1 is predicted for every patch."""
    assert measures is not None
    # Of the foreground two patches of the first image are replaced, with code 1, and one of the second, with code 2.
    assert measures.facts == {"images": 2, "patches": 3}
    assert measures.values == {"accuracy": 2 / 3}
    assert measures.baselines == {
        # Nearest to the middle of the first image is the patch on its left, to the right one the one above it.
        "nearest visible": {"accuracy": 1 / 3},
        "most frequent visible": {"accuracy": 0.0},
        "constant": {"accuracy": 2 / 3},
    }
