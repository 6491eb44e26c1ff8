"""Trained models in use: loaded without their data, asked for features, classes and pictures."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor

import vlmdsl
from vlmdsl.api.caption import caption
from vlmdsl.api.classify import classify
from vlmdsl.api.encode import encode
from vlmdsl.api.search import search
from vlmdsl.runtime.data import map_fields, open_source
from vlmdsl.runtime.modules.towers import EncodedFeatures
from vlmdsl.runtime.trained import EncodedData, embeddings
from vlmdsl_cli.main import application

HELD_OUT = "shapes:samples=40"
SETTINGS: dict[str, object] = {"train.batch": 16, "train.compile": False, "evaluation.limit": 40, "evaluation.neighbours": 0}


def trained(place: Path, recipe: str, steps: int = 1) -> Path:
    data = ["shapes:samples=64"]
    return vlmdsl.train(recipe, data=data, val=[HELD_OUT], steps=steps, settings=SETTINGS, out=place).folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learnt something."""
    return trained(tmp_path_factory.mktemp("runs") / "clip", "clip", 60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, one of which is damaged."""
    place = tmp_path_factory.mktemp("pictures")
    for index, pixels in enumerate(levels(range(7))):
        Image.fromarray(pixels).save(place / f"{index}.png")
    (place / "3.png").write_bytes(b"not a picture")
    return place


def levels(indices: range) -> list[np.ndarray]:
    source = open_source((HELD_OUT,), "val")
    pictures = [source[index]["image"] for index in indices]
    assert all(isinstance(picture, np.ndarray) for picture in pictures)
    return [np.asarray(picture) for picture in pictures]


def test_images_come_in_every_form(clip: Path, folder: Path) -> None:
    model = vlmdsl.load(clip)
    pixels = levels(range(2))
    tensor = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    expected = model.encode_image(pixels)
    assert expected.shape == (2, 64)
    assert expected.norm(dim=1).tolist() == pytest.approx([1, 1])
    for images in (tensor, tensor.double() / 255, list(tensor), np.stack(pixels), [*map(Image.fromarray, pixels)]):
        assert torch.equal(model.encode_image(images), expected)
    files = [folder / "0.png", str(folder / "1.png"), (folder / "1.png").read_bytes()]
    assert torch.equal(model.encode_image(files), expected[[0, 1, 1]])


def test_batches_do_not_matter(clip: Path) -> None:
    whole, parted = vlmdsl.load(clip), vlmdsl.load(clip, batch=3)
    pixels, texts = levels(range(8)), ["a red circle", "a large blue square on the left", "two", "three"]
    assert torch.allclose(whole.encode_image(pixels), parted.encode_image(pixels), atol=1e-6)
    assert torch.allclose(whole.encode_text(texts), parted.encode_text(texts), atol=1e-6)
    similarity = whole.encode_image(pixels) @ whole.encode_text(texts).T
    assert torch.allclose(whole.similarity(pixels, texts), similarity, atol=1e-6)


def test_classes_are_those_of_the_evaluation(clip: Path) -> None:
    """The accuracy is what `eval` reports, and a probability the softmax over the learned temperature."""
    source = open_source((HELD_OUT,), "val")
    names = map_fields(source, []).classes["label"]
    model, images = vlmdsl.load(clip), levels(range(40))
    labels = torch.tensor([source[index]["label"] for index in range(40)])
    accuracy = (model.classify(images, names).argmax(dim=1) == labels).double().mean().item()
    assert accuracy == pytest.approx(vlmdsl.evaluate(clip).evaluation["zero_shot"]["top-1"])
    scale = model.model.objective.log_scale.exp().item()
    assert scale != pytest.approx(1 / 0.07, abs=1e-4), "it has been trained"
    logits = model.similarity(images, [f"the {name}" for name in names]) * scale
    assert torch.allclose(model.classify(images, names, ["the {}"]), logits.softmax(dim=1), atol=1e-5)


def test_the_data_need_not_be_there(tmp_path: Path, folder: Path) -> None:
    """A run on a folder that is gone, in a new process, which loads nothing that only training needs."""
    data = tmp_path / "data"
    shutil.copytree(folder, data)
    for file in data.glob("*.png"):
        file.with_suffix(".txt").write_text(f"picture {file.stem}")
    settings = {**SETTINGS, "train.batch": 2, "data.max_bad_share": 0.5}
    run = vlmdsl.train("clip", data=[str(data)], steps=1, settings=settings, out=tmp_path / "run").folder
    shutil.rmtree(data)
    program = (
        "import sys, vlmdsl\n"
        f"print(vlmdsl.load({str(run)!r}).encode_text('a dog').shape[1])\n"
        "print([name for name in ('loop', 'optimizer', 'session') if f'vlmdsl.runtime.training.{name}' in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.splitlines() == ["64", "[]"]


@pytest.mark.parametrize("recipe", ["clippo", "siglip", "ra_clip", "alip", "oner"])
def test_other_recipes_encode_and_compare(tmp_path: Path, recipe: str) -> None:
    run = trained(tmp_path / "run", recipe)
    model, images, texts = vlmdsl.load(run), levels(range(3)), ["a red circle", "a blue square"]
    assert model.similarity(images, texts).shape == (3, 2)
    assert model.classify(images, texts).sum(dim=1).tolist() == pytest.approx([1, 1, 1])
    assert model.encode_image(images).isfinite().all()


def test_tokens_are_compared_and_are_not_one_vector(tmp_path: Path) -> None:
    model = vlmdsl.load(trained(tmp_path / "run", "filip"))
    assert model.similarity(levels(range(3)), ["a red circle", "two"]).shape == (3, 2)
    with pytest.raises(vlmdsl.DiagnosticError, match="V0861"):
        model.encode_image(levels(range(2)))


def test_images_alone_are_encoded_and_not_classified(tmp_path: Path) -> None:
    model = vlmdsl.load(trained(tmp_path / "run", "simclr"))
    assert model.encode_image(levels(range(2))).shape == (2, model.model.encoders["vision"].dimension)
    for question in (lambda: model.encode_text("a dog"), lambda: model.classify(levels(range(1)), ["a", "b"])):
        with pytest.raises(vlmdsl.DiagnosticError, match="V0861"):
            question()


@pytest.mark.parametrize(("recipe", "prompt"), [("cappa", ""), ("pali", "a picture of")])
def test_decoders_write_captions(tmp_path: Path, recipe: str, prompt: str) -> None:
    """An image has the same caption alone and beside others, and two beams find a text that is at least as likely."""
    sizes = {"depth": 1, "width": 16, "heads": 2}
    stand_in = {"prompt": "caption", "target": "text"} if recipe == "pali" else {}
    model = vlmdsl.load(
        vlmdsl.train(
            recipe, knobs=sizes, data=["shapes:samples=64"], val=[HELD_OUT], map=stand_in, steps=3, settings=SETTINGS,
            out=tmp_path / "run",
        ).folder,
        batch=2,
    )  # fmt: skip
    images = levels(range(3))
    captions = model.caption(images, prompt=prompt)
    assert [isinstance(text, str) for text in captions] == [True] * 3
    assert captions == [model.caption(image, prompt=prompt)[0] for image in images]
    two = model.caption(images, prompt=prompt, beams=2)
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file)
    assert caption(tmp_path / "run", files, prompt=prompt, beams=2).captions == tuple(zip(map(str, files), two, strict=True))
    words = ["caption", str(tmp_path / "run"), *map(str, files), "--prompt", prompt, "--beams", "2", "--json"]
    printed = json.loads(CliRunner().invoke(application, words).stdout)
    assert [row["caption"] for row in printed["captions"]] == two
    if prompt:
        with pytest.raises(vlmdsl.DiagnosticError, match="V0861"):
            model.caption(images)


def test_a_model_without_a_decoder_writes_nothing(clip: Path) -> None:
    with pytest.raises(vlmdsl.DiagnosticError, match="V0861"):
        vlmdsl.load(clip).caption(levels(range(1)))


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (["missing.png"], "missing.png"),
        ([b"GIF89a"], "damaged image"),
        (torch.zeros(3, 4), "a tensor of an image"),
        (torch.full((3, 4, 4), 7.0), "from 0 to 1"),
        (torch.full((3, 4, 4), torch.nan), "from 0 to 1"),
        ([None], "missing image"),
        (np.zeros((4, 4)), "damaged image"),
    ],
    ids=["absent", "cut off", "two axes", "levels as numbers", "not a number", "none", "grey array"],
)
def test_what_is_not_an_image_is_named(clip: Path, images: object, reason: str) -> None:
    with pytest.raises(vlmdsl.DiagnosticError, match="V0860") as error:
        vlmdsl.load(clip).encode_image(images)  # type: ignore[arg-type]
    assert reason in str(error.value)


@pytest.mark.parametrize("texts", [[""], ["a", " "], [None], [3]], ids=repr)
def test_what_is_not_a_text_is_named(clip: Path, texts: list[object]) -> None:
    with pytest.raises(vlmdsl.DiagnosticError, match="V0860"):
        vlmdsl.load(clip).encode_text(texts)  # type: ignore[arg-type]


def test_a_folder_is_classified_and_searched(clip: Path, folder: Path, tmp_path: Path) -> None:
    result = classify(clip, str(folder), ["red circle", "blue square", "green cross"])
    assert len(result.probabilities) == 6
    assert list(result.skipped.values()) == ["damaged image"]
    assert "skipped 1 sample" in result.to_text()
    hits = search(clip, str(folder), "a red circle", best=4, grid=tmp_path / "grid.png")
    similarities = [similarity for _, similarity in hits.best]
    assert similarities == sorted(similarities, reverse=True)
    assert (len(hits.best), hits.pictures) == (4, 6)
    best = vlmdsl.load(clip).similarity(folder / hits.best[0][0], "a red circle")
    assert best.item() == pytest.approx(similarities[0], abs=1e-6)
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size[0] > 300


def test_an_interrupted_encoding_continues(
    clip: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It continues behind the last batch that was saved, and gives the same file."""
    whole, parted = tmp_path / "whole.npy", tmp_path / "parted.npy"
    assert encode(clip, str(folder), whole, batch=2).skipped.keys() == {"3.png"}
    rows = np.load(whole, mmap_mode="r")
    assert (rows.shape, rows.dtype) == ((7, 64), np.float32)
    assert np.isnan(rows).any(axis=1).tolist() == [index == 3 for index in range(7)]
    keys = [json.loads(line) for line in (tmp_path / "whole.npy.keys.jsonl").read_text().splitlines()]
    assert keys == [f"{index}.png" for index in range(7)]
    assert torch.allclose(torch.tensor(rows[5:6]), vlmdsl.load(clip).encode_image(folder / "5.png"), atol=1e-6)

    batches = interrupted(clip, folder, parted, monkeypatch)
    assert encode(clip, str(folder), parted, batch=2).skipped.keys() == {"3.png"}
    assert batches == [[4, 5], [6]]
    assert parted.read_bytes() == whole.read_bytes()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"{name}.npy{ending}" for name in ("parted", "whole") for ending in ("", ".keys.jsonl", ".source.json")]


def interrupted(clip: Path, folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """An encoding that is interrupted behind its second batch; the places of the batches that are encoded from then on."""
    monkeypatch.setattr(embeddings, "_SAVED_EVERY", 1)
    encoded = EncodedData.__iter__
    batches = list[list[int]]()
    stops = [2]

    def watched(data: EncodedData) -> Iterator[tuple[Tensor, EncodedFeatures]]:
        for number, (places, features) in enumerate(encoded(data)):
            if number in stops:
                raise KeyboardInterrupt
            batches.append(places.tolist())
            yield places, features

    monkeypatch.setattr(EncodedData, "__iter__", watched)
    with pytest.raises(KeyboardInterrupt):
        encode(clip, str(folder), out, batch=2)
    assert not out.exists()
    batches.clear()
    stops.clear()
    return batches


def test_an_interrupted_table_continues(clip: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While samples are encoded, and while the table is written, when all of them are."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `arrow`")
    whole, parted = tmp_path / "whole.parquet", tmp_path / "parted.parquet"
    encode(clip, str(folder), whole, batch=2)
    batches = interrupted(clip, folder, parted, monkeypatch)
    written = embeddings._write_parquet

    def full(*arguments: Any) -> None:
        written(*arguments)
        parted.rename(parted.with_name(parted.name + ".unfinished"))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(embeddings, "_write_parquet", full)
    with pytest.raises(vlmdsl.DiagnosticError, match="V0903"):
        encode(clip, str(folder), parted, batch=2)
    assert batches == [[4, 5], [6]]
    monkeypatch.setattr(embeddings, "_write_parquet", written)
    batches.clear()
    assert encode(clip, str(folder), parted, batch=2).skipped.keys() == {"3.png"}
    assert batches == []  # all rows were saved
    assert parquet.read_table(parted).equals(parquet.read_table(whole))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "parted.parquet",
        "parted.parquet.source.json",
        "whole.parquet",
        "whole.parquet.source.json",
    ]


def test_features_as_a_table(clip: Path, folder: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `arrow`")
    assert encode(clip, str(folder), tmp_path / "f.parquet", batch=2).samples == 7
    encode(clip, str(folder), tmp_path / "f.npy", batch=2)
    rows = np.load(tmp_path / "f.npy")
    table = parquet.read_table(tmp_path / "f.parquet").to_pydict()
    assert table["key"] == [f"{index}.png" for index in range(7)]
    assert [reason is not None for reason in table["skipped"]] == [index == 3 for index in range(7)]
    assert table["features"][3] is None
    assert np.array_equal(np.array(table["features"][5], dtype=np.float32), rows[5])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "f.npy",
        "f.npy.keys.jsonl",
        "f.npy.source.json",
        "f.parquet",
        "f.parquet.source.json",
    ]


def test_features_of_other_data_are_not_replaced(clip: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "features.npy"
    encode(clip, str(folder), out, batch=2)
    before = out.read_bytes()
    with pytest.raises(vlmdsl.DiagnosticError, match="V0866"):
        encode(clip, HELD_OUT, out, batch=2)
    assert out.read_bytes() == before
    encode(clip, str(folder), out, batch=2)  # the same features again
    assert out.read_bytes() == before
    (tmp_path / "notes.npy").write_bytes(b"of something else")
    with pytest.raises(vlmdsl.DiagnosticError, match="V0866"):
        encode(clip, str(folder), tmp_path / "notes.npy", batch=2)


def test_a_file_of_another_format_is_refused(clip: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(vlmdsl.DiagnosticError, match="V0862"):
        encode(clip, str(folder), tmp_path / "features.txt")
