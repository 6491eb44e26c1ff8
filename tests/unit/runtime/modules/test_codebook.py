"""A codebook: its centres are those of the data, its codes the nearest ones, and nothing of it learns."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.ir.modules import CodebookSettings
from vlmdsl.runtime.modules import Codebook, codebook

SETTINGS = CodebookSettings(size=5, patch=2)


def flat_patches(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images of patches in five colours with a little noise, and the colour of each patch."""
    random = torch.Generator().manual_seed(seed)
    colours = torch.tensor([[9.0, 0, 0], [0, 9, 0], [0, 0, 9], [9, 9, 0], [0, 9, 9]])
    chosen = torch.randint(5, (8, 3, 3), generator=random)
    images = colours[chosen].permute(0, 3, 1, 2).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    return images + 0.01 * torch.randn(images.shape, generator=random), chosen.flatten(1)


def fitted(seed: int = 0) -> Codebook:
    book = Codebook(SETTINGS)
    book.fit(flat_patches(seed)[0].split(3), seed=3)
    return book


def test_patches_of_one_colour_have_one_code() -> None:
    pytest.importorskip("faiss")
    images, colours = flat_patches(1)
    codes = fitted()(images)
    assert codes.shape == colours.shape
    assert codes.dtype is torch.int64
    pairs = set(zip(colours.flatten().tolist(), codes.flatten().tolist(), strict=True))
    assert len(pairs) == len({code for _, code in pairs}) == 5


def test_the_same_images_and_seed_give_the_same_centres() -> None:
    pytest.importorskip("faiss")
    assert torch.equal(fitted().centres, fitted().centres)


def test_a_code_is_the_nearest_centre_however_many_patches_there_are_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    book = Codebook(SETTINGS)
    book.load_state_dict({"centres": torch.randn(5, 12), "ready": torch.tensor(True)})
    images = torch.randn(4, 3, 6, 6)
    patches = images.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 4, 5, 1).reshape(4, 9, 12)
    expected = torch.cdist(patches, book.centres).argmin(dim=2)
    assert torch.equal(book(images), expected)
    monkeypatch.setattr(codebook, "_AT_ONCE", 7 * 5)
    assert torch.equal(book(images), expected)
    assert len(expected.unique()) == 5


def test_normalised_patches_are_compared_without_their_brightness() -> None:
    torch.manual_seed(0)
    book = Codebook(CodebookSettings(size=5, patch=2, normalised="patch"))
    book.load_state_dict({"centres": torch.randn(5, 12), "ready": torch.tensor(True)})
    images = torch.randn(4, 3, 6, 6)
    assert torch.equal(book(images), book(0.5 * images + 3))


def test_centres_come_from_a_file(tmp_path: Path) -> None:
    centres = torch.randn(5, 12)
    save_file({"centres": centres}, tmp_path / "book.safetensors")
    book = Codebook(SETTINGS)
    book.load(tmp_path / "book.safetensors")
    assert torch.equal(book.centres, centres)
    other = Codebook(SETTINGS)
    other.load_state_dict(book.state_dict())
    images = torch.randn(2, 3, 4, 4)
    assert torch.equal(other(images), book(images))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weights": torch.zeros(5, 12)}, "no tensor `centres`"),
        ({"centres": torch.zeros(4, 12)}, r"centres \[4, 12\]"),
        ({"centres": torch.full((5, 12), torch.nan)}, "not finite numbers"),
        ({"centres": torch.zeros(5, 12, dtype=torch.int64)}, "not finite numbers"),
        (None, "is not a safetensors file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: dict[str, Tensor] | None, message: str) -> None:
    path = tmp_path / "book.safetensors"
    if content is None:
        torch.save({"centres": torch.zeros(5, 12)}, path)
    else:
        save_file(content, path)
    with pytest.raises(ValueError, match=message):
        Codebook(SETTINGS).load(path)
    with pytest.raises(ValueError, match="there is no file"):
        Codebook(SETTINGS).load(tmp_path)


def test_a_codebook_without_centres_gives_no_codes() -> None:
    with pytest.raises(RuntimeError, match="no centres yet"):
        Codebook(SETTINGS)(torch.zeros(1, 3, 4, 4))
    pytest.importorskip("faiss")
    with pytest.raises(ValueError, match="there are 4"):
        Codebook(SETTINGS).fit([torch.zeros(1, 3, 4, 4)])


def test_without_faiss_the_diagnostic_names_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(DiagnosticError) as caught:
        fitted()
    (fault,) = caught.value.diagnostics
    assert fault.code == "V0901"
    assert fault.help[1] == "or load the centres from a file"


def test_nothing_learns() -> None:
    book = Codebook(SETTINGS)
    assert not list(book.parameters())
    book.load_state_dict({"centres": torch.randn(5, 12), "ready": torch.tensor(True)})
    assert not book(torch.randn(1, 3, 4, 4, requires_grad=True)).is_floating_point()


def test_on_the_meta_device_there_are_shapes() -> None:
    with torch.device("meta"):
        assert Codebook(SETTINGS)(torch.zeros(2, 3, 4, 6)).shape == (2, 6)
