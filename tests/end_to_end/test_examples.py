"""A run writes samples to look at: queries of retrieval with their best matches, and confused classes."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

import vlmdsl
from vlmdsl.runtime.files import read_json
from vlmdsl.runtime.training.records import MOST_CLASSES, StoredExamples


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = {"train.batch": 8, "train.compile": False, "data.val": ("shapes:samples=24",)}
    out = tmp_path_factory.mktemp("runs") / "clip"
    return vlmdsl.train("clip", data=["shapes:samples=32"], steps=2, settings=settings, out=out).folder


def test_queries_are_kept_with_pictures_and_texts(run: Path) -> None:
    examples = read_json(run / "examples.json", StoredExamples)
    assert len(examples.image_to_text) == len(examples.text_to_image) == 6
    query = examples.image_to_text[0]
    assert [bool(match.sample.text) for match in query.matches] == [True] * 5
    assert 1 <= query.rank <= 24
    assert sum(match.right for match in query.matches) == (query.rank <= 5)
    picture = Image.open(io.BytesIO(base64.b64decode(query.sample.image)))
    assert (picture.format, picture.size) == ("PNG", (32, 32))
    assert (run / "retrieval.png").read_bytes().startswith(b"\x89PNG")


def test_confused_classes_add_up_to_the_images(run: Path) -> None:
    examples = read_json(run / "examples.json", StoredExamples)
    confusion = examples.confusion
    assert confusion is not None
    assert len(confusion.classes) == 32 <= MOST_CLASSES
    assert sum(number for _, _, number in confusion.counts) == 24
    right = sum(number for label, predicted, number in confusion.counts if label == predicted)
    assert right / 24 == pytest.approx(vlmdsl.evaluate(run).evaluation["zero_shot"]["top-1"])
