"""What is said of data before the first step."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from batches import loaded_values, streams_in_forms
from unit.runtime.data.damage.samples import encoded, lines, picture, write
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.ir import Stream
from vlmdsl.runtime.data import (
    BatchLoader,
    EvaluationLoader,
    Materials,
    Requirement,
    Source,
    Survey,
    map_fields,
    open_source,
    survey,
    with_stand_ins,
)
from vlmdsl.runtime.data.sample import Loaded
from vlmdsl.runtime.data.stand_ins import Call
from vlmdsl.runtime.data.views import view_of
from vlmdsl.runtime.tokenizer import train_tokenizer
from vlmdsl.runtime.values import ImageFormat

NEEDS = [Requirement("image", "Image"), Requirement("text", "Text")]
FIELDS = {need.field: need.kind for need in NEEDS}
LENGTH = 16


def looked_through(source: Source, streams: list[Stream], materials: Materials | None = None, **options: float) -> Survey:
    mapping = map_fields(source, NEEDS)
    tokenizer = train_tokenizer([], 300)  # a token a byte
    readings = streams_in_forms(streams, ImageFormat(16), tokenizer, LENGTH)
    values = {reading.name: Loaded(view_of(reading.source), reading.form) for reading in readings}
    return survey(source, mapping, FIELDS, values, materials=materials or Materials(), **options)  # type: ignore[arg-type]


def table(folder: Path, rows: list[dict[str, object]]) -> Source:
    """Rows without an image get one of their own."""
    for index in range(len(rows)):
        write(folder / f"{index}.png", encoded(picture(index)))
    return open_source(write(folder / "t.jsonl", lines({"image": f"{index}.png"} | row for index, row in enumerate(rows))))


def test_nothing_is_said_where_all_is_used(tmp_path: Path, plain_streams: list[Stream]) -> None:
    remarks = looked_through(table(tmp_path, [{"text": f"text {index}"} for index in range(9)]), plain_streams)
    assert remarks.lines() == []
    assert remarks.as_dict().keys() == {"duplicate_texts", "looked_at", "read", "cut_texts", "duplicate_images"}


def test_cut_texts_and_the_length_that_keeps_them(tmp_path: Path, plain_streams: list[Stream]) -> None:
    """Lengths of 4 to 203 tokens: two marks and a blank besides the letters."""
    source = table(tmp_path, [{"text": "x" * (1 + index)} for index in range(200)])
    remarks = looked_through(source, plain_streams)
    assert remarks.cut["text"].share == 187 / 200  # those of 14 letters and more
    line = "93.5% of the inspected `text` are truncated to 16 tokens; `model.text_length=202` keeps 99 % of them whole"
    assert remarks.lines() == [line]
    assert sum(3 + 1 + index <= 202 for index in range(200)) >= 0.99 * 200
    assert json.loads(json.dumps(remarks.as_dict()))["cut_texts"]["text"]["tokens_for_99_percent"] == 202


def test_lists_of_captions(tmp_path: Path, plain_streams: list[Stream]) -> None:
    source = table(tmp_path, [{"text": [f"a {index}", f"b {index}"] if index < 6 else f"c {index}"} for index in range(8)])
    start = "75% of the inspected samples list several texts for `text`, of which "
    (line,) = looked_through(source, plain_streams).lines()
    assert line == start + "the first is used (`data.captions=draw` draws one in each epoch)"
    (line,) = looked_through(source, plain_streams, Materials(draw_captions=True)).lines()
    assert line == start + "one is drawn in each epoch (`data.captions=first` uses the first)"


def test_repeated_images_and_texts(tmp_path: Path, plain_streams: list[Stream], shard: Callable[..., Path]) -> None:
    rows: list[dict[str, object]] = [
        {"image": "0.png" if index < 4 else f"{index}.png", "text": str(index)} for index in range(8)
    ]
    rows[1]["image"] = "./0.png"
    expected = ["50% of the inspected `image` are not unique: such pairs are each other's negatives"]
    assert looked_through(table(tmp_path, rows), plain_streams).lines() == expected
    members = {}
    for index in range(8):
        members[f"{index}.png"], members[f"{index}.txt"] = encoded(picture(0 if index < 4 else index)), f"text {index}"
    assert looked_through(open_source(str(shard("s.tar", members))), plain_streams).lines() == expected


def test_columns_that_nothing_reads(tmp_path: Path, plain_streams: list[Stream]) -> None:
    source = table(
        tmp_path, [{"text": str(index), "width": 3, "\x1b[31m": 1, "boxes": [[0, 0, 5, 5]]} for index in range(4)]
    )
    assert looked_through(source, plain_streams).lines() == ["unused columns: `�[31m`, `boxes`, `width`"]
    mapping = map_fields(with_stand_ins(source, [Call("crops", ("image", "boxes"))]), [Requirement("regions", "Regions")],
                         {"regions": "crops(image,boxes)"})  # fmt: skip
    assert "crops(image,boxes)" in mapping.columns["regions"]


def test_overlong_texts_are_counted(tmp_path: Path, plain_streams: list[Stream]) -> None:
    source = table(tmp_path, [{"text": "x " * (5001 if index == 0 else 1) + str(index)} for index in range(4)])
    remarks = looked_through(source, plain_streams)
    assert remarks.overlong == {"text": 0.25}
    assert "25.0% of the inspected `text` are truncated to `data.max_text" in "\n".join(remarks.lines())


def test_bad_samples_are_reported_or_stop_the_run(pairs: Callable[..., Path], plain_streams: list[Stream]) -> None:
    source = open_source(str(pairs(20, {f"{index:04d}.png": b"?" for index in range(8)})))
    (line,) = looked_through(source, plain_streams, batch=12).lines()
    names = "pairs/0000, pairs/0001, pairs/0002, ..."
    assert line == f"of 20 samples read: skipped 8 samples; damaged image  8  {names}"
    with pytest.raises(DiagnosticError, match="8 of 20 samples cannot be used, so no batch of 13 can be filled"):
        looked_through(source, plain_streams, batch=13)
    with pytest.raises(DiagnosticError, match=r"8 of 20 samples cannot be used, more than the allowed share of 0\.39"):
        looked_through(source, plain_streams, batch=4, max_bad_share=0.39)
    nothing = open_source(str(pairs(4, {f"{index:04d}.png": b"?" for index in range(4)})))
    with pytest.raises(DiagnosticError, match="V0820"):
        looked_through(nothing, plain_streams)


def test_a_large_source_is_looked_at_in_part(pairs: Callable[..., Path], plain_streams: list[Stream]) -> None:
    source = open_source(str(pairs(700, {"0003.png": b"?", "0004.png": b"?"})))
    remarks = looked_through(source, plain_streams, batch=699)  # it is not known that one is missing
    assert remarks.skipped.counts == {"damaged image": 1}


@pytest.mark.parametrize("workers", [0, 2])
def test_captions_are_drawn_in_each_epoch(tmp_path: Path, plain_streams: list[Stream], workers: int) -> None:
    """Each of a list as often as the others, the same for any number of workers; the first in evaluation."""
    source = table(tmp_path, [{"text": ["a", "b", "c"]} for _ in range(8)])
    mapping, tokenizer = map_fields(source, NEEDS), train_tokenizer([], 300)
    options = {"materials": Materials(draw_captions=True), "workers": workers}

    readings = streams_in_forms(plain_streams, ImageFormat(16), tokenizer, 8)

    def drawn(seed: int) -> list[str]:
        loader = BatchLoader(source, mapping, readings, batch=8, seed=seed, **options)  # type: ignore[arg-type]
        rows = [batch.values["text"][0] for batch in itertools.islice(loader, 30)]
        return [tokenizer.decode(row.tolist()) for row in itertools.chain(*rows)]

    first = drawn(1)
    counts = Counter(first)
    assert counts.keys() == {"a", "b", "c"}
    assert all(60 < count < 100 for count in counts.values())
    assert drawn(1) == first != drawn(2)
    loader = EvaluationLoader(source, mapping, loaded_values(FIELDS, ImageFormat(16), tokenizer, 8), batch=8, **options)  # type: ignore[arg-type]
    (batch,) = loader
    assert {tokenizer.decode(row.tolist()) for row in batch.values["text"][0]} == {"a"}


def test_stand_ins_of_a_list_are_made_of_its_first_text(tmp_path: Path) -> None:
    source = table(tmp_path, [{"text": ["A dog. It runs.", "b"]}])
    called = with_stand_ins(source, [Call("summarize", ("text",))])
    assert called[0]["summarize(text)"] == "A dog."
