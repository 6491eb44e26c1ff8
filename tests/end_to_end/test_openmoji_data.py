"""Real shards read from end to end: every drawing becomes a training sample, in every language and with its rewrites."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from batches import loaded_values
from vlmdsl.runtime.data import (
    EvaluationLoader,
    Loaded,
    Requirement,
    View,
    duplicate_share,
    map_fields,
    open_source,
    parse_assignments,
    texts_of,
)
from vlmdsl.runtime.tokenizer import train_tokenizer
from vlmdsl.runtime.values import ImageFormat

FOLDER = Path(__file__).parents[2].parent / "shared" / "data" / "openmoji"
NEEDS = [Requirement("image", "Image"), Requirement("text", "Text"), Requirement("text_rewrites", "Rewrites")]
MAP = parse_assignments(["text_rewrites=tags,cldr_en,keywords_en", "label=group"])

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the OpenMoji shards are not beside the repository")


@pytest.mark.parametrize(("pattern", "count"), [("openmoji-train-*.tar", 2185), ("openmoji-val-{000..000}.tar", 280)])
def test_every_sample_is_read(pattern: str, count: int) -> None:
    source = open_source(str(FOLDER / pattern))
    assert len(source) == len(set(source.keys)) == count
    mapping = map_fields(source, NEEDS, MAP)
    tokenizer = train_tokenizer(texts_of(source, mapping, ["text"]), 2000)
    fields = {"image": "Image", "text": "Text", "label": "Label"}
    loader = EvaluationLoader(source, mapping, loaded_values(fields, ImageFormat(32), tokenizer, 32), batch=256)
    batches = list(loader)
    assert sum(len(batch) for batch in batches) == count
    assert loader.report.table() == ""
    labels = torch.cat([batch.values["label"].numbers for batch in batches])
    assert labels.min() >= 0
    assert len(mapping.classes["label"]) == int(labels.max()) + 1


def test_alternatives_of_a_drawing_are_its_own_words() -> None:
    source = open_source(str(FOLDER / "openmoji-train-*.tar"))
    mapping = map_fields(source, NEEDS, MAP)
    cat = source.keys.index("openmoji-train-000/1F63E")
    value = mapping.read("text", "Text", source[cat])
    assert value.text == "pouting cat"
    assert {"cat", "face", "pouting"} <= set(itertools.chain(*(rewrite.split() for rewrite in value.rewrites)))
    assert value.text not in value.rewrites
    assert 0 <= duplicate_share(mapping.read("text", "Text", source[index]).text for index in range(300)) < 0.1


def test_splits_are_disjoint_and_share_their_classes() -> None:
    train, val = open_source(str(FOLDER / "openmoji-train-*.tar")), open_source(str(FOLDER / "openmoji-val-*.tar"))
    names = [{key.split("/")[1] for key in source.keys} for source in (train, val)]
    assert names[0].isdisjoint(names[1])
    classes = map_fields(train, NEEDS, MAP).classes
    held_out = map_fields(val, NEEDS, MAP, classes)
    sample = next(val[index] for index in range(len(val)) if val[index]["group"] == "flags")
    assert held_out.classes["label"][int(held_out.read("label", "Label", sample))] == "flags"


@pytest.mark.parametrize(("pattern", "count"), [("scenes-train-*.tar", 1500), ("scenes-val-*.tar", 200)])
def test_composed_scenes_have_a_box_for_each_name(pattern: str, count: int) -> None:
    source = open_source(str(FOLDER / pattern))
    needs = [Requirement("image", "Image"), Requirement("boxes", "Boxes"), Requirement("phrases", "Phrases")]
    mapping = map_fields(source, needs, parse_assignments(["boxes=boxes_xyxy_px"]))
    values = {
        "image": Loaded(View("image", "Image"), ImageFormat(32)),
        "boxes": Loaded(View("boxes", "Boxes"), ImageFormat(32)),
    }
    loader = EvaluationLoader(source, mapping, values, batch=256)
    read = 0
    for batch in loader:
        boxes = batch.values["boxes"].boxes
        sizes = boxes[..., 2:] - boxes[..., :2]
        names = [mapping.read("phrases", "Phrases", source[index]).names for index in batch.index.tolist()]
        assert (sizes.amin(dim=2) > 0).sum(dim=1).tolist() == [len(own) for own in names]
        assert float(boxes.max()) <= 1
        read += len(batch)
    assert (read, loader.report.table()) == (count, "")
