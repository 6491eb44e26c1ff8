"""Exported models are loaded back by the library of their format, and give the same features."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

import vlmdsl
from bundled.runs import hyper_parameters_of
from vlmdsl.api.export import export
from vlmdsl.runtime.data import open_source
from vlmdsl.runtime.trained.pictures import levels
from vlmdsl.runtime.values import ImageFormat

SETTINGS: dict[str, object] = {"train.batch": 8, "train.compile": False, "evaluation.limit": 16, "evaluation.neighbours": 0}
TEXTS = ["a large red circle", "two", "a blue square to the left of a green cross and then some"]


def trained(place: Path, recipe: str) -> Path:
    options = {"data": ["shapes:samples=32"], "val": ["shapes:samples=16"], "steps": 2, "settings": SETTINGS, "out": place}
    return vlmdsl.train(recipe, knobs=hyper_parameters_of(recipe), **options).folder  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("runs") / "clip", "clip")


def pictures() -> list[object]:
    source = open_source(("shapes:samples=3",), "val")
    return [source[index]["image"] for index in range(3)]


def test_weights_are_loaded_without_the_run(clip: Path, tmp_path: Path) -> None:
    original, out = vlmdsl.load(clip), tmp_path / "out"
    files = export(clip, out).files
    copy = vlmdsl.load(out)
    assert torch.equal(copy.encode_image(pictures()), original.encode_image(pictures()))
    assert torch.equal(copy.encode_text(TEXTS), original.encode_text(TEXTS))
    (weights,) = [name for name in files if name.endswith("model.safetensors")]
    assert load_file(out / weights).keys() == original.model.state_dict().keys()
    assert not list(out.rglob("optimizer*"))
    with pytest.raises(vlmdsl.DiagnosticError, match="V0853"):
        vlmdsl.train(resume=out, steps=2)
    card = (out / "README.md").read_text()
    for part in ("license:", "recipe clip(", "$$", "zero-shot", "shapes", "32 samples"):
        assert part in card


def test_programs_of_torch_give_the_same_features(clip: Path, tmp_path: Path) -> None:
    model, out = vlmdsl.load(clip), tmp_path / "out"
    export(clip, out, format="torch-export")
    form = model.model.form("vision", "Image")
    assert isinstance(form, ImageFormat)
    pixels = form.tensor(form.fit(levels(picture)) for picture in pictures())
    images = torch.export.load(out / "image.pt2").module()
    for size in (1, 3):
        assert torch.allclose(images(pixels[:size]), model.encode_image(pictures()[:size]), atol=1e-5)
    tokenizer = Tokenizer.from_str((out / "tokenizer.json").read_text())
    tokenizer.enable_truncation(32)
    tokenizer.enable_padding(length=32)
    encodings = tokenizer.encode_batch(TEXTS)
    ids = torch.tensor([encoding.ids for encoding in encodings])
    mask = torch.tensor([encoding.attention_mask for encoding in encodings]).bool()
    texts = torch.export.load(out / "text.pt2").module()
    assert torch.allclose(texts(ids, mask), model.encode_text(TEXTS), atol=1e-5)


def test_heads_are_exported_and_rendered_texts_have_no_program(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "clippo")
    assert "text.pt2" not in export(run, tmp_path / "clippo", format="torch-export").files
    run = trained(tmp_path / "xclip", "xclip")
    export(run, tmp_path / "out", format="torch-export")
    model = vlmdsl.load(run)
    form = model.model.form("vision", "Image")
    assert isinstance(form, ImageFormat)
    pixels = form.tensor(form.fit(levels(picture)) for picture in pictures())
    images = torch.export.load(tmp_path / "out" / "image.pt2").module()
    assert torch.allclose(images(pixels), model.encode_image(pictures()), atol=1e-5)


def test_what_has_no_program_is_refused(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "filip")
    with pytest.raises(vlmdsl.DiagnosticError, match="V0865"):
        export(run, tmp_path / "out", format="torch-export")


def test_a_folder_that_holds_anything_is_refused(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(vlmdsl.DiagnosticError, match="V0815"):
        export(clip, tmp_path)


def test_a_damaged_run_is_not_exported(clip: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(clip, copy)
    (weights,) = copy.rglob("model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(vlmdsl.DiagnosticError, match="V0850"):
        export(copy, tmp_path / "out")
