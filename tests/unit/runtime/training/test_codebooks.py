"""Codebooks of a run: from a file or from the data, by the patches of the image tower, and saved; and replaced patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import vlmdsl
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules.towers import (
    EncodedFeatures,
    Encoder,
    SharedConfig,
    SharedTransformer,
    VisionConfig,
    VisionTransformer,
)
from vlmdsl.runtime.values import Batch, ImageBatch, ImageFormat, ReplacedPatches, TextBatch

SETTINGS: dict[str, object] = {"train.batch": 4, "train.compile": False, "train.device": "cpu", "model.image_size": 16}
RECIPE = """recipe predicted(image: Image)
encoder tokenizer = codebook(size={size}{options})
let m = random(50%)
minimize token_loss(linear(mask(image, m), size={size}), codes(image, by=tokenizer), at=m)"""


def trained(folder: Path, size: int = 6, options: str = "", samples: int = 12) -> Tensor:
    """The centres in the checkpoint of a run of one step."""
    recipe = RECIPE.format(size=size, options=options)
    data = [f"shapes:samples={samples},size=16"]
    vlmdsl.train(recipe, data=data, settings=SETTINGS, steps=1, out=folder)
    (path,) = folder.glob("checkpoints/*/model.safetensors")
    centres: Tensor = load_file(path)["encoders.codebook.codebook.centres"]
    return centres


def test_centres_are_fitted_to_the_data_and_saved(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    centres = trained(tmp_path / "run")
    assert centres.shape == (6, 3 * 8**2)  # patches of the tower: four of 8 x 8 pixels
    assert len(centres.unique(dim=0)) == 6
    assert trained(tmp_path / "halved", options=", side=50%").shape == (6, 3 * 4**2)
    assert torch.equal(centres, trained(tmp_path / "again"))


def test_centres_come_from_a_file(tmp_path: Path) -> None:
    centres = torch.randn(6, 3 * 8**2)
    save_file({"centres": centres}, tmp_path / "codes.safetensors")
    file = f', file="{tmp_path / "codes.safetensors"}"'
    assert torch.equal(trained(tmp_path / "run", options=file), centres)


@pytest.mark.parametrize(
    ("size", "options", "words"),
    [
        (6, ', file="nowhere.safetensors"', "there is no file"),
        (64, "", "a codebook of 64 centres needs at least as many patches"),
        (6, ", patch=5", "does not divide evenly"),
        (6, ", side=30%", "does not divide evenly"),
    ],
    ids=["no file", "too few patches", "patches that do not fill images", "a side that is not as many patches"],
)
def test_what_does_not_fit_is_a_diagnostic(size: int, options: str, words: str, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    with pytest.raises(DiagnosticError, match=words) as caught:
        trained(tmp_path / "run", size, options)
    assert caught.value.diagnostics[0].code == "V0831"


class Signs(Encoder):
    """A tokenizer that is a network of someone else's: whether the mean of a patch is above zero."""

    def __init__(self) -> None:
        super().__init__("Image", 0, ("codes",))
        self.image_format = ImageFormat(8, patch=4)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> EncodedFeatures:
        means = torch.nn.functional.avg_pool2d(values.mean(dim=1, keepdim=True), 4)
        return EncodedFeatures(codes=(means > 0).flatten(1).long())


def model(stem: Any = "patch", replaced: bool = True) -> VisionLanguageModel:
    recipe = RECIPE.replace("codebook(size={size}{options})", 'separate(vision, name="signs")').format(size=2)
    shape = VisionConfig(image_size=8, patch_size=4, width=8, depth=1, heads=2, stem=stem)
    vision = VisionTransformer(shape, 4, ("states",), replaced_patches=replaced)
    return VisionLanguageModel({"vision": vision, "signs": Signs()}, vlmdsl.compile(recipe, compiled=False))


def test_a_tower_that_yields_codes_is_a_tokenizer() -> None:
    torch.manual_seed(0)
    images, replaced = torch.randn(3, 3, 8, 8), torch.tensor([[1, 0, 0, 1]] * 3, dtype=torch.bool)
    own = model()
    names = {reading.source.operation: reading.name for reading in own.readings}
    values = {names["replace"]: ImageBatch(images), names["field"]: ImageBatch(images)}
    values[f"{names['replace']}.replace"] = ReplacedPatches(replaced)
    loss = own(Batch(values, torch.arange(3), list("abc"))).loss
    codes = torch.nn.functional.avg_pool2d(images.mean(dim=1, keepdim=True), 4).flatten(1) > 0
    states = own.encoders["vision"](images, replace=replaced).states[:, 1:]
    logits = own.linear_heads.parts["vision_linear"](states)
    expected = torch.nn.functional.cross_entropy(logits[replaced], codes[replaced].long())
    torch.testing.assert_close(loss, expected)


def test_replaced_patches_are_unseen() -> None:
    images, replaced = torch.randn(2, 3, 8, 8), torch.tensor([[1, 0, 0, 0]] * 2, dtype=torch.bool)
    tower = model().encoders["vision"]
    others = images.clone()
    others[:, :, :4, :4] = torch.randn(2, 3, 4, 4)
    assert torch.equal(tower(images, replace=replaced).states, tower(others, replace=replaced).states)
    assert not torch.equal(tower(images).states, tower(others).states)


def shared_model(replaced: bool) -> VisionLanguageModel:
    recipe = (
        "recipe r(image: Image, text: Text)\nencoder one = shared(vision, language)\n"
        'encoder signs = separate(vision, name="signs")\nlet m = random(50%)\nminimize {\n'
        "  patches: token_loss(linear(one(mask(image, m)), size=2), codes(image, by=signs), at=m)\n"
        "  pairs: contrast(one(image), one(text), temperature=0.1)\n}"
    )
    image = VisionConfig(image_size=8, patch_size=4, width=8, depth=1, heads=2)
    tower = SharedTransformer(SharedConfig(image, 9, 3), 4, ("pooled", "states"), replaced_patches=replaced)
    return VisionLanguageModel({"shared": tower, "signs": Signs()}, vlmdsl.compile(recipe, compiled=False))


def test_patches_are_replaced_in_a_shared_tower() -> None:
    torch.manual_seed(0)
    images, replaced = torch.randn(3, 3, 8, 8), torch.tensor([[1, 0, 0, 1]] * 3, dtype=torch.bool)
    own = shared_model(True)
    values: dict[str, Any] = {
        reading.name: TextBatch(torch.ones(3, 2, dtype=torch.int64), torch.ones(3, 2, dtype=torch.bool))
        if reading.name == "text"
        else ImageBatch(images)
        for reading in own.readings
    }
    values[next(f"{reading.name}.replace" for reading in own.readings if reading.source.operation == "replace")] = (
        ReplacedPatches(replaced)
    )
    loss = own(Batch(values, torch.arange(3), list("abc"))).terms["patches"]
    codes = torch.nn.functional.avg_pool2d(images.mean(dim=1, keepdim=True), 4).flatten(1) > 0
    logits = own.linear_heads.parts["shared_linear"](own.encoders["shared"](images, replace=replaced).states)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits[replaced], codes[replaced].long()))


def test_a_shared_tower_without_a_token_is_refused_with_what_to_build() -> None:
    with pytest.raises(DiagnosticError) as caught:
        shared_model(False)
    (fault,) = caught.value.diagnostics
    assert (fault.code, fault.help[1]) == ("V0832", "from Python `SharedTransformer(..., replaced_patches=True)`")


@pytest.mark.parametrize(("stem", "replaced", "code"), [("convolution", True, "V0834"), ("patch", False, "V0832")])
def test_towers_that_leak_or_have_no_token_are_refused(stem: str, replaced: bool, code: str) -> None:
    with pytest.raises(DiagnosticError) as caught:
        model(stem, replaced)
    assert caught.value.diagnostics[0].code == code
