"""What a run says of its data: before the first step, while it goes on, and in `run.json`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import vlmdsl
from unit.runtime.data.damage.samples import Members, encoded, lines, pairs, picture, tar_of, write
from vlmdsl.diagnostics import DiagnosticError

SMALL = {"train.batch": 4, "train.compile": False, "model.dimension": 8, "model.text_length": 8}


def trained(folder: Path, data: str, **settings: object) -> dict[str, object]:
    """What `run.json` says of the training data."""
    steps = int(str(settings.pop("steps", 2)))
    out = folder / f"run-{time.monotonic_ns()}"
    vlmdsl.train("clip", data=[data], steps=steps, settings=SMALL | settings, out=out)
    facts = json.loads((out / "run.json").read_text())
    return {**facts["data"]["train"], **facts["skipped"]["train"]}


def test_all_is_reported_before_the_first_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(12):
        write(tmp_path / "data" / f"{index}.png", encoded(picture(index)) if index else b"damaged \x1b")
    rows = [
        {"file_name": f"{index}.png", "text": ["a caption of more words than there are tokens to hold it", "b"], "id": index}
        for index in range(12)
    ]
    write(tmp_path / "data" / "metadata.jsonl", lines(rows))
    write(tmp_path / "data" / "c.heic", b"?")
    noted = trained(tmp_path, str(tmp_path / "data"))
    messages = capsys.readouterr().err.split("step 1/2")[0]
    for words in (
        "note: data: read as metadata.jsonl describes it", "note: left out: `.heic` files (1: c.heic)",
        "note: of 12 samples read: skipped 1 sample; damaged image  1  metadata:1", "note: unused columns: `id`",
        "note: 100.0% of the inspected `text` are truncated to 8 tokens; `model.text_length=",
        "note: 100% of the inspected samples list several texts for `text`, of which one is drawn in each epoch",
        "note: 100% of the inspected `text` are not unique",
    ):  # fmt: skip
        assert words in messages, words
    assert noted["remarks"] == ["data: read as metadata.jsonl describes it", "left out: `.heic` files (1: c.heic)"]
    assert (noted["unused_columns"], noted["listed_texts"], noted["skipped"]) == (
        ["id"],
        {"text": 1.0},
        {"damaged image": 1},
    )
    assert noted["cut_texts"]["text"]["share"] == 1.0  # type: ignore[index]


@pytest.mark.parametrize(("damaged", "settings", "code"), [(9, {}, "V0828"), (7, {}, "V0828"), (12, {}, "V0820")])
def test_data_that_is_too_damaged_stops_before_any_folder_is_made(
    tmp_path: Path, damaged: int, settings: dict[str, object], code: str
) -> None:
    data = write(tmp_path / "s.tar", tar_of(pairs(image=lambda index: b"?" if index < damaged else encoded(picture(index)))))
    with pytest.raises(DiagnosticError) as caught:
        vlmdsl.train("clip", data=[data], steps=2, settings=SMALL | settings, out=tmp_path / "run")
    assert caught.value.diagnostics[0].code == code
    assert not (tmp_path / "run").exists()


def test_the_share_of_bad_samples_can_be_set(tmp_path: Path) -> None:
    data = write(tmp_path / "s.tar", tar_of(pairs(image=lambda index: b"?" if index < 7 else encoded(picture(index)))))
    assert trained(tmp_path, data, **{"data.max_bad_share": 0.6})["skipped"] == {"damaged image": 7}


def test_what_is_skipped_later_is_reported_while_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that is not looked at before the first step."""
    monkeypatch.setattr("vlmdsl.runtime.data.surveys._READ", 1)
    data = write(tmp_path / "s.tar", tar_of(pairs(image=lambda index: b"?" if index == 5 else encoded(picture(index)))))
    assert trained(tmp_path, data, steps=6)["examples"] == {"damaged image": ["s/005"]}
    before, _, during = capsys.readouterr().err.partition("training ")
    assert "skipped" not in before
    assert "note: skipped 1 sample; damaged image  1  s/005" in during


def without_classes(image: Callable[[int], bytes]) -> Members:
    return [(name, data) for name, data in pairs(image=image) if not name.endswith(".cls")]


def test_evaluation_tells_what_it_skipped(tmp_path: Path) -> None:
    sound = write(tmp_path / "s.tar", tar_of(pairs()))
    result = vlmdsl.train("clip", data=[sound], steps=1, settings=SMALL, out=tmp_path / "run")
    half = write(tmp_path / "h.tar", tar_of(without_classes(lambda index: b"?" if index % 2 else encoded(picture(index)))))
    assert "damaged image  6  h/001" in vlmdsl.evaluate(result.folder, data=[half]).to_text()
    nothing = write(tmp_path / "n.tar", tar_of(without_classes(lambda _index: b"?")))
    with pytest.raises(DiagnosticError, match="V0820"):
        vlmdsl.evaluate(result.folder, data=[nothing])
