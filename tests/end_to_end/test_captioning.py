"""Text decoders in training: pairs and documents in turns, a causal tower as a language model, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vlmdsl
from bundled.runs import DATA, SETTINGS, with_tiny_towers
from vlmdsl.diagnostics import DiagnosticError

SMALL = {"depth": 1, "width": 16, "heads": 2}
LANGUAGE_MODEL = "vlo 1\nrecipe model(text: Text)\nminimize next_token(linear(text), text)\n"


def test_pairs_and_documents_take_turns_and_captions_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_tiny_towers(monkeypatch)
    columns = {"document": "clean_text", "text": "caption"}
    settings = SETTINGS | {"evaluation.captions": 6, "evaluation.beams": 2, "model.text_length": 20}
    run = tmp_path / "run"
    vlmdsl.train("simvlm", knobs=SMALL, data=[DATA], map=columns, settings=settings, steps=12, out=run)
    flows = {json.loads(line)["flow"] for line in (run / "metrics.jsonl").read_text().splitlines()}
    assert flows == {"pairs", "documents"}
    captions = json.loads((run / "evaluation.json").read_text())["captions"]
    assert captions["written"] == 6
    assert {"token accuracy", "exact", "counts", "colours", "shapes", "scenes"} <= captions.keys()
    assert captions["baselines"]["blind"].keys() >= {"token accuracy", "scenes"}
    assert (run / "captions.png").read_bytes().startswith(b"\x89PNG")


def test_a_flow_whose_field_the_held_out_samples_lack_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Documents have no images, so that held-out pairs do for the run."""
    with_tiny_towers(monkeypatch)
    (documents := tmp_path / "documents.jsonl").write_text('{"document": "a red circle above a blue square"}\n' * 12)
    settings = SETTINGS | {"flows.documents.data.train": [str(documents)], "model.text_length": 20}
    settings |= {"train.batch": 4, "evaluation.captions": 6}
    result = vlmdsl.train("simvlm", knobs=SMALL, data=[DATA], settings=settings, steps=6, out=tmp_path / "run")
    assert "note: flow `documents` is not measured: " in capfd.readouterr().err
    assert "captions" in result.evaluation
    assert "flows" not in result.evaluation
    assert vlmdsl.evaluate(result.folder).evaluation == result.evaluation
    with pytest.raises(DiagnosticError, match="V0801"):  # nobody measures pairs without what they read
        vlmdsl.train("simvlm", knobs=SMALL, data=[DATA], val=[str(documents)], settings=settings, out=tmp_path / "other")


def test_a_causal_text_tower_is_a_language_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_tiny_towers(monkeypatch)
    trainer = vlmdsl.Trainer(LANGUAGE_MODEL, data=[DATA], settings=SETTINGS, steps=3, out=tmp_path / "run")
    losses = [json.loads(line)["loss"] for line in (trainer.fit().folder / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("term", "code"),
    [
        ("next_token(linear(text | image), text)", "V0301"),
        ("mlm(captioner(mask(text, random(15%)), image))", "V0301"),
        ("token_loss(linear(captioner(text, image)), text)", "V0301"),
        ("next_token(linear(captioner(text, text)), text)", "V0301"),
        ("next_token(linear(captioner(text, image, parallel=2)), text)", "V0405"),
        ("next_token(linear(captioner(text, image, prefix=image)), text)", "V0301"),
        ("contrast(image, captioner(text, image))", "V0319"),
    ],
)
def test_what_a_decoder_refuses(term: str, code: str) -> None:
    recipe = f"vlo 1\nrecipe mine(image: Image, text: Text)\nencoder captioner = text_decoder(depth=2)\nminimize {term}\n"
    with pytest.raises(DiagnosticError) as refused:
        vlmdsl.compile(recipe, compiled=False)
    assert code in {diagnostic.code for diagnostic in refused.value.diagnostics}
